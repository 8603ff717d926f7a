//! A name that is about to be taken away, or to move: what was written under it is announced first,
//! and nobody writes meanwhile.

use crate::errno::Result;
use crate::files::OpenFile;
use crate::volume::{State, Volume};
use lockstep_core::NodeId;
use std::sync::Arc;

impl Volume {
    /// A file that was written and is now moved to where others look for it is announced with its
    /// content first: no peer may see the new name with the old bytes, or with none.
    pub(crate) fn announce_mover(&self, parent: NodeId, name: &[u8]) {
        let mover = self.read_state().child(parent, name);
        if let Ok(node) = mover {
            self.announce_if_written(node);
        }
    }

    /// The file under `name`, if somebody has it open or it holds writes that are to be announced
    /// before the name goes. Its `writing` lock is to be held until the name is gone. An error if it
    /// cannot be opened below: then nothing can be announced, and it goes as it is.
    pub(crate) fn leaver(&self, parent: NodeId, name: &[u8]) -> Result<Option<Leaver<'_>>> {
        let (node, overwritten) = {
            let state = self.read_state();
            let Ok(node) = state.child(parent, name) else { return Ok(None) };
            (node, is_overwritten(&state, node))
        };
        if !overwritten && !self.open_files.lock().contains_key(&node) {
            return Ok(None);
        }
        let open = self.open_for_moment(node)?;
        Ok(Some(Leaver { volume: self, open }))
    }

    /// A file that is about to lose its name, and whose announced content was overwritten, is
    /// announced as it is now: should a peer's change bring it back, there must be bytes for it
    /// somewhere, and the peer need not have fetched what was announced. The caller holds its `writing` lock.
    pub(crate) fn announce_leaver(&self, leaver: Option<&Leaver<'_>>) {
        let Some(Leaver { open, .. }) = leaver else { return };
        self.notice(open.node);
        if is_overwritten(&self.read_state(), open.node) {
            self.write_state().announce.hasten(open.node, self.now_ms());
            self.describe_alone(open);
        }
    }

    /// Whether what stands under `name` is still what [`Volume::leaver`] found, so that nobody
    /// writes to it, and all it holds is announced.
    pub(crate) fn may_leave(
        &self,
        state: &State,
        parent: NodeId,
        name: &[u8],
        leaver: Option<&Leaver<'_>>,
    ) -> bool {
        let Ok(node) = state.child(parent, name) else { return true };
        let open = self.open_files.lock().get(&node).cloned();
        match (open, leaver) {
            (Some(open), Some(leaver)) => Arc::ptr_eq(&open, &leaver.open),
            (Some(_), None) => false,
            (None, _) => !is_overwritten(state, node),
        }
    }
}

/// A file kept open until this goes.
pub(crate) struct Leaver<'v> {
    volume: &'v Volume,
    open: Arc<OpenFile>,
}

impl std::ops::Deref for Leaver<'_> {
    type Target = OpenFile;

    fn deref(&self) -> &OpenFile {
        &self.open
    }
}

impl Drop for Leaver<'_> {
    fn drop(&mut self) {
        self.volume.close_moment(&self.open);
        self.volume.forget_unlinked(self.open.node);
    }
}

/// Whether a content of `node` that a peer may want was overwritten, by writes that are not
/// announced.
fn is_overwritten(state: &State, node: NodeId) -> bool {
    let file = state.replica.tree.node(node).and_then(|n| n.file());
    file.is_some_and(|f| f.dirty && f.content.size_bytes > 0) && state.replica.log.peers() > 0
}
