//! Bytes that a peer may still ask for, although no name here leads to them any more.
//!
//! Whoever takes the last name of a file away, a caller here or a peer's change, does not know what
//! the peer has done meanwhile: a name that it gave brings the file back. Then somebody must have
//! the bytes: the peer need not have fetched them, however complete it is. They stay until the
//! peer has everything that was done here and what it did before it knew has come: by then the file
//! is gone on both sides, or it is back here; then they stay until it has its bytes again.

use crate::serve::{holding_of, kept_name};
use crate::volume::{State, Volume};
use lockstep_core::planted::{self, Bug};
use lockstep_core::tree::Node;
use lockstep_core::{ContentRef, Manifest, NodeId, limits};
use lockstep_disk::{BackingStat, DiskFile, Holding, describe};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What somebody may still write to is kept by copying it, up to this size. Of what is larger, the
/// parts that nobody overwrites are kept.
const COPIED_MAX_BYTES: u64 = 64 * 1024 * 1024;

impl Volume {
    /// A caller here is about to take a name of `node` away, where it stands at `path`.
    pub(crate) fn keep_leaver(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
    ) -> io::Result<()> {
        let last = state.replica.tree.node(node).is_some_and(|n| n.links.len() == 1);
        // The change that takes the name is yet to be made.
        let removed = state.replica.lamport() + 1;
        if last {
            self.keep(state, node, path, removed, self.is_being_written(node))
        } else {
            Ok(())
        }
    }

    /// A change of a peer has taken a name of `node` away, which still stands at `path`.
    pub(crate) fn keep_removed(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
    ) -> io::Result<()> {
        let last = state.replica.tree.node(node).is_some_and(Node::is_unlinked);
        let removed = state.replica.lamport();
        if last {
            self.keep(state, node, path, removed, self.is_being_written(node))
        } else {
            Ok(())
        }
    }

    /// The bytes of `node` at `path` go on as those of another file.
    pub(crate) fn keep_lender(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
    ) -> io::Result<()> {
        let removed = state.replica.lamport() + 1;
        self.keep(state, node, path, removed, true)
    }

    fn keep(
        &self,
        state: &mut State,
        node: NodeId,
        path: &Path,
        removed: u64,
        copied: bool,
    ) -> io::Result<()> {
        let owed = self.owed(state, node).filter(|_| !planted::has(Bug::KeepNothing));
        let Some(content) = owed else { return Ok(()) };
        let name = kept_name(&Holding::new(node, &content));
        let kept = match copied && content.size_bytes <= COPIED_MAX_BYTES {
            true => self.disk.keep_copy(path, &name),
            false => self.disk.keep_link(path, &name),
        };
        match kept {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => {
                state.kept.push((removed, name));
                Ok(())
            }
        }
    }

    /// Kept files that nobody needs any more: every peer has said that it has what was done here,
    /// nothing it made before can come any more, and the file did not come back here meanwhile.
    pub(crate) fn owed_no_more(&self, state: &mut State) -> Vec<String> {
        let settled = state.replica.settled_through();
        let wanted = |name: &str| {
            let Some(holding) = holding_of(name) else { return false };
            let stands = state.replica.tree.node(holding.node).filter(|n| !n.is_unlinked());
            let wanted = stands.and_then(Node::file).and_then(|file| file.wanted());
            wanted.is_some_and(|(content, _)| Holding::new(holding.node, &content) == holding)
        };
        let (dropped, kept) = std::mem::take(&mut state.kept)
            .into_iter()
            .partition::<Vec<_>, _>(|(removed, name)| *removed <= settled && !wanted(name));
        state.kept = kept;
        dropped.into_iter().map(|(_, name)| name).collect()
    }

    /// A file was to be kept and a crash came before its name went: what is kept is what stands, and
    /// would change with it. `files` stand below and have further names.
    pub(crate) fn drop_aliases(
        &self,
        state: &mut State,
        files: &BTreeMap<u64, Vec<(PathBuf, BackingStat)>>,
    ) -> io::Result<()> {
        let has_more = |names: &Vec<(PathBuf, BackingStat)>| {
            names.first().is_some_and(|(_, stat)| u64::from(stat.nlink) > names.len() as u64)
        };
        if !files.values().any(has_more) {
            return Ok(());
        }
        for name in self.disk.keep_list()? {
            let ino = self.disk.keep_open(&name).and_then(|file| file.stat()).map(|stat| stat.ino);
            if ino.is_ok_and(|ino| files.contains_key(&ino)) {
                self.disk.keep_remove(&name)?;
                state.kept.retain(|(_, kept)| *kept != name);
                state.trash.forget(&name);
            }
        }
        Ok(())
    }

    /// The content of `node` that is here and that a peer may yet want.
    fn owed(&self, state: &State, node: NodeId) -> Option<ContentRef> {
        let file = state.replica.tree.node(node)?.file()?;
        let small = file.content.size_bytes <= limits::INLINE_CONTENT_MAX_BYTES;
        let owed = file.resident
            && !file.dirty
            && file.content.size_bytes > 0
            // A peer that says it has everything may lack what it was never asked to fetch, or gave
            // up, and give it a name at this moment.
            && state.replica.log.peers() > 0
            // What is small and was made just now is in memory, and never leaves.
            && !(small && state.replica.is_untold(node));
        owed.then_some(file.content)
    }

    /// A file that has lost its names and holds `content` of `node` all the same: kept for peers, or
    /// in the trash.
    pub(crate) fn kept(
        &self,
        node: NodeId,
        content: ContentRef,
    ) -> Option<(Arc<dyn DiskFile>, Manifest)> {
        let mut names = vec![kept_name(&Holding::new(node, &content))];
        names.extend(self.read_state().trash.versions(node, content.size_bytes));
        let stop = || self.closing.load(Ordering::Relaxed);
        names.iter().find_map(|name| {
            let file = self.disk.keep_open(name).ok()?;
            let described = describe(&*file, content.size_bytes, &stop).ok()??;
            (described.content == content).then_some((file, described.manifest))
        })
    }
}
