//! Calls that look up, make, move and remove names.

use crate::errno::{Errno, Result};
use crate::files::OpenFile;
use crate::request::{Caller, Opened, Stat};
use crate::volume::{Hold, State, Volume};
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::{EntryName, Kind, NodeId, Op, Perm, Times, limits};
use lockstep_disk::{DiskFile, RenameMode};
use parking_lot::RwLockWriteGuard;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const S_IFMT: u32 = 0o170_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFSOCK: u32 = 0o140_000;
const S_ISGID: u16 = 0o2000;

impl Volume {
    /// The node under `name`.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Stat> {
        let state = self.read_state();
        if name.len() > EntryName::LEN_MAX_BYTES {
            return Err(Errno::NameTooLong);
        }
        match name {
            b"." => self.stat(&state, parent),
            b".." => self.stat(&state, state.replica.tree.parent(parent)),
            _ => self.stat(&state, state.child(parent, name)?),
        }
    }

    /// The kernel dropped `nlookup` references. Nodes are kept by the tree, not by the kernel.
    pub fn forget(&self, _node: NodeId, _nlookup: u64) {}

    /// Makes a file, pipe, socket or device node. `mode` carries the type. A device node is one on
    /// this machine only; its peers get a socket in its place. Whether the caller may make one the
    /// kernel has checked, and does again of this process below.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        rdev: u32,
    ) -> Result<Stat> {
        let body = match mode & S_IFMT {
            0 | S_IFREG => Body::File(Default::default()),
            S_IFIFO => Body::Fifo,
            S_IFSOCK | S_IFCHR | S_IFBLK => Body::Socket,
            _ => return Err(Errno::Invalid),
        };
        let kind = mode & S_IFMT;
        self.make(caller, parent, name, mode, body, |path, mode| match kind {
            0 | S_IFREG => self.disk.create(path, mode).map(drop),
            _ => self.disk.mknod(path, kind | mode, rdev.into()),
        })
    }

    /// Makes a directory.
    pub fn mkdir(&self, caller: &Caller, parent: NodeId, name: &[u8], mode: u32) -> Result<Stat> {
        self.make(caller, parent, name, mode, Body::Dir, |path, mode| self.disk.mkdir(path, mode))
    }

    /// Makes a symlink.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        target: &[u8],
    ) -> Result<Stat> {
        if target.is_empty() {
            return Err(Errno::NoEntry);
        }
        if target.len() > limits::SYMLINK_TARGET_MAX_BYTES {
            return Err(Errno::NameTooLong);
        }
        self.make(caller, parent, name, 0o777, Body::Symlink(target.to_vec()), |path, _| {
            self.disk.symlink(target, path)
        })
    }

    /// The target of a symlink.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        use lockstep_core::tree::NodeBody;
        let state = self.read_state();
        match &state.replica.tree.node(node).ok_or(Errno::Stale)?.body {
            NodeBody::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::Invalid),
        }
    }

    fn make(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        body: Body,
        on_disk: impl FnOnce(&Path, u32) -> std::io::Result<()>,
    ) -> Result<Stat> {
        let mut state = self.mutate()?;
        let (entry, path) = state.free_name(parent, name)?;
        let perm = new_perm(&state, parent, caller, mode, body.kind() == Kind::Dir);
        on_disk(&path, self.backing_mode(perm, body.kind()))?;
        let node = self.record_new(&mut state, parent, entry, &path, body, perm)?;
        let stat = self.stat(&state, node)?;
        self.mutated(state);
        Ok(stat)
    }

    /// Gives a fresh entry of the backing tree its owner, and the tree its node.
    pub(crate) fn record_new(
        &self,
        state: &mut State,
        parent: NodeId,
        name: EntryName,
        path: &Path,
        body: Body,
        perm: Perm,
    ) -> Result<NodeId> {
        if self.privileged {
            self.disk.set_owner(path, perm.uid, perm.gid)?;
        }
        if perm.mode & 0o7000 != 0 {
            self.disk.set_mode(path, self.backing_mode(perm, body.kind()))?;
        }
        let node = state.replica.new_node();
        let at = self.now();
        let times = Times::at(at);
        let xattrs = Vec::new();
        state.replica.local(Op::Create { node, parent, name, body, perm, times, xattrs, at });
        Ok(node)
    }

    /// Makes a file and opens it (`O_CREAT`; the kernel has found that the name is free).
    pub fn create(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        flags: i32,
    ) -> Result<(Stat, Opened)> {
        let mut state = self.mutate()?;
        let (entry, path) = match state.free_name(parent, name) {
            Err(Errno::Exists) if flags & crate::files::O_EXCL == 0 => {
                let node = state.child(parent, name)?;
                drop(state);
                let opened = self.open(node, flags)?;
                return Ok((self.getattr(node)?, opened));
            }
            other => other?,
        };
        let perm = new_perm(&state, parent, caller, mode, false);
        let file: Arc<dyn DiskFile> =
            self.disk.create(&path, self.backing_mode(perm, Kind::File))?;
        let node = self.record_new(
            &mut state,
            parent,
            entry,
            &path,
            Body::File(Default::default()),
            perm,
        )?;
        let until_ms = self.now_ms() + limits::CREATE_HOLD_MS;
        state.held.insert(node, Hold { until_ms, longest_ms: limits::CREATE_HOLD_MS });
        if crate::passed::makes_afresh(flags) && self.passing.load(Ordering::Relaxed) {
            state.passed.start(node, &file)?;
        }
        let open = OpenFile::new(node, Some(file));
        self.open_files.lock().insert(node, open.clone());
        let opened = self.add_handle(&state, &open, flags);
        let stat = self.stat(&state, node)?;
        self.mutated(state);
        Ok((stat, opened))
    }

    /// A further name for a node.
    pub fn link(&self, node: NodeId, parent: NodeId, name: &[u8]) -> Result<Stat> {
        let mut state = self.mutate()?;
        let (entry, path) = state.free_name(parent, name)?;
        let linked = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        if linked.kind() == Kind::Dir {
            return Err(Errno::Perm);
        }
        let existing = state.replica.tree.path(node).ok_or(Errno::NoEntry)?;
        self.disk.link(&existing, &path)?;
        state.replica.local(Op::Link { node, parent, name: entry, at: self.now() });
        let stat = self.stat(&state, node)?;
        self.mutated(state);
        Ok(stat)
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        self.remove(parent, name, false)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        self.remove(parent, name, true)
    }

    fn remove(&self, parent: NodeId, name: &[u8], dir: bool) -> Result<()> {
        loop {
            let found = self.leaver(parent, name);
            let leaver = found.as_ref().ok().and_then(Option::as_ref);
            let _writers_wait = leaver.map(|open| open.writing.write());
            self.announce_leaver(leaver);
            let state = self.mutate()?;
            if found.is_err() || self.may_leave(&state, parent, name, leaver) {
                return self.remove_now(state, parent, name, dir);
            }
        }
    }

    fn remove_now(
        &self,
        mut state: RwLockWriteGuard<'_, State>,
        parent: NodeId,
        name: &[u8],
        dir: bool,
    ) -> Result<()> {
        let node = state.child(parent, name)?;
        let is_dir = state.replica.tree.node(node).ok_or(Errno::Stale)?.dir();
        match (is_dir, dir) {
            (Some(_), false) => return Err(Errno::IsDir),
            (None, true) => return Err(Errno::NotDir),
            (Some(entries), true) if !entries.is_empty() => return Err(Errno::NotEmpty),
            _ => {}
        }
        let path = state.replica.tree.path_in(parent, name).ok_or(Errno::NoEntry)?;
        match dir {
            true => self.disk.rmdir(&path)?,
            false => {
                self.keep_leaver(&mut state, node, &path)?;
                self.disk.unlink(&path)?;
            }
        }
        let (_, name) = state.replica.own_name(parent, name).ok_or(Errno::NoEntry)?;
        let seen = state.replica.seen(node);
        state.replica.local(Op::Unlink { node, parent, name, seen, at: self.now() });
        self.after_unlink(&mut state, node);
        self.mutated(state);
        Ok(())
    }

    pub(crate) fn after_unlink(&self, state: &mut State, node: NodeId) {
        if state.replica.tree.node(node).is_some_and(|n| n.is_unlinked()) {
            state.announce.forget(node);
            state.held.remove(&node);
            state.wanted.remove(&node);
            state.gone.remove(&node);
            if !self.open_files.lock().contains_key(&node) {
                self.transfers.cancel(node);
            }
        }
    }

    /// Moves a name.
    pub fn rename(
        &self,
        from_parent: NodeId,
        from_name: &[u8],
        to_parent: NodeId,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        self.announce_mover(from_parent, from_name);
        loop {
            let found = self.leaver(to_parent, to_name);
            let leaver = found.as_ref().ok().and_then(Option::as_ref);
            let _writers_wait = leaver.map(|open| open.writing.write());
            self.announce_leaver(leaver);
            let state = self.mutate()?;
            if found.is_err() || self.may_leave(&state, to_parent, to_name, leaver) {
                return self.rename_now(
                    state,
                    (from_parent, from_name),
                    (to_parent, to_name),
                    mode,
                );
            }
        }
    }

    fn rename_now(
        &self,
        mut state: RwLockWriteGuard<'_, State>,
        (from_parent, from_name): (NodeId, &[u8]),
        (to_parent, to_name): (NodeId, &[u8]),
        mode: RenameMode,
    ) -> Result<()> {
        let to_entry = EntryName::new(to_name)?;
        let node = state.child(from_parent, from_name)?;
        let target = state.child(to_parent, to_name).ok();
        if target == Some(node) {
            return Ok(());
        }
        if state.replica.tree.node(to_parent).is_none_or(|dir| dir.is_unlinked()) {
            return Err(Errno::NoEntry);
        }
        if to_parent == NodeId::ROOT && to_name == crate::volume::PRIVATE_DIR {
            return Err(Errno::Perm);
        }
        self.check_rename(&state, node, to_parent, target, mode)?;
        let tree = &state.replica.tree;
        let from_path = tree.path_in(from_parent, from_name).ok_or(Errno::NoEntry)?;
        let to_path = tree.path_in(to_parent, to_name).ok_or(Errno::NoEntry)?;
        let (_, from_entry) =
            state.replica.own_name(from_parent, from_name).ok_or(Errno::NoEntry)?;
        // What is shown under a conflict name has another one of its own.
        let aside = state.replica.own_name(to_parent, to_name).filter(|(_, own)| *own != to_entry);
        let exchange = mode == RenameMode::Exchange && target.is_some();
        let tree = &state.replica.tree;
        let crossed = tree.has_name(node, to_parent, &to_entry)
            || target
                .is_some_and(|other| exchange && tree.has_name(other, from_parent, &from_entry))
            || exchange && (aside.is_some() || from_entry.as_bytes() != from_name);
        if crossed {
            // Two nodes of one name that wait to be told apart: a moment, at most.
            return Err(Errno::Busy);
        }
        let change = match target {
            Some(other) if exchange => RenameTarget::Exchanged { node: other },
            Some(_) if aside.is_none() => state.replica.rename_target(to_parent, to_name),
            _ => RenameTarget::Free,
        };
        if let (Some(replaced), RenameMode::Replace) = (target, mode) {
            self.keep_leaver(&mut state, replaced, &to_path)?;
            self.hold_replaced(&mut state, replaced, &to_path);
        }
        self.disk.rename(&from_path, &to_path, mode)?;
        if let Some((other, name)) = aside {
            let seen = state.replica.seen(other);
            let (parent, at) = (to_parent, self.now());
            state.replica.local(Op::Unlink { node: other, parent, name, seen, at });
        }
        state.replica.local(Op::Rename {
            node,
            from: (from_parent, from_entry),
            to: (to_parent, to_entry),
            target: change,
            at: self.now(),
        });
        if let Some(replaced) = target {
            self.after_unlink(&mut state, replaced);
        }
        self.mutated(state);
        Ok(())
    }

    fn check_rename(
        &self,
        state: &State,
        node: NodeId,
        to_parent: NodeId,
        target: Option<NodeId>,
        mode: RenameMode,
    ) -> Result<()> {
        let tree = &state.replica.tree;
        let is_dir = |id| tree.node(id).is_some_and(|n| n.dir().is_some());
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::Exists),
            (RenameMode::Exchange, None) => return Err(Errno::NoEntry),
            (RenameMode::Replace, Some(other)) => match (is_dir(node), is_dir(other)) {
                (true, false) => return Err(Errno::NotDir),
                (false, true) => return Err(Errno::IsDir),
                (true, true)
                    if tree.node(other).and_then(|n| n.dir()).is_some_and(|d| !d.is_empty()) =>
                {
                    return Err(Errno::NotEmpty);
                }
                _ => {}
            },
            _ => {}
        }
        let mut up = to_parent;
        while is_dir(node) && up != NodeId::ROOT {
            if up == node {
                return Err(Errno::Invalid);
            }
            up = tree.parent(up);
        }
        Ok(())
    }

    /// The mode of the backing file: what the user set, and if this process is not privileged also
    /// what it needs itself to read and serve the file.
    pub(crate) fn backing_mode(&self, perm: Perm, kind: Kind) -> u32 {
        let own = match (self.privileged, kind) {
            (true, _) => 0,
            (false, Kind::Dir) => 0o700,
            (false, _) => 0o600,
        };
        u32::from(perm.mode) | own
    }
}

/// Owner and mode of a new entry: a setgid directory passes its group on (mkdir(2), inode(7)).
fn new_perm(state: &State, parent: NodeId, caller: &Caller, mode: u32, dir: bool) -> Perm {
    let mut perm = Perm { mode: (mode & 0o7777) as u16, uid: caller.uid, gid: caller.gid };
    if let Some(parent) = state.replica.tree.node(parent)
        && parent.perm.mode & S_ISGID != 0
    {
        perm.gid = parent.perm.gid;
        if dir {
            perm.mode |= S_ISGID;
        }
    }
    perm
}
