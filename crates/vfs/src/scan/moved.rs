//! What was moved below while the volume was closed: told from a removal and a new file by the inode
//! number that each node had below when its row was written down.

use super::Scan;
use super::links::Files;
use crate::volume::State;
use lockstep_core::change::RenameTarget;
use lockstep_core::tree::{Node, NodeBody};
use lockstep_core::{EntryName, Kind, NodeId, Op, Place};
use lockstep_disk::{BackingStat, Disk};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The entries of one directory below.
pub(super) type Listing = HashMap<Vec<u8>, BackingStat>;

/// What gave way to something else has this name for a while, and its number.
const ASIDE: &[u8] = b".lockstep moving ";

/// Which inodes stand where, now and as they were written down.
#[derive(Default)]
pub(super) struct Moved {
    /// The node that had an inode number.
    nodes: HashMap<u64, NodeId>,
    inodes: HashMap<NodeId, u64>,
    /// Where an inode with one name stands now.
    places: HashMap<u64, (PathBuf, BackingStat)>,
    listings: HashMap<PathBuf, Listing>,
}

/// The nodes that had these inode numbers; of several that had one, the newest.
pub(super) fn by_inode(inodes: &HashMap<NodeId, u64>) -> HashMap<u64, NodeId> {
    let mut nodes: Vec<(u64, NodeId)> = inodes.iter().map(|(node, ino)| (*ino, *node)).collect();
    nodes.sort_unstable();
    nodes.into_iter().collect()
}

impl Moved {
    /// Walks over the backing tree. `inodes` are those of the last run.
    pub(super) fn look(disk: &dyn Disk, inodes: HashMap<NodeId, u64>) -> io::Result<Moved> {
        let mut moved = Moved { nodes: by_inode(&inodes), inodes, ..Moved::default() };
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let listing: Listing = disk.read_dir(&dir)?.into_iter().collect();
            for (name, stat) in &listing {
                let path = dir.join(OsStr::from_bytes(name));
                let is_dir = stat.file_type == lockstep_disk::FileType::Dir;
                if is_dir {
                    dirs.push(path.clone());
                }
                if is_dir || stat.nlink == 1 {
                    moved.places.insert(stat.ino, (path, *stat));
                }
            }
            moved.listings.insert(dir, listing);
        }
        Ok(moved)
    }

    /// What stands in the directory at `path`.
    pub(super) fn listing(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<Listing> {
        match self.listings.remove(path) {
            Some(listing) => Ok(listing),
            None => Ok(disk.read_dir(path)?.into_iter().collect()),
        }
    }

    /// Files that have further names, here or in the private directory.
    pub(super) fn files_with_names(&self) -> Files {
        let mut files = Files::new();
        for (dir, listing) in &self.listings {
            let named = |(_, stat): &(&Vec<u8>, &BackingStat)| {
                stat.file_type == lockstep_disk::FileType::File && stat.nlink > 1
            };
            for (name, stat) in listing.iter().filter(named) {
                let path = dir.join(OsStr::from_bytes(name));
                files.entry(stat.ino).or_default().push((path, *stat));
            }
        }
        files.values_mut().for_each(|names| names.sort_unstable_by(|a, b| a.0.cmp(&b.0)));
        files
    }

    /// The inode numbers of the last run, to look again.
    pub(super) fn take_inodes(&mut self) -> HashMap<NodeId, u64> {
        std::mem::take(&mut self.inodes)
    }

    /// What was found in directories may not be there any more.
    pub(super) fn forget_listings(&mut self) {
        self.listings.clear();
    }

    /// The node that stands below at a place with `stat`, if it is known by its inode.
    pub(super) fn node(
        &self,
        state: &State,
        disk: &dyn Disk,
        stat: &BackingStat,
    ) -> Option<NodeId> {
        let node = *self.nodes.get(&stat.ino)?;
        let (path, _) = self.places.get(&stat.ino)?;
        is_same(state, disk, node, path, stat).then_some(node)
    }

    /// Where `node` stands below now, if it is known by its inode.
    pub(super) fn place(&self, state: &State, disk: &dyn Disk, node: NodeId) -> Option<&Path> {
        let (path, stat) = self.places.get(self.inodes.get(&node)?)?;
        is_same(state, disk, node, path, stat).then_some(path)
    }
}

/// Whether what has the inode number of `node` is it, and not a new file that got the number again.
fn is_same(state: &State, disk: &dyn Disk, node: NodeId, path: &Path, stat: &BackingStat) -> bool {
    let tree = &state.replica.tree;
    let Some(stands) = tree.node(node).filter(|_| node != NodeId::ROOT) else { return false };
    let [link] = &stands.links[..] else { return false };
    // A name that another waits for would be given away by a move.
    if link.shown != link.name || tree.is_awaited(link.parent, &link.name) {
        return false;
    }
    stat.file_type.kind() == stands.kind() && is_unchanged(state, disk, node, path, stat)
}

/// Whether what stands at `path`, of the kind of `node`, is as the state says.
pub(super) fn is_unchanged(
    state: &State,
    disk: &dyn Disk,
    node: NodeId,
    path: &Path,
    stat: &BackingStat,
) -> bool {
    let Some(stands) = state.replica.tree.node(node) else { return false };
    match &stands.body {
        NodeBody::File(file) if file.resident => {
            let same =
                file.content.size_bytes == stat.size_bytes && stands.times.mtime == stat.mtime;
            same || file.dirty
        }
        NodeBody::File(_) => disk.is_placeholder(path).unwrap_or(false),
        NodeBody::Symlink(target) => disk.readlink(path).is_ok_and(|now| now == *target),
        NodeBody::Dir(_) | NodeBody::Fifo | NodeBody::Socket => true,
    }
}

impl Scan<'_> {
    /// The node that belongs at `name` in `dir`: moved there, or known there, or none. Whatever else
    /// has the name gives way.
    pub(super) fn settle_name(
        &mut self,
        state: &mut State,
        dir: NodeId,
        name: &EntryName,
        path: &Path,
        stat: &BackingStat,
    ) -> Option<NodeId> {
        let disk = &*self.volume.disk;
        let standing = state.replica.tree.lookup(dir, name.as_bytes());
        let here = self.moved.node(state, disk, stat);
        if here.is_some() && here == standing {
            return here;
        }
        let here = here.filter(|node| !self.placed.contains(node));
        if let Some(node) = here.filter(|_| !state.replica.tree.is_awaited(dir, name)) {
            self.take_in_move(state, node, dir, name, standing);
            return Some(node);
        }
        let standing = standing?;
        let kind = state.replica.tree.node(standing).map(Node::kind);
        let elsewhere = self.moved.place(state, disk, standing).is_some_and(|at| at != path);
        if !elsewhere && Some(stat.file_type.kind()) == kind {
            return Some(standing);
        }
        match elsewhere || kind == Some(Kind::Dir) {
            true => self.make_way(state, standing, dir, name),
            false => self.gone(state, dir, name, standing),
        }
        None
    }

    fn take_in_move(
        &mut self,
        state: &mut State,
        node: NodeId,
        dir: NodeId,
        name: &EntryName,
        standing: Option<NodeId>,
    ) {
        let tree = &state.replica.tree;
        let Some(link) = tree.node(node).and_then(|n| n.links.first()).cloned() else { return };
        let left = tree.path(node);
        let goes_back = standing.and_then(|other| {
            let place = self.moved.place(state, &*self.volume.disk, other)?;
            (Some(place) == left.as_deref()).then_some(other)
        });
        let target = match (goes_back, standing) {
            (Some(node), _) => RenameTarget::Exchanged { node },
            (None, Some(other)) => self.clear_name(state, node, other, dir, name),
            (None, None) => RenameTarget::Free,
        };
        tracing::debug!(%node, "moved while the volume was closed");
        let (from, to) = ((link.parent, link.name), (dir, name.clone()));
        let at = self.volume.now();
        state.replica.local(Op::Rename { node, from, to, target, at });
    }

    /// What stood where `node` was moved to: replaced, if it is nowhere else. No rename puts a
    /// directory in the place of a file: that was removed before.
    fn clear_name(
        &mut self,
        state: &mut State,
        node: NodeId,
        other: NodeId,
        dir: NodeId,
        name: &EntryName,
    ) -> RenameTarget {
        let is_elsewhere = self.moved.place(state, &*self.volume.disk, other).is_some();
        let is_dir = |id: NodeId| state.replica.tree.node(id).is_some_and(|n| n.dir().is_some());
        if is_elsewhere || is_dir(other) {
            self.make_way(state, other, dir, name);
            return RenameTarget::Free;
        }
        if is_dir(node) {
            self.gone(state, dir, name, other);
            return RenameTarget::Free;
        }
        state.wanted.remove(&other);
        RenameTarget::Replaced { node: other, seen: state.replica.seen(other) }
    }

    /// `node` gives its name up for one that nobody has, until it is found where it stands now or
    /// turns out to be gone.
    fn make_way(&mut self, state: &mut State, node: NodeId, dir: NodeId, name: &EntryName) {
        let Some((_, own)) = state.replica.own_name(dir, name.as_bytes()) else { return };
        let aside = [ASIDE, format!("{:x}", node.0).as_bytes()].concat();
        let Ok(aside) = EntryName::new(&aside) else { return };
        let (from, to) = ((dir, own), (dir, aside));
        let at = self.volume.now();
        state.replica.local(Op::Rename { node, from, to, target: RenameTarget::Free, at });
        self.placed.remove(&node);
        self.vanished.push(node);
    }

    /// Everything was looked at: what was missed and found nowhere is gone.
    pub(super) fn remove_vanished(&mut self, state: &mut State) {
        for node in std::mem::take(&mut self.vanished) {
            if self.placed.contains(&node) {
                continue;
            }
            let Some(link) = state.replica.tree.node(node).and_then(|n| n.links.first()).cloned()
            else {
                continue;
            };
            let place = Place { dir: link.parent, name: link.shown.clone() };
            match link.name.as_bytes().starts_with(ASIDE) {
                true => self.gone(state, place.dir, &place.name, node),
                false => self.missing(state, place.dir, &place.name, node),
            }
        }
    }
}
