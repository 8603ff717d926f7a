//! Reading directories.

use crate::errno::{Errno, Result};
use crate::request::{DirEntry, Fh};
use crate::volume::Volume;
use lockstep_core::NodeId;

/// Cursors 1 and 2 stand for `.` and `..`; entries follow.
const DOTS: u64 = 2;

impl Volume {
    /// Opens a directory.
    pub fn open_dir(&self, node: NodeId) -> Result<Fh> {
        let state = self.read_state();
        let dir = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        dir.dir().map(|_| Fh(0)).ok_or(Errno::NotDir)
    }

    /// Closes a directory. A listing needs no state: its cursors are the directory's own.
    pub fn release_dir(&self, _fh: Fh) {}

    /// Lists entries after `cursor` (0: from the start) until `emit` says its buffer is full. An
    /// entry that exists throughout is listed exactly once, whatever changes meanwhile.
    pub fn read_dir(
        &self,
        _fh: Fh,
        node: NodeId,
        cursor: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let state = self.read_state();
        let dir = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        let entries = dir.dir().ok_or(Errno::NotDir)?;
        let dots = [(&b"."[..], node), (&b".."[..], state.replica.tree.parent(node))];
        for (at, (name, id)) in (1..).zip(dots) {
            if cursor < at {
                let stat = self.stat(&state, id)?;
                if emit(DirEntry { name, cursor: at, stat: &stat }) {
                    return Ok(());
                }
            }
        }
        for (at, name, id) in entries.after(cursor.saturating_sub(DOTS)) {
            let Ok(stat) = self.stat(&state, id) else { continue };
            let entry = DirEntry { name: name.as_bytes(), cursor: at + DOTS, stat: &stat };
            if emit(entry) {
                break;
            }
        }
        Ok(())
    }

    /// Makes the names in a directory durable.
    pub fn fsync_dir(&self, node: NodeId) -> Result<()> {
        let path = self.read_state().replica.tree.path(node);
        if let Some(path) = path {
            self.disk.sync_dir(&path)?;
        }
        self.commit()?;
        Ok(self.db.sync()?)
    }
}
