//! Evicting: files here whose bytes a connected peer keeps become placeholders.

use super::Pump;
use lockstep_core::{ContentRef, NodeId};
use lockstep_disk::verify_manifest;
use lockstep_vfs::Stays;
use std::path::PathBuf;

/// Files that stay, of which the answer names the reason.
const REASONS_MAX: usize = 1000;

/// What became of an eviction.
#[derive(Clone, Debug, Default)]
pub struct Evicted {
    /// Files whose bytes were given up.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// Files that keep their bytes, and why; the first of them.
    pub stays: Vec<(PathBuf, Stays)>,
    /// How many there are.
    pub stays_total: u64,
}

impl Pump {
    /// Gives up the bytes of `node`, or of all files below it.
    pub fn evict(&self, node: NodeId) -> Evicted {
        let mut evicted = Evicted::default();
        for (file, path) in self.volume.files_below(node) {
            match self.evict_file(file) {
                Ok(None) => {}
                Ok(Some(content)) => {
                    evicted.files += 1;
                    evicted.bytes += content.size_bytes;
                }
                Err(why) => {
                    evicted.stays_total += 1;
                    if evicted.stays.len() < REASONS_MAX {
                        evicted.stays.push((path, why));
                    }
                }
            }
        }
        evicted
    }

    fn evict_file(&self, node: NodeId) -> Result<Option<ContentRef>, Stays> {
        let Some(content) = self.volume.start_evicting(node)? else { return Ok(None) };
        let kept = self.is_kept_elsewhere(node, content);
        self.volume.finish_evicting(node, content, kept)?;
        Ok(Some(content))
    }

    /// Whether a connected peer says that it keeps the content, and names its chunks.
    fn is_kept_elsewhere(&self, node: NodeId, content: ContentRef) -> bool {
        let keeps = |link: std::sync::Arc<lockstep_net::Link>| {
            let manifest = self.runtime.block_on(link.kept_manifest(node, content));
            manifest.is_ok_and(|manifest| verify_manifest(&manifest, &content))
        };
        self.all_peers().iter().filter_map(|peer| peer.link()).any(keeps)
    }
}
