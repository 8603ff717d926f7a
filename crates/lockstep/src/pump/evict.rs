//! Evicting: files here whose bytes a connected peer keeps become placeholders. The peer is asked
//! about many at once, so that it syncs its disk once for all.

use super::Pump;
use lockstep_core::limits::KEPT_ASKED_MAX;
use lockstep_core::{ContentRef, NodeId};
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

/// A file with its path, and the content that is to be given up.
type Going = (NodeId, PathBuf, ContentRef);

impl Pump {
    /// Gives up the bytes of `node`, or of all files below it.
    pub fn evict(&self, node: NodeId) -> Evicted {
        let mut evicted = Evicted::default();
        let files = self.volume.files_below(node);
        for files in files.chunks(KEPT_ASKED_MAX) {
            let going = self.start_evicting(files, &mut evicted);
            self.finish_evicting(going, &mut evicted);
        }
        evicted
    }

    fn start_evicting(&self, files: &[(NodeId, PathBuf)], evicted: &mut Evicted) -> Vec<Going> {
        let mut going = Vec::new();
        for (node, path) in files {
            match self.volume.start_evicting(*node) {
                Ok(Some(content)) => going.push((*node, path.clone(), content)),
                Ok(None) => {}
                Err(why) => evicted.stays(path.clone(), why),
            }
        }
        going
    }

    fn finish_evicting(&self, going: Vec<Going>, evicted: &mut Evicted) {
        let contents: Vec<_> = going.iter().map(|(node, _, content)| (*node, *content)).collect();
        let kept = self.kept_elsewhere(&contents);
        let files: Vec<_> =
            contents.into_iter().zip(kept).map(|((n, c), has)| (n, c, has)).collect();
        let outcomes = self.volume.finish_evicting(&files);
        for ((_, path, content), outcome) in going.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => evicted.gave_up(content),
                Err(why) => evicted.stays(path, why),
            }
        }
    }

    /// For each content, whether a connected peer says that it keeps it.
    fn kept_elsewhere(&self, contents: &[(NodeId, ContentRef)]) -> Vec<bool> {
        let mut kept = vec![false; contents.len()];
        if contents.is_empty() {
            return kept;
        }
        for link in self.all_peers().iter().filter_map(|peer| peer.link()) {
            match self.runtime.block_on(link.keeps(contents)) {
                Ok(keeps) => kept.iter_mut().zip(keeps).for_each(|(kept, keeps)| *kept |= keeps),
                Err(error) => tracing::debug!(%error, "a peer does not say what it keeps"),
            }
        }
        kept
    }
}

impl Evicted {
    fn gave_up(&mut self, content: ContentRef) {
        self.files += 1;
        self.bytes += content.size_bytes;
    }

    fn stays(&mut self, path: PathBuf, why: Stays) {
        self.stays_total += 1;
        if self.stays.len() < REASONS_MAX {
            self.stays.push((path, why));
        }
    }
}
