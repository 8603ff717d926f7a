//! Files with several names. One inode is one node: where the state and the disk differ about which
//! names are one file, each name goes to the node whose inode is there.

use super::Scan;
use crate::install::names_below;
use crate::trash::TrashReason;
use crate::volume::State;
use lockstep_core::NodeId;
use lockstep_disk::{BackingStat, FileType};
use std::io;
use std::path::{Path, PathBuf};

impl Scan<'_> {
    /// Whether what stands at `path`, a name of `node`, is the file of another.
    pub(super) fn is_of_another(
        &mut self,
        state: &State,
        node: NodeId,
        path: &Path,
        stat: &BackingStat,
    ) -> io::Result<bool> {
        if stat.file_type != FileType::File {
            return Ok(false);
        }
        if stat.nlink > 1
            && let Some(owner) = self.owner(state, stat)
            && owner != node
        {
            self.linked.insert(stat.ino, owner);
            return Ok(true);
        }
        Ok(self.inode_of(state, node, path, stat)? != stat.ino)
    }

    /// The node that an inode with several names is known to be.
    fn owner(&self, state: &State, stat: &BackingStat) -> Option<NodeId> {
        let found = self.linked.get(&stat.ino).copied();
        found.or_else(|| {
            let owner = *self.owners.get(&stat.ino)?;
            let has = |path: &PathBuf| {
                self.volume.disk.stat(path).is_ok_and(|below| below.ino == stat.ino)
            };
            names_below(state, owner).iter().any(has).then_some(owner)
        })
    }

    /// Of the inodes under the names of `node`, its own: the one that was written down, else the
    /// first; one that holds bytes rather than a placeholder.
    fn inode_of(
        &self,
        state: &State,
        node: NodeId,
        path: &Path,
        stat: &BackingStat,
    ) -> io::Result<u64> {
        let names = names_below(state, node);
        if names.len() < 2 || !names.iter().any(|name| name == path) {
            return Ok(stat.ino);
        }
        let disk = &*self.volume.disk;
        let mut inodes: Vec<(u64, bool)> = Vec::new();
        for name in names {
            if let Ok(below) = disk.stat(&name)
                && below.file_type == FileType::File
            {
                inodes.push((below.ino, disk.is_placeholder(&name)?));
            }
        }
        if inodes.iter().any(|(_, placeholder)| !placeholder) {
            inodes.retain(|(_, placeholder)| !placeholder);
        }
        let known = self.below.get(&node).map(|below| below.inode);
        let is_known = |(inode, _): &&(u64, bool)| Some(*inode) == known;
        let own = inodes.iter().find(is_known).or(inodes.first());
        Ok(own.map_or(stat.ino, |(inode, _)| *inode))
    }

    /// The file at `path` lost that name to `node` before the power was cut.
    pub(super) fn take_away(&self, state: &mut State, node: NodeId, path: &Path) -> io::Result<()> {
        match self.volume.disk.stat(path)?.nlink > 1 || self.volume.disk.is_placeholder(path)? {
            true => self.volume.disk.unlink(path),
            false => self.volume.discard_below(state, node, path, TrashReason::Replaced),
        }
    }
}
