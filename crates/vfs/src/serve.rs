//! Bytes for peers: the content of a file as it was announced, or nothing.

use crate::volume::State;
use crate::volume::Volume;
use lockstep_core::{ContentRef, Manifest, NodeId, Shown, Version};
use lockstep_disk::{DiskFile, Holding, describe};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a peer does not get a content.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The file has moved on, or is gone: a later change says how.
    #[error("this version of the file is no longer here")]
    Gone {
        /// What the file shows here instead, if it is a version of its own.
        shown: Option<Shown>,
    },
    /// The bytes could not be read.
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
}

/// Name of the private file with a content of a node: on its way here, or kept for peers that
/// still fetch it although the file is removed.
pub(crate) fn kept_name(holding: &Holding) -> String {
    let hash: String = holding.content.iter().map(|b| format!("{b:02x}")).collect();
    format!("{:016x}-{hash}", holding.node.0)
}

/// The inverse of [`kept_name`].
pub(crate) fn holding_of(name: &str) -> Option<Holding> {
    let (node, hash) = name.split_once('-')?;
    let hash = u64::from_str_radix(hash, 16).ok()?;
    let node = NodeId(u64::from_str_radix(node, 16).ok()?);
    let holding = Holding { node, content: hash.to_be_bytes() };
    (kept_name(&holding) == name).then_some(holding)
}

/// A file to read a content from.
pub struct Served {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// Whether it holds exactly that content. Otherwise it is being written: each chunk has to be
    /// compared with its hash.
    pub settled: bool,
}

impl Volume {
    /// The file that holds `content` of `node`. A file that is being written is served too: what
    /// was announced of it is mostly still there.
    pub fn serve(&self, node: NodeId, content: ContentRef) -> Result<Served, ServeError> {
        let state = self.read_state();
        let stands = state.replica.tree.node(node).filter(|n| !n.is_unlinked());
        if let Some(file) = stands.and_then(|n| n.file())
            && file.resident
            && file.content == content
            && let Some(path) = state.replica.tree.path(node)
        {
            return Ok(Served {
                file: self.disk.open(&path)?,
                settled: !file.dirty && !state.passed.is_written(node),
            });
        }
        let kept = kept_name(&Holding::new(node, &content));
        let file = self.disk.keep_open(&kept).map_err(|_| gone(&state, node))?;
        // Who had it open when it lost its name may go on writing.
        Ok(Served { file, settled: false })
    }

    /// The chunks of `content` of `node`.
    pub fn manifest(&self, node: NodeId, content: ContentRef) -> Result<Manifest, ServeError> {
        if let Some(manifest) = self.held(Holding::new(node, &content), &content) {
            return Ok(manifest);
        }
        let served = self.serve(node, content)?;
        let stop = || self.closing.load(Ordering::Relaxed);
        let described = describe(&*served.file, content.size_bytes, &stop)?;
        let description = described
            .filter(|d| d.content == content)
            .ok_or_else(|| gone(&self.read_state(), node))?;
        self.hold(node, &content, &description.manifest);
        Ok(description.manifest)
    }
}

/// Says what `node` shows here. What a power cut left of a file is no version.
fn gone(state: &State, node: NodeId) -> ServeError {
    let stands = state.replica.tree.node(node).filter(|n| !n.is_unlinked());
    let file = stands.and_then(|n| n.file()).filter(|file| file.resident && !file.dirty);
    let shown = file.map(|file| Shown { content: file.content, version: file.version });
    ServeError::Gone { shown: shown.filter(|shown| shown.version != Version::default()) }
}
