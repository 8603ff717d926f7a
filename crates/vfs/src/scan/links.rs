//! Files with several names: which of the names below lead to the file of a node. One of them may
//! have been given to another file while the volume was closed, or a crash came while other content
//! took the names one after the other.

use super::moved::{Moved, by_inode, is_unchanged};
use crate::begun::Redone;
use crate::install::{BESIDE, names_below};
use crate::volume::{State, Volume};
use lockstep_core::{ContentRef, NodeId};
use lockstep_disk::{BackingStat, FileType, describe};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Files below, by inode number, each with its names.
pub(super) type Files = BTreeMap<u64, Vec<(PathBuf, BackingStat)>>;

/// Which nodes the files with several names are, and which files the nodes with several names have.
#[derive(Default)]
pub(super) struct Links {
    /// The node of a file with several names below.
    nodes: HashMap<u64, NodeId>,
    /// The file of a node with several names.
    files: HashMap<NodeId, u64>,
}

impl Links {
    /// The node that the file with this inode number is, which has several names below.
    pub(super) fn node(&self, ino: u64) -> Option<NodeId> {
        self.nodes.get(&ino).copied()
    }

    /// The file with this inode number is `node`, unless it is another.
    pub(super) fn found(&mut self, ino: u64, node: NodeId) {
        self.nodes.entry(ino).or_insert(node);
    }

    /// Whether what stands with `stat` under a name of `node` is not the file of `node`.
    pub(super) fn is_of_another(&self, node: NodeId, stat: &BackingStat) -> bool {
        stat.file_type == FileType::File
            && (self.files.get(&node).is_some_and(|ino| *ino != stat.ino)
                || self.nodes.get(&stat.ino).is_some_and(|of| *of != node))
    }
}

/// The file that a node with several names has.
struct Settled {
    ino: u64,
    /// Whether names below were changed.
    changed: bool,
}

impl Volume {
    /// Looks at the files with several names, and ends what a crash interrupted: what was on its
    /// way to all names of a file, takes them all. `inodes` are those of the last run.
    pub(super) fn settle_links(
        &self,
        state: &mut State,
        moved: &mut Moved,
        inodes: &HashMap<NodeId, u64>,
        redone: &Redone,
    ) -> io::Result<Links> {
        let mut files = moved.files_with_names();
        self.drop_aliases(state, &files)?;
        let mut changed = self.clear_beside(&mut files)?;
        let of = by_inode(inodes);
        let mut links = Links::default();
        let several = |(id, node): (NodeId, &lockstep_core::tree::Node)| {
            (node.file().is_some() && node.links.len() > 1).then_some(id)
        };
        let nodes: Vec<NodeId> = state.replica.tree.iter().filter_map(several).collect();
        for node in nodes {
            if let Some(settled) = self.settle_names(state, node, inodes, &of, redone)? {
                changed |= settled.changed;
                links.files.insert(node, settled.ino);
            }
        }
        if changed {
            *moved = Moved::look(&*self.disk, moved.take_inodes())?;
            files = moved.files_with_names();
        }
        for (ino, names) in files.iter().filter(|(_, names)| names.len() > 1) {
            let is_file =
                |node: NodeId| state.replica.tree.node(node).is_some_and(|n| n.file().is_some());
            let may_be = |node: &NodeId| {
                is_file(*node) && links.files.get(node).is_none_or(|own| own == ino)
            };
            let standing = names.iter().filter_map(|(path, _)| node_at(state, path));
            let mut standing: Vec<NodeId> = standing.filter(may_be).collect();
            standing
                .sort_by_key(|node| (of.get(ino) != Some(node), !links.files.contains_key(node)));
            links.nodes.extend(standing.first().map(|node| (*ino, *node)));
        }
        Ok(links)
    }

    /// Removes the further names that stand beside those they were to be moved over.
    fn clear_beside(&self, files: &mut Files) -> io::Result<bool> {
        let mut changed = false;
        let is_beside = |(path, _): &(PathBuf, BackingStat)| {
            path.as_os_str().as_bytes().ends_with(BESIDE.as_bytes())
        };
        for names in files.values_mut().filter(|names| !names.iter().all(is_beside)) {
            for (path, _) in names.extract_if(.., |name| is_beside(name)) {
                self.disk.unlink(&path)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn settle_names(
        &self,
        state: &State,
        node: NodeId,
        inodes: &HashMap<NodeId, u64>,
        of: &HashMap<u64, NodeId>,
        redone: &Redone,
    ) -> io::Result<Option<Settled>> {
        let mut files = Files::new();
        for name in names_below(state, node) {
            match self.disk.stat(&name) {
                Ok(stat) if stat.file_type == FileType::File => {
                    files.entry(stat.ino).or_default().push((name, stat));
                }
                _ => {}
            }
        }
        let first = files.keys().next().copied();
        let Some(first) = first.filter(|_| files.len() > 1) else {
            return Ok(first.map(|ino| Settled { ino, changed: false }));
        };
        let unchanged = |ino: &u64| {
            files.get(ino).is_some_and(|names| {
                is_unchanged(state, &*self.disk, node, &names[0].0, &names[0].1)
            })
        };
        let recorded = inodes.get(&node).copied().filter(|ino| files.contains_key(ino));
        let kept = recorded.filter(unchanged).or_else(|| files.keys().copied().find(unchanged));
        let arrived = self.arrived_at(state, node, &files, redone)?;
        let ino = arrived.last().copied().or(kept).or(recorded).unwrap_or(first);
        let mut gives_way = Vec::new();
        for (other, names) in files.iter().filter(|(other, _)| **other != ino) {
            let is_own = of.get(other).is_none_or(|of| *of == node);
            let is_placeholder = || self.disk.is_placeholder(&names[0].0);
            if arrived.contains(other)
                || !arrived.is_empty() && kept == Some(*other)
                || is_own && is_placeholder()?
            {
                gives_way.extend(names.iter().map(|(path, _)| path.clone()));
            }
        }
        self.name_alike(&files[&ino][0].0, &gives_way)?;
        Ok(Some(Settled { ino, changed: !gives_way.is_empty() }))
    }

    /// Which of `files` hold contents that a peer's changes brought to `node`, the newest last.
    fn arrived_at(
        &self,
        state: &State,
        node: NodeId,
        files: &Files,
        redone: &Redone,
    ) -> io::Result<Vec<u64>> {
        let file = state.replica.tree.node(node).and_then(|n| n.file());
        let mut awaited: Vec<ContentRef> = redone.contents_of(node).map(|(c, _)| c).collect();
        awaited.extend(file.and_then(|file| file.wanted()).map(|(content, _)| content));
        let mut found = Vec::new();
        for (ino, names) in files {
            let (path, stat) = &names[0];
            let may_be = |content: &ContentRef| content.size_bytes == stat.size_bytes;
            if !awaited.iter().any(may_be) || self.disk.is_placeholder(path)? {
                continue;
            }
            let described = describe(&*self.disk.open(path)?, stat.size_bytes, &|| false)?;
            let which = described.and_then(|d| awaited.iter().rposition(|c| *c == d.content));
            found.extend(which.map(|which| (which, *ino)));
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, ino)| ino).collect())
    }
}

/// The node that stands at `path`, as far as the state knows.
fn node_at(state: &State, path: &Path) -> Option<NodeId> {
    let names = path.iter().map(|name| name.as_bytes());
    names.into_iter().try_fold(NodeId::ROOT, |dir, name| state.replica.tree.lookup(dir, name))
}
