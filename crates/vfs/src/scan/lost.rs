//! What a power cut took of names: the state may outlive the names that it tells of. What is missing
//! below and was not on stable storage yet is no removal made here. It stays in the tree, and is put
//! back; bytes that are gone with it are awaited.

use super::Scan;
use crate::install::names_below;
use crate::trash::TrashReason;
use crate::volume::{State, Volume};
use lockstep_core::{EntryName, NodeId};
use lockstep_disk::{BackingStat, FileType};
use std::io;
use std::path::{Path, PathBuf};

impl Scan<'_> {
    /// A name the state knows is not below, and nothing else is there: it was removed, or it is
    /// lost.
    pub(super) fn missing(
        &mut self,
        state: &mut State,
        parent: NodeId,
        shown: &EntryName,
        node: NodeId,
    ) {
        for (_, child) in super::entries(state, node) {
            // A name that is freed goes to who waited for it: one asks for each when its turn comes.
            if let Some(name) = super::name_in(state, node, child) {
                self.missing(state, node, &name, child);
            }
        }
        let holds_lost = !super::entries(state, node).is_empty();
        match holds_lost || self.may_be_lost(node) {
            true => self.lost.push(node),
            false => self.gone(state, parent, shown, node),
        }
    }

    /// Whether what the state tells of `node` may be newer than what is below. What it was not told of
    /// before this start, an interrupted batch had brought.
    fn may_be_lost(&self, node: NodeId) -> bool {
        let written = self.below.get(&node).map(|below| below.written);
        self.doubt.may_lack(written)
    }
}

impl Volume {
    /// What stands below as the bytes of `node` is torn, and nobody wrote it.
    pub(super) fn tear_off(&self, state: &mut State, node: NodeId) -> io::Result<()> {
        state.lose_bytes(node);
        let file = state.replica.tree.node(node).and_then(|n| n.file());
        let Some(size_bytes) = file.map(|file| file.live_size_bytes) else { return Ok(()) };
        self.put_placeholder(state, node, size_bytes)?;
        self.empty_placeholder(state, node)
    }

    /// The file at `path` lost that name to `node` before the power was cut.
    pub(super) fn take_away(&self, state: &mut State, node: NodeId, path: &Path) -> io::Result<()> {
        match self.disk.stat(path)?.nlink > 1 || self.disk.is_placeholder(path)? {
            true => self.disk.unlink(path),
            false => self.discard_below(state, node, path, TrashReason::Replaced),
        }
    }

    /// Sets below the attributes that the state names.
    pub(super) fn dress_as_known(
        &self,
        state: &State,
        node: NodeId,
        path: &Path,
        stat: &BackingStat,
    ) -> io::Result<()> {
        let Some(stands) = state.replica.tree.node(node) else { return Ok(()) };
        self.dress_perm(path, stands)?;
        if !matches!(stat.file_type, FileType::File | FileType::Dir) {
            return Ok(());
        }
        let below = self.disk.list_xattrs(path)?;
        let unknown = below.iter().filter(|name| name.starts_with(b"user."));
        let mut names = stands.xattrs.keys().chain(unknown);
        names.try_for_each(|name| self.dress_xattr(path, stands, name))
    }

    /// Puts back below what a power cut took.
    pub(super) fn make_again(&self, state: &mut State, mut lost: Vec<NodeId>) {
        lost.sort_by_key(|node| state.replica.tree.path(*node).map(|p| p.components().count()));
        for node in lost {
            tracing::debug!(%node, "lost by a power cut");
            if let Err(error) = self.restore_names(state, node) {
                tracing::warn!(%node, %error, "what a power cut took cannot be put back");
            }
        }
    }

    fn restore_names(&self, state: &mut State, node: NodeId) -> io::Result<()> {
        let names = names_below(state, node);
        let (there, missing): (Vec<PathBuf>, Vec<PathBuf>) =
            names.into_iter().partition(|name| self.disk.stat(name).is_ok());
        let mut there = there.into_iter().next();
        for name in missing {
            match &there {
                Some(first) => self.disk.link(first, &name)?,
                None => {
                    state.lose_bytes(node);
                    self.make_below(state, node, &name)?;
                    there = Some(name);
                }
            }
        }
        Ok(())
    }
}
