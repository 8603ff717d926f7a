//! A file that a peer has moved over another, and whose bytes no peer has any more: until its
//! successor comes it shows the bytes it replaced. A name that had bytes is never without.

use crate::volume::{State, Volume};
use lockstep_core::NodeId;
use lockstep_core::tree::{FileBody, Incoming};
use std::io;
use std::path::Path;

impl Volume {
    /// Instead of moving the placeholder of `node` from `from` over `to`, gives `node` the file
    /// there, which was that of `replaced`. False if the placeholder is to be moved after all:
    /// the content is still to be had, or there is nothing to show in its place.
    pub(crate) fn stand_in(
        &self,
        state: &mut State,
        (node, from): (NodeId, &Path),
        (replaced, to): (NodeId, &Path),
    ) -> io::Result<bool> {
        let tree = &mut state.replica.tree;
        // What has other names keeps its file.
        let Some(old) = tree
            .node(replaced)
            .filter(|n| n.is_unlinked())
            .and_then(|n| n.file())
            .filter(|f| lends(f))
            .cloned()
        else {
            return Ok(false);
        };
        if self.is_being_written(replaced) {
            return Ok(false);
        }
        let Some(stands) = tree.node_mut(node) else { return Ok(false) };
        let (times, perm, names) = (stands.times, stands.perm, stands.links.len());
        let Some(file) = stands.file_mut() else { return Ok(false) };
        let gone = state.gone.get(&node).is_some_and(|(gone, _)| *gone == file.version);
        if names > 1
            || file.resident
            || file.incoming.is_some()
            || !gone
            || !self.disk.is_placeholder(from)?
        {
            return Ok(false);
        }
        self.keep_lender(state, replaced, to)?;
        self.disk.unlink(from)?;
        let Some(file) = state.replica.tree.node_mut(node).and_then(|n| n.file_mut()) else {
            return Ok(false);
        };
        let (content, version) = (file.content, file.version);
        *file = FileBody { incoming: Some(Incoming { content, version, times, perm }), ..old };
        let shown = self.disk.open(to)?;
        self.dress(&*shown, perm, times)?;
        self.reopen(node, Some(shown));
        Ok(true)
    }
}

fn lends(file: &FileBody) -> bool {
    file.resident && !file.dirty && file.live_size_bytes > 0
}
