//! A peer's changes take effect: tree first, then disk, then the kernel's caches.

use crate::conflicts::Unmarked;
use crate::errno::Errno;
use crate::trash::TrashReason;
use crate::volume::{State, Volume};
use crate::xattrs::is_private;
use lockstep_core::change::{Exchange, RenameTarget};
use lockstep_core::tree::{Node, NodeBody};
use lockstep_core::{Change, Effect, Kind, NodeId, Op, OutOfOrder, Place, Sequence, Slot};
use lockstep_disk::{DiskFile, RenameMode, XattrFlags, describe_bytes};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A change as it came, with the content if it travelled inside.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The change.
    pub change: Change,
    /// All bytes of its content, unverified.
    pub inline: Option<Vec<u8>>,
}

/// Why not all changes of a batch were applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Changes are missing before this batch.
    #[error("changes are missing: expected {expected:?}, got {got:?}")]
    Gap {
        /// Next change that can be applied.
        expected: Sequence,
        /// The one that came.
        got: Sequence,
    },
    /// The next change replaces a file by one whose bytes are not here yet.
    #[error("waiting for the content of {0}")]
    Waiting(NodeId),
    /// The disk refused; the change stays to be applied.
    #[error("the disk refused: {0}")]
    Disk(#[source] io::Error),
}

/// Changes of peers since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    applied: AtomicU64,
    repeated: AtomicU64,
}

/// What the kernel has to forget.
pub(crate) enum Stale {
    Node(NodeId),
    Entry(Place),
}

impl Volume {
    /// Applies changes of the peer in `peer`, in order, and writes them down. Those before an error
    /// are applied; duplicates are skipped.
    pub fn apply(&self, peer: Slot, changes: &[Incoming]) -> Result<(), ApplyError> {
        for incoming in changes {
            self.announce_before(&incoming.change.op);
        }
        let mut stale = Vec::new();
        let result = {
            let mut state = self.write_state();
            state.trash.author = peer;
            self.finish_effects(&mut state, &mut stale)
                .and_then(|()| self.apply_all(&mut state, peer, changes, &mut stale))
        };
        self.tell_kernel(stale);
        self.settle_own_shadows();
        self.work.raise();
        self.commit()
            .map_err(|errno| ApplyError::Disk(io::Error::from_raw_os_error(errno.raw())))?;
        result
    }

    /// Last change of `peer` applied and written down here: a crash does not take it back.
    pub fn applied(&self, peer: Slot) -> Sequence {
        self.applied.lock().get(&peer).copied().unwrap_or_default().seq
    }

    /// Changes of peers' logs that were applied since the start, and those that came again and were
    /// skipped.
    pub fn applied_and_repeated(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.tally.applied), read(&self.tally.repeated))
    }

    /// A local edit of a file that the change touches is announced first: then both are versions.
    fn announce_before(&self, op: &Op) {
        let target = match op {
            Op::Rename { target: RenameTarget::Replaced { node, .. }, .. } => Some(*node),
            Op::Content { node, .. } | Op::Unlink { node, .. } => Some(*node),
            Op::Exchange(Exchange::Gone(node)) => Some(*node),
            Op::Exchange(Exchange::Node(state)) => Some(state.node),
            _ => None,
        };
        if let Some(node) = target {
            self.wait_for_writers(node);
            self.announce_if_written(node);
        }
    }

    fn apply_all(
        &self,
        state: &mut State,
        peer: Slot,
        changes: &[Incoming],
        stale: &mut Vec<Stale>,
    ) -> Result<(), ApplyError> {
        for incoming in changes {
            match state.replica.expects(peer, &incoming.change) {
                Err(OutOfOrder::Duplicate(_)) => {
                    self.tally.repeated.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Err(OutOfOrder::Gap { expected, got }) => {
                    return Err(ApplyError::Gap { expected, got });
                }
                Ok(()) => {}
            }
            if let Some(node) = self.must_wait_for(state, &incoming.change.op) {
                self.want_now(state, node);
                return Err(ApplyError::Waiting(node));
            }
            let hidden = self.hidden_by(state, &incoming.change);
            let Ok(effects) = state.replica.apply_remote(peer, &incoming.change) else { continue };
            if !matches!(incoming.change.op, Op::Exchange(_)) {
                self.tally.applied.fetch_add(1, Ordering::Relaxed);
            }
            state.hidden.extend(hidden);
            state.effects.extend(effects);
            state.effects.extend(state.replica.take_consequences());
            self.finish_effects(state, stale)?;
            if let Some(bytes) = &incoming.inline {
                let node = incoming.change.op.node();
                self.take_inline(state, node, bytes, stale).map_err(ApplyError::Disk)?;
            }
        }
        Ok(())
    }

    /// A file may not be replaced by one whose content is absent: until it is here, the old one
    /// stays readable, whatever happens to the peer. What was removed here is not waited for:
    /// nothing brings its content.
    fn must_wait_for(&self, state: &State, op: &Op) -> Option<NodeId> {
        let Op::Rename { node, target: RenameTarget::Replaced { node: old, .. }, .. } = op else {
            return None;
        };
        let named = |id: NodeId| state.replica.tree.node(id).filter(|n| !n.is_unlinked());
        let file = |id: NodeId| named(id).and_then(|n| n.file());
        let absent = file(*node)
            .and_then(|f| f.wanted())
            .is_some_and(|(_, version)| state.gone.get(node) != Some(&version));
        let replaces_bytes = file(*old).is_some_and(|f| f.resident && f.live_size_bytes > 0);
        (absent && replaces_bytes).then_some(*node)
    }

    /// Carries out what is left of earlier changes; stops at the first that the disk refuses.
    fn finish_effects(&self, state: &mut State, stale: &mut Vec<Stale>) -> Result<(), ApplyError> {
        while let Some(effect) = state.effects.front().cloned() {
            self.carry_out(state, &effect).map_err(|error| {
                tracing::debug!(?effect, %error, "the disk refused");
                ApplyError::Disk(error)
            })?;
            state.effects.pop_front();
            note_stale(state, &effect, stale);
        }
        Ok(())
    }

    /// Does on disk what follows from local changes beyond what they did themselves: a name that
    /// one of them freed goes to the file that waited for it. What the disk refuses stays to be
    /// done. Answers what the kernel has to forget.
    pub(crate) fn follow_up(&self, state: &mut State) -> Vec<Stale> {
        let consequences = state.replica.take_consequences();
        let mut stale = Vec::new();
        if !consequences.is_empty() {
            state.effects.extend(consequences);
            if let Err(error) = self.finish_effects(state, &mut stale) {
                tracing::warn!(%error, "the backing tree does not follow yet");
            }
        }
        stale
    }

    fn carry_out(&self, state: &mut State, effect: &Effect) -> io::Result<()> {
        match effect {
            Effect::Made { node, path, .. } => self.make_below(state, *node, path),
            Effect::Linked { existing, path, .. } => ignore(
                self.disk.link(existing, path),
                &[io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound],
            ),
            Effect::Removed { node, path, is_dir, .. } => {
                let removed = match is_dir {
                    true => self.remove_dir_below(state, path),
                    false => self.remove_below(state, *node, path),
                };
                self.after_unlink(state, *node);
                ignore(removed, &[io::ErrorKind::NotFound])
            }
            Effect::Moved { node, from_path, to_path, replaced, .. } => {
                if let Some(old) = replaced {
                    self.hold_replaced(state, *old, to_path);
                    self.after_unlink(state, *old);
                    if self.stand_in(state, (*node, from_path), (*old, to_path))? {
                        return Ok(());
                    }
                    self.trash_replaced(state, *old, to_path, TrashReason::Replaced);
                }
                let mode = match replaced {
                    Some(_) => RenameMode::Replace,
                    None => RenameMode::NoReplace,
                };
                let moved = match self.disk.rename(from_path, to_path, mode) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        self.clear_stray(to_path, Kind::File)?;
                        self.disk.rename(from_path, to_path, RenameMode::NoReplace)
                    }
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                        self.clear_leftovers(state, to_path)?;
                        self.disk.rename(from_path, to_path, RenameMode::Replace)
                    }
                    other => other,
                };
                ignore(moved, &[io::ErrorKind::NotFound])
            }
            Effect::Swapped { a_path, b_path, .. } => {
                let swapped = self.disk.rename(a_path, b_path, RenameMode::Exchange);
                ignore(swapped, &[io::ErrorKind::NotFound])
            }
            Effect::Adopted { .. } => Ok(()),
            Effect::SetAside { node, copy, from, to, .. } => {
                self.set_aside(state, *copy, from, to)?;
                let kept = state.replica.tree.node(*node).and_then(|n| n.links.first());
                if let Some(place) =
                    kept.map(|link| Place { dir: link.parent, name: link.shown.clone() })
                {
                    state.unmarked.push(Unmarked { copy: *copy, kept: *node, place });
                }
                Ok(())
            }
            Effect::Perm { node } => present(state, *node)
                .map_or(Ok(()), |(path, stands)| self.dress_perm(&path, stands)),
            Effect::Times { node } => present(state, *node)
                .map_or(Ok(()), |(path, stands)| self.dress_times(&path, stands)),
            Effect::Xattr { node, name } => present(state, *node)
                .map_or(Ok(()), |(path, stands)| self.dress_xattr(&path, stands, name)),
            Effect::Wanted { node } => {
                if state.want(*node) {
                    self.transfers.queue(*node, false);
                }
                self.size_placeholder(state, *node)
            }
        }
    }

    fn make_below(&self, state: &mut State, node: NodeId, path: &Path) -> io::Result<()> {
        let Some(stands) = state.replica.tree.node(node) else { return Ok(()) };
        let mode = self.backing_mode(stands.perm, stands.kind());
        let absent = stands.file().is_some_and(|file| !file.resident);
        self.clear_stray(path, stands.kind())?;
        match &stands.body {
            NodeBody::File(file) if absent => {
                self.disk.placeholder(path, file.content.size_bytes)?;
                self.reopen(node, None);
            }
            NodeBody::File(_) => {
                let fresh = self.disk.create(path, mode)?;
                self.reopen(node, Some(fresh));
            }
            NodeBody::Dir(_) => {
                ignore(self.disk.mkdir(path, mode), &[io::ErrorKind::AlreadyExists])?
            }
            NodeBody::Symlink(target) => self.disk.symlink(target, path)?,
            NodeBody::Fifo => self.disk.mknod(path, 0o010_000 | mode, 0)?,
            NodeBody::Socket => self.disk.mknod(path, 0o140_000 | mode, 0)?,
        }
        // Here, not where the tree has it: a further effect of the same change may move it there.
        if !absent {
            self.dress_perm(path, stands)?;
            self.dress_times(path, stands)?;
            stands.xattrs.keys().try_for_each(|name| self.dress_xattr(path, stands, name))?;
        }
        if absent && state.want(node) {
            self.transfers.queue(node, false);
        }
        Ok(())
    }

    /// Whoever has `node` open, perhaps from before it was removed, goes on with what stands below
    /// now.
    pub(crate) fn reopen(&self, node: NodeId, file: Option<Arc<dyn DiskFile>>) {
        if let Some(open) = self.open_files.lock().get(&node) {
            *open.file.write() = file;
        }
    }

    /// Something the tree does not know stands where a new node goes: it was put there behind the
    /// volume's back. It is moved beside, where the next scan finds it, never overwritten.
    fn clear_stray(&self, path: &Path, kind: Kind) -> io::Result<()> {
        let Ok(stray) = self.disk.stat(path) else { return Ok(()) };
        if kind == Kind::Dir && stray.file_type.kind() == Some(Kind::Dir) {
            return Ok(());
        }
        if self.disk.is_placeholder(path).unwrap_or(false) {
            return self.disk.unlink(path);
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(" (found here {})", stray.ino));
        self.disk.rename(path, Path::new(&beside), RenameMode::NoReplace)
    }

    /// Copies what `from` holds to `to`, the file of the node `copy`, and has it announced: whatever
    /// a writer does meanwhile, the bytes announced are those that are there.
    fn set_aside(&self, state: &mut State, copy: NodeId, from: &Path, to: &Path) -> io::Result<()> {
        ignore(self.disk.unlink(to), &[io::ErrorKind::NotFound])?;
        let source = self.disk.open(from)?;
        let target = self.disk.create(to, self.disk.stat(from)?.mode)?;
        let copied = source.copy_all_to(&*target)?;
        if let Some(stands) = state.replica.tree.node(copy) {
            self.dress(&*target, stands.perm, stands.times)?;
        }
        self.written_below(state, copy, copied);
        Ok(())
    }

    fn dress_perm(&self, path: &Path, stands: &Node) -> io::Result<()> {
        if self.privileged {
            self.disk.set_owner(path, stands.perm.uid, stands.perm.gid)?;
        }
        self.disk.set_mode(path, self.backing_mode(stands.perm, stands.kind()))
    }

    fn dress_times(&self, path: &Path, stands: &Node) -> io::Result<()> {
        match stands.kind() {
            Kind::Dir => Ok(()),
            _ => self.disk.set_times(path, stands.times.atime, stands.times.mtime),
        }
    }

    pub(crate) fn dress_xattr(&self, path: &Path, stands: &Node, name: &[u8]) -> io::Result<()> {
        if is_private(name) {
            return Ok(());
        }
        match stands.xattrs.get(name) {
            Some((_, Some(value))) => self.disk.set_xattr(path, name, value, XattrFlags::Any),
            _ => match self.disk.remove_xattr(path, name).map_err(Errno::from) {
                Ok(()) | Err(Errno::NoData) => Ok(()),
                Err(errno) => Err(io::Error::from_raw_os_error(errno.raw())),
            },
        }
    }

    /// A file that was shown empty and now has absent content stands below as a placeholder; one
    /// that is empty now no longer does.
    fn size_placeholder(&self, state: &State, node: NodeId) -> io::Result<()> {
        let tree = &state.replica.tree;
        let Some(file) = tree.node(node).and_then(|n| n.file()) else { return Ok(()) };
        if file.resident {
            return self.empty_placeholder(state, node);
        }
        let Some(path) = tree.path(node) else { return Ok(()) };
        self.reopen(node, None);
        if self.disk.is_placeholder(&path).unwrap_or(false) {
            return Ok(());
        }
        self.put_placeholder(state, node, file.content.size_bytes)
    }

    /// Content that travelled with its change goes in place at once, unless someone has the file
    /// open: then a fetcher does it when readers allow.
    fn take_inline(
        &self,
        state: &mut State,
        node: NodeId,
        bytes: &[u8],
        stale: &mut Vec<Stale>,
    ) -> io::Result<()> {
        let file = state.replica.tree.node(node).and_then(|n| n.file());
        let Some((content, version)) = file.and_then(|f| f.wanted()) else { return Ok(()) };
        let description = describe_bytes(bytes);
        if description.content != content {
            return Ok(());
        }
        let transfer = self.transfers.transfer(node, content);
        transfer.begin(description.manifest, &*self.disk)?;
        transfer.put_all(bytes)?;
        if !self.open_files.lock().contains_key(&node)
            && self.put_in_place(state, node, content, version, &transfer)?
        {
            stale.push(Stale::Node(node));
        }
        Ok(())
    }

    pub(crate) fn tell_kernel(&self, stale: Vec<Stale>) {
        if stale.is_empty() {
            return;
        }
        let Some(cache) = self.cache() else { return };
        for stale in stale {
            match stale {
                Stale::Node(node) => cache.invalidate_node(node),
                Stale::Entry(place) => {
                    cache.invalidate_entry(place.dir, place.name.as_bytes());
                    cache.invalidate_node(place.dir);
                }
            }
        }
        self.transfers.progressed();
    }
}

/// The path and the node, if its own inode stands below.
fn present(state: &State, node: NodeId) -> Option<(std::path::PathBuf, &Node)> {
    let stands = state.replica.tree.node(node)?;
    if stands.file().is_some_and(|file| !file.resident) {
        return None;
    }
    Some((state.replica.tree.path(node)?, stands))
}

fn note_stale(state: &State, effect: &Effect, stale: &mut Vec<Stale>) {
    match effect {
        Effect::Made { place, .. } => stale.push(Stale::Entry(place.clone())),
        Effect::Linked { node, place, .. } | Effect::Removed { node, place, .. } => {
            stale.extend([Stale::Entry(place.clone()), Stale::Node(*node)]);
        }
        Effect::Moved { node, from, to, replaced, .. } => {
            stale.extend([Stale::Entry(from.clone()), Stale::Entry(to.clone())]);
            stale.extend(replaced.iter().chain([node]).map(|id| Stale::Node(*id)));
        }
        Effect::Swapped { a, b, .. } => {
            stale.extend([Stale::Entry(a.clone()), Stale::Entry(b.clone())]);
            let shown = |p: &Place| state.replica.tree.lookup(p.dir, p.name.as_bytes());
            stale.extend([shown(a), shown(b)].into_iter().flatten().map(Stale::Node));
        }
        Effect::SetAside { node, place, .. } => {
            stale.extend([Stale::Node(*node), Stale::Entry(place.clone())]);
        }
        Effect::Adopted { was, place, .. } => {
            stale.extend([Stale::Entry(place.clone()), Stale::Node(*was)]);
        }
        Effect::Perm { node }
        | Effect::Times { node }
        | Effect::Xattr { node, .. }
        | Effect::Wanted { node } => stale.push(Stale::Node(*node)),
    }
}

fn ignore(result: io::Result<()>, kinds: &[io::ErrorKind]) -> io::Result<()> {
    match result {
        Err(error) if kinds.contains(&error.kind()) => {
            tracing::debug!(%error, "the backing tree already differed");
            Ok(())
        }
        other => other,
    }
}
