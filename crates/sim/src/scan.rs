//! What a volume does at its start: the disk and the written state are compared, and what differs
//! comes in as local changes (`crates/vfs/src/scan.rs`).

use crate::below::{Inode, was};
use crate::side::Side;
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::{EntryName, Kind, NodeId, Op, Perm, Times, Timespec};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

impl Side {
    /// Takes in what is on disk and not in the tree, and the reverse.
    pub fn scan(&mut self, at: Timespec) -> Result<(), String> {
        self.below.forget_nodes();
        let mut linked = BTreeMap::new();
        let mut dirs = vec![(NodeId::ROOT, PathBuf::new())];
        while let Some((dir, path)) = dirs.pop() {
            // A name that is gone may go to another node, which may be gone as well.
            while self.missing(dir, &path, at) {
                self.follow_up_found()?;
            }
            for (name, disk_node) in self.standing(&path) {
                let there = path.join(Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())));
                self.follow_move(&there, disk_node, at);
                let node = match self.replica.tree.lookup(dir, name.as_bytes()) {
                    Some(node) if self.is_of_another(node, &there) => {
                        self.gone_below(dir, &name, node, at);
                        self.below.drop_placeholder(&there);
                        None
                    }
                    Some(node) => {
                        self.below.adopt(&there, node);
                        self.changed(node);
                        Some(node)
                    }
                    None => self.found((dir, name), &there, disk_node, &mut linked, at),
                };
                if let Some(node) = node
                    && self.replica.tree.node(node).is_some_and(|n| n.dir().is_some())
                {
                    dirs.push((node, there));
                }
            }
        }
        self.compare_disk("the scan")
    }

    /// Does what follows from a name that is gone, as far as the disk has what it is about.
    fn follow_up_found(&mut self) -> Result<(), String> {
        for effect in self.replica.take_consequences() {
            if self.below.can_move(&effect) {
                self.below.clear_stray(&effect)?;
                self.below.carry_out(&effect, &self.replica.tree)?;
            }
        }
        Ok(())
    }

    /// A file whose only name something else has on disk, and that stands under another name with its
    /// bytes, was moved there.
    fn follow_move(&mut self, path: &Path, disk_node: NodeId, at: Timespec) {
        let Some(node) = self.node_at(path).filter(|node| *node != was(disk_node)) else { return };
        let tree = &self.replica.tree;
        let Some([link]) = tree.node(node).map(|n| &n.links[..]) else { return };
        let from = (link.parent, link.name.clone());
        let mut places = self.below.names().iter().filter(|(_, id)| was(**id) == node);
        let (Some((to, disk_node)), None) = (places.next(), places.next()) else { return };
        let is_it = self
            .inode(*disk_node)
            .is_some_and(|inode| inode.kind == Kind::File && self.stands_with(node, inode));
        let dir = to.parent().and_then(|dir| self.node_at(dir));
        let name = to.file_name().and_then(|name| EntryName::new(name.as_bytes()).ok());
        let (Some(dir), Some(name)) = (dir, name) else { return };
        let is_dir = tree.node(dir).is_some_and(|n| n.dir().is_some());
        if is_it && is_dir && self.node_at(to).is_none() {
            let (to, target) = ((dir, name), RenameTarget::Free);
            self.replica.local(Op::Rename { node, from, to, target, at });
        }
    }

    /// The node that the tree shows at `path`.
    fn node_at(&self, path: &Path) -> Option<NodeId> {
        let child = |dir, name: &std::ffi::OsStr| self.replica.tree.lookup(dir, name.as_bytes());
        path.iter().try_fold(NodeId::ROOT, child)
    }

    /// Whether a placeholder stands under one of several names of `node` whose bytes are under the
    /// others: that of another file was moved there.
    fn is_of_another(&self, node: NodeId, path: &Path) -> bool {
        let content = |path: &Path| {
            let disk_node = self.below.names().get(path)?;
            Some(self.inode(*disk_node)?.content)
        };
        let links = self.replica.tree.node(node).map_or(&[][..], |n| &n.links);
        let tree = &self.replica.tree;
        let names = links.iter().filter_map(|l| tree.path_in(l.parent, l.shown.as_bytes()));
        content(path) == Some(None)
            && names.map(|name| content(&name)).any(|c| c.flatten().is_some())
    }

    fn standing(&self, dir: &Path) -> Vec<(EntryName, NodeId)> {
        let child = |(path, node): (&PathBuf, &NodeId)| {
            let name = path.file_name().filter(|_| path.parent() == Some(dir))?;
            Some((EntryName::new(name.as_bytes()).ok()?, *node))
        };
        self.below.names().iter().filter_map(child).collect()
    }

    /// Names of the tree that are not on disk, or are something else there. Whether there were any.
    fn missing(&mut self, dir: NodeId, path: &Path, at: Timespec) -> bool {
        let mut any = false;
        let standing: BTreeMap<EntryName, NodeId> = self.standing(path).into_iter().collect();
        for (name, node) in self.entries(dir) {
            let kind = self.replica.tree.node(node).map(|n| n.kind());
            let there = standing.get(&name).and_then(|id| self.inode(*id)).map(|i| i.kind);
            if there.is_none() || there != kind {
                self.gone_below(dir, &name, node, at);
                any = true;
            }
        }
        any
    }

    fn gone_below(&mut self, parent: NodeId, shown: &EntryName, node: NodeId, at: Timespec) {
        for (name, child) in self.entries(node) {
            self.gone_below(node, &name, child, at);
        }
        if let Some((_, name)) = self.replica.own_name(parent, shown.as_bytes()) {
            if let Some(file) = self.replica.tree.node(node).and_then(|n| n.file()) {
                self.given_up.insert(file.wanted().map_or(file.content, |(c, _)| c).hash);
            }
            let seen = self.replica.seen(node);
            self.replica.local(Op::Unlink { node, parent, name, seen, at });
        }
    }

    pub fn entries(&self, dir: NodeId) -> Vec<(EntryName, NodeId)> {
        let dir = self.replica.tree.node(dir).and_then(|n| n.dir());
        let mut entries: Vec<_> = dir
            .map(|d| d.after(0).map(|(_, name, id)| (name.clone(), id)).collect())
            .unwrap_or_default();
        entries.sort();
        entries
    }

    /// A file both know may have other bytes on disk.
    fn changed(&mut self, node: NodeId) {
        let content = self.inode(node).and_then(|inode| inode.content);
        let Some(stands) = self.replica.tree.node_mut(node) else { return };
        let (times, perm) = (stands.times, stands.perm);
        let Some(file) = stands.file_mut() else { return };
        let base = file.version;
        match content {
            None => {
                file.resident = file.content.size_bytes == 0;
                if file.resident {
                    let empty = file.content;
                    self.below.fill(node, empty);
                }
            }
            Some(content) if content != file.content || !file.resident => {
                self.replica.local(Op::Content { node, base, content, times, perm });
            }
            Some(_) => {}
        }
    }

    /// Whether `node` has a name and the bytes of `inode`: what else was written to it while it
    /// moved makes it a file of its own (`crates/vfs/src/scan/moved.rs`).
    fn stands_with(&self, node: NodeId, inode: &Inode) -> bool {
        let stands = self.replica.tree.node(node).filter(|n| !n.is_unlinked());
        stands.is_some_and(|n| n.file().is_none_or(|f| Some(f.content) == inode.content))
    }

    /// A name that only the disk knows.
    fn found(
        &mut self,
        (parent, name): (NodeId, EntryName),
        path: &Path,
        disk_node: NodeId,
        linked: &mut BTreeMap<NodeId, NodeId>,
        at: Timespec,
    ) -> Option<NodeId> {
        let inode = self.inode(disk_node)?.clone();
        if inode.kind == Kind::File && inode.content.is_none() {
            self.below.drop_placeholder(path);
            return None;
        }
        let disk_node = was(disk_node);
        let known = linked.get(&disk_node).copied();
        let known = known.or(Some(disk_node).filter(|node| self.stands_with(*node, &inode)));
        if let Some(node) = known.filter(|_| inode.kind == Kind::File) {
            self.replica.local_found(Op::Link { node, parent, name, at });
            self.below.adopt(path, node);
            return Some(node);
        }
        let body = match inode.kind {
            Kind::File => Body::File(inode.content.unwrap_or_default()),
            Kind::Dir => Body::Dir,
            Kind::Symlink => Body::Symlink(b"target".to_vec()),
            Kind::Fifo => Body::Fifo,
            Kind::Socket => Body::Socket,
        };
        let node = self.replica.new_node();
        linked.insert(disk_node, node);
        let (perm, times) = (Perm { mode: 0o644, uid: 0, gid: 0 }, Times::at(at));
        let xattrs = Vec::new();
        self.replica.local_found(Op::Create { node, parent, name, body, perm, times, xattrs, at });
        self.below.adopt(path, node);
        Some(node)
    }
}
