//! Effects of changes on the backing tree, one by one.

use crate::conflicts::Unmarked;
use crate::errno::Errno;
use crate::trash::TrashReason;
use crate::volume::{State, Volume};
use crate::xattrs::is_private;
use lockstep_core::tree::{Node, NodeBody};
use lockstep_core::{Effect, Kind, NodeId, Place};
use lockstep_disk::{DiskFile, RenameMode, XattrFlags};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Volume {
    /// Does one effect of a change on the backing tree.
    pub(crate) fn carry_out(&self, state: &mut State, effect: &Effect) -> io::Result<()> {
        match effect {
            Effect::Made { node, path, .. } => self.make_below(state, *node, path),
            Effect::Linked { existing, path, .. } => ignore(
                self.disk.link(existing, path),
                &[io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound],
            ),
            Effect::Removed { node, path, is_dir, .. } => {
                let removed = match is_dir {
                    true => self.remove_dir_below(state, path),
                    false => {
                        ignore(self.keep_removed(state, *node, path), &[io::ErrorKind::NotFound])?;
                        self.remove_below(state, *node, path)
                    }
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
                    ignore(self.keep_removed(state, *old, to_path), &[io::ErrorKind::NotFound])?;
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
            Effect::Perm { node } => self
                .present(state, *node)
                .map_or(Ok(()), |(path, stands)| self.dress_perm(&path, stands)),
            Effect::Times { node } => self
                .present(state, *node)
                .map_or(Ok(()), |(path, stands)| self.dress_times(&path, stands)),
            Effect::Xattr { node, name } => self
                .present(state, *node)
                .map_or(Ok(()), |(path, stands)| self.dress_xattr(&path, stands, name)),
            Effect::Wanted { node } => {
                let file = state.replica.tree.node(*node).and_then(|n| n.file());
                if file.is_some_and(|file| file.wanted().is_none()) {
                    self.transfers.cancel(*node);
                }
                if state.want(*node) {
                    self.transfers.queue(*node, false);
                }
                self.size_placeholder(state, *node)
            }
        }
    }

    pub(crate) fn make_below(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
    ) -> io::Result<()> {
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
        if !absent && let Err(error) = self.dress_made(path, stands) {
            // The effect is tried again: it must not take what it made itself for a stray.
            match stands.dir() {
                Some(_) => self.disk.rmdir(path)?,
                None => self.disk.unlink(path)?,
            }
            return Err(error);
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
        if kind == Kind::Dir && stray.file_type.kind() == Kind::Dir {
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

    /// What was made for `node` stands at `path`, perhaps without its attributes.
    pub(crate) fn dress_again(&self, state: &State, node: NodeId, path: &Path) -> io::Result<()> {
        let stands = state.replica.tree.node(node);
        let stands = stands.filter(|n| n.file().is_none_or(|file| file.resident));
        let is_alike =
            |n: &&Node| self.disk.stat(path).is_ok_and(|s| s.file_type.kind() == n.kind());
        stands.filter(is_alike).map_or(Ok(()), |stands| self.dress_made(path, stands))
    }

    fn dress_made(&self, path: &Path, stands: &Node) -> io::Result<()> {
        self.dress_perm(path, stands)?;
        self.dress_times(path, stands)?;
        stands.xattrs.keys().try_for_each(|name| self.dress_xattr(path, stands, name))
    }

    pub(crate) fn dress_perm(&self, path: &Path, stands: &Node) -> io::Result<()> {
        if self.privileged {
            self.disk.set_owner(path, stands.perm.uid, stands.perm.gid)?;
        }
        self.disk.set_mode(path, self.backing_mode(stands.perm, stands.kind()))
    }

    fn dress_times(&self, path: &Path, stands: &Node) -> io::Result<()> {
        match stands.kind() {
            Kind::Dir => Ok(()),
            Kind::File => self.set_times_below(path, stands.times.atime, stands.times.mtime),
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

    /// The path and the node, if its own inode stands below. Where a placeholder stands whose content
    /// is empty by now, that is to come: dressed, the placeholder would be a file full of zeros.
    fn present<'s>(&self, state: &'s State, node: NodeId) -> Option<(PathBuf, &'s Node)> {
        let stands = state.replica.tree.node(node)?;
        let path = state.replica.tree.path(node)?;
        match stands.file() {
            Some(file) if !file.resident => None,
            Some(_)
                if stands.size_bytes() == 0 && self.disk.is_placeholder(&path).unwrap_or(false) =>
            {
                None
            }
            _ => Some((path, stands)),
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
}

pub(crate) fn ignore(result: io::Result<()>, kinds: &[io::ErrorKind]) -> io::Result<()> {
    match result {
        Err(error) if kinds.contains(&error.kind()) => {
            tracing::debug!(%error, "the backing tree already differed");
            Ok(())
        }
        other => other,
    }
}
