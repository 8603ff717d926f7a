//! Calls that read and set what `stat` shows.

use crate::errno::{Errno, Result};
use crate::request::{Caller, Fh, SetAttr, SetTime, Stat};
use crate::volume::Volume;
use lockstep_core::{Kind, NodeId, Op, Perm, Timespec, limits};

impl Volume {
    /// What `stat` shows.
    pub fn getattr(&self, node: NodeId) -> Result<Stat> {
        self.stat(&self.read_state(), node)
    }

    /// Sets what `set` names, size first.
    pub fn setattr(
        &self,
        _caller: &Caller,
        node: NodeId,
        fh: Option<Fh>,
        set: &SetAttr,
    ) -> Result<Stat> {
        if let Some(size) = set.size {
            self.truncate(node, fh, size)?;
        }
        if set.mode.is_some() || set.uid.is_some() || set.gid.is_some() {
            self.set_perm(node, set)?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            self.set_times(node, set)?;
        }
        self.getattr(node)
    }

    fn truncate(&self, node: NodeId, fh: Option<Fh>, size: u64) -> Result<()> {
        if size > limits::FILE_MAX_BYTES {
            return Err(Errno::TooBig);
        }
        let open = match fh.and_then(|fh| self.handle(fh).ok()) {
            Some(handle) => handle.open.clone(),
            None => self.open_for_moment(node)?,
        };
        let result = self.resize(&open, size);
        if fh.is_none() {
            self.close_moment(&open);
        }
        result
    }

    fn set_perm(&self, node: NodeId, set: &SetAttr) -> Result<()> {
        let mut state = self.mutate()?;
        let stands = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        let (old, kind) = (stands.perm, stands.kind());
        let perm = Perm {
            mode: set.mode.map_or(old.mode, |mode| (mode & 0o7777) as u16),
            uid: set.uid.unwrap_or(old.uid),
            gid: set.gid.unwrap_or(old.gid),
        };
        let absent = stands.file().is_some_and(|file| !file.resident);
        if let Some(path) = state.replica.tree.path(node) {
            if self.privileged && (perm.uid, perm.gid) != (old.uid, old.gid) {
                self.disk.set_owner(&path, perm.uid, perm.gid)?;
            } else if perm.uid != old.uid {
                return Err(Errno::Perm);
            } else if perm.gid != old.gid {
                self.disk.set_owner(&path, old.uid, perm.gid)?;
            }
            if !absent {
                self.disk.set_mode(&path, self.backing_mode(perm, kind))?;
            }
        } else if let Some(file) = self.open_disk_file(node) {
            file.set_mode(self.backing_mode(perm, kind))?;
        }
        state.replica.local(Op::SetPerm { node, perm, ctime: self.now() });
        self.mutated(state);
        Ok(())
    }

    fn set_times(&self, node: NodeId, set: &SetAttr) -> Result<()> {
        let mut state = self.mutate()?;
        let now = self.now();
        let stands = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        let (mut times, kind) = (stands.times, stands.kind());
        let pick = |time: Option<SetTime>, old: Timespec| match time {
            Some(SetTime::Now) => now,
            Some(SetTime::At(at)) => at,
            None => old,
        };
        times.atime = pick(set.atime, times.atime);
        times.mtime = pick(set.mtime, times.mtime);
        times.ctime = now;
        if let Some(path) = state.replica.tree.path(node) {
            match kind {
                Kind::File => self.set_times_below(&path, times.atime, times.mtime)?,
                _ => self.disk.set_times(&path, times.atime, times.mtime)?,
            }
        }
        state.replica.local(Op::SetTimes { node, times });
        self.mutated(state);
        Ok(())
    }
}
