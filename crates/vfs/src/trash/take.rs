//! Into the trash: at the moment a peer's change takes a version away.

use super::{TrashEntry, TrashReason, YOUNG};
use crate::volume::{State, Volume};
use lockstep_core::tree::NodeBody;
use lockstep_core::{NodeId, Perm, Times, Timespec, Version};
use lockstep_disk::{BackingStat, FileType};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl Volume {
    /// Removes the file at `path`, whose name `node` has lost to a peer's change.
    pub(crate) fn remove_below(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
    ) -> io::Result<()> {
        let last = state.replica.tree.node(node).is_none_or(|n| n.is_unlinked());
        match last.then(|| self.worth_keeping(state, node, path, TrashReason::Removed)).flatten() {
            Some(entry) => self.move_to_trash(state, path, entry),
            None => self.disk.unlink(path),
        }
    }

    /// Removes the file of `node` at `path` on behalf of somebody here who chose another version:
    /// whatever holds bytes is kept.
    pub(crate) fn discard_below(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
        reason: TrashReason,
    ) -> io::Result<()> {
        let stat = self.disk.stat(path)?;
        let Some(stands) = state.replica.tree.node(node).filter(|_| stat.size_bytes > 0) else {
            return self.disk.unlink(path);
        };
        let shown = (node, stands.perm, stands.times);
        let entry = self.entry(state, path, &stat, shown, reason);
        self.move_to_trash(state, path, entry)
    }

    /// Removes the directory at `path`. What stands in it although the volume has nothing there
    /// was put there behind its back: it goes to the trash.
    pub(crate) fn remove_dir_below(&self, state: &mut State, path: &Path) -> io::Result<()> {
        match self.disk.rmdir(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                self.clear_leftovers(state, path)?;
                self.disk.rmdir(path)
            }
            other => other,
        }
    }

    /// Empties a directory of which the volume knows no entries.
    pub(crate) fn clear_leftovers(&self, state: &mut State, dir: &Path) -> io::Result<()> {
        for (name, stat) in self.disk.read_dir(dir)? {
            let path = dir.join(OsStr::from_bytes(&name));
            if stat.file_type == FileType::Dir {
                self.remove_dir_below(state, &path)?;
                continue;
            }
            let nothing = stat.size_bytes == 0 || self.disk.is_placeholder(&path).unwrap_or(false);
            let perm = Perm { mode: stat.mode as u16, uid: stat.uid, gid: stat.gid };
            let times = Times { atime: stat.atime, mtime: stat.mtime, ctime: stat.ctime };
            let shown = (NodeId::ROOT, perm, times);
            match nothing {
                true => self.disk.unlink(&path)?,
                false => {
                    let entry = self.entry(state, &path, &stat, shown, TrashReason::LeftOver);
                    self.move_to_trash(state, &path, entry)?;
                }
            }
        }
        Ok(())
    }

    /// The file of `node` at `path` is about to be replaced, by a file moved over it or by newer
    /// content: the trash gets a further name of it.
    pub(crate) fn trash_replaced(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
        reason: TrashReason,
    ) {
        let last = state.replica.tree.node(node).is_some_and(|n| n.is_unlinked());
        if reason == TrashReason::Replaced && !last {
            return;
        }
        let Some(entry) = self.worth_keeping(state, node, path, reason) else { return };
        match self.disk.keep_link(path, &entry.kept) {
            Ok(()) => self.add_to_trash(state, entry),
            Err(error) => tracing::warn!(%node, %error, "a replaced file is not in the trash"),
        }
    }

    fn move_to_trash(&self, state: &mut State, path: &Path, entry: TrashEntry) -> io::Result<()> {
        match self.disk.keep(path, &entry.kept) {
            Ok(()) => {
                self.add_to_trash(state, entry);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(error) => {
                tracing::warn!(%error, "a removed file is not in the trash");
                self.disk.unlink(path)
            }
        }
    }

    fn add_to_trash(&self, state: &mut State, entry: TrashEntry) {
        for oldest in state.trash.add(entry) {
            if let Err(error) = self.destroy(&oldest) {
                tracing::warn!(%error, "an old file of the trash cannot be removed");
            }
        }
    }

    /// The entry for what stands at `path`, if the rule at the top of [`super`] says to keep it.
    fn worth_keeping(
        &self,
        state: &State,
        node: NodeId,
        path: &Path,
        reason: TrashReason,
    ) -> Option<TrashEntry> {
        let stands = state.replica.tree.node(node)?;
        let own = match &stands.body {
            NodeBody::File(file) if file.resident && file.live_size_bytes > 0 => {
                // No version: what a power cut has left.
                file.dirty
                    || file.version.slot == state.replica.slot()
                    || file.version == Version::default()
            }
            NodeBody::Symlink(_) => node.slot() == state.replica.slot(),
            _ => return None,
        };
        let stat = self.disk.stat(path).ok()?;
        let is_file = stat.file_type == FileType::File;
        if !is_file && stat.file_type != FileType::Symlink {
            return None;
        }
        let young = stat.btime != Timespec::default() && age(self.now(), stat.btime) < YOUNG;
        let shown = (node, stands.perm, stands.times);
        (own || !young).then(|| self.entry(state, path, &stat, shown, reason))
    }

    fn entry(
        &self,
        state: &State,
        path: &Path,
        stat: &BackingStat,
        (node, perm, times): (NodeId, Perm, Times),
        reason: TrashReason,
    ) -> TrashEntry {
        TrashEntry {
            path: path.as_os_str().as_bytes().to_vec(),
            node,
            at: self.now(),
            peer: state.trash.author,
            reason,
            size_bytes: stat.size_bytes,
            disk_bytes: stat.blocks * 512,
            perm,
            times,
            kept: state.trash.next_name(path),
        }
    }
}

fn age(now: Timespec, then: Timespec) -> std::time::Duration {
    let nanos = |t: Timespec| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    let nanos = (nanos(now) - nanos(then)).max(0);
    std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
