//! Bytes for peers: the content of a file as it was announced, or nothing.

use crate::volume::Volume;
use lockstep_core::{ContentRef, Manifest, NodeId};
use lockstep_disk::{DiskFile, describe};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a peer does not get a content.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The file has moved on, or is gone: a later change says how.
    #[error("this version of the file is no longer here")]
    Gone,
    /// The bytes could not be read.
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
}

/// Name under which the bytes of a removed file are kept for peers that still fetch it.
pub(crate) fn kept_name(node: NodeId, content: &ContentRef) -> String {
    let hash: String = content.hash.0[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("{:016x}-{hash}", node.0)
}

impl Volume {
    /// The file that holds `content` of `node`. The receiver verifies every chunk, so a write that
    /// comes later only costs it a repetition.
    pub fn serve(
        &self,
        node: NodeId,
        content: ContentRef,
    ) -> Result<Arc<dyn DiskFile>, ServeError> {
        let state = self.read_state();
        let stands = state.replica.tree.node(node).filter(|n| !n.is_unlinked());
        if let Some(file) = stands.and_then(|n| n.file())
            && file.resident
            && !file.dirty
            && file.content == content
            && let Some(path) = state.replica.tree.path(node)
        {
            return Ok(self.disk.open(&path)?);
        }
        self.disk.keep_open(&kept_name(node, &content)).map_err(|_| ServeError::Gone)
    }

    /// The chunks of `content` of `node`.
    pub fn manifest(&self, node: NodeId, content: ContentRef) -> Result<Manifest, ServeError> {
        if let Some(manifest) = self.transfers.manifest(&content) {
            return Ok(manifest);
        }
        let file = self.serve(node, content)?;
        let stop = || self.closing.load(Ordering::Relaxed);
        let description = describe(&*file, content.size_bytes, &stop)?.ok_or(ServeError::Gone)?;
        if description.content != content {
            return Err(ServeError::Gone);
        }
        self.transfers.remember_manifest(content, description.manifest.clone());
        Ok(description.manifest)
    }
}
