//! A model of the backing tree: names, what stands under them, and which bytes are there. It
//! refuses what a real filesystem would refuse, so that an effect whose path is wrong is found at
//! once.

use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::tree::NodeBody;
use lockstep_core::{ContentHash, ContentRef, Effect, EntryName, Kind, NodeId, Op, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    pub kind: Kind,
    /// The bytes; `None` for a placeholder.
    pub content: Option<ContentRef>,
}

/// Marks the number of what a scan has not taken for a node yet.
const UNKNOWN: u64 = 1 << 63;

/// The node that stood there when it was written down last.
pub fn was(found: NodeId) -> NodeId {
    NodeId(found.0 & !UNKNOWN)
}

/// Paths and the nodes under them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    names: BTreeMap<PathBuf, NodeId>,
    inodes: BTreeMap<NodeId, Inode>,
}

impl Below {
    pub fn names(&self) -> &BTreeMap<PathBuf, NodeId> {
        &self.names
    }

    pub fn inode(&self, node: NodeId) -> Option<&Inode> {
        self.inodes.get(&node)
    }

    /// Whether some file with a name has these bytes.
    pub fn holds(&self, content: ContentRef) -> bool {
        self.names
            .values()
            .any(|id| self.inodes.get(id).is_some_and(|i| i.content == Some(content)))
    }

    /// Every content that is here.
    pub fn contents(&self) -> impl Iterator<Item = ContentHash> {
        self.inodes.values().filter_map(|inode| Some(inode.content?.hash))
    }

    /// Contents of files that have lost their last name.
    pub fn nameless_contents(&self) -> Vec<ContentHash> {
        let named: BTreeSet<NodeId> = self.names.values().copied().collect();
        let nameless = self.inodes.iter().filter(|(id, _)| !named.contains(id));
        nameless.filter_map(|(_, inode)| Some(inode.content?.hash)).collect()
    }

    /// The bytes of a file arrive.
    pub fn fill(&mut self, node: NodeId, content: ContentRef) {
        self.inodes.insert(node, Inode { kind: Kind::File, content: Some(content) });
    }

    /// A scan begins: what stands under a name is not known yet, only the number it was written
    /// down with, which a node of the tree may have by now that is something else.
    pub fn forget_nodes(&mut self) {
        for id in self.names.values_mut() {
            let unknown = NodeId(id.0 | UNKNOWN);
            if let Some(inode) = self.inodes.remove(id) {
                self.inodes.insert(unknown, inode);
            }
            *id = unknown;
        }
    }

    /// The scan takes what stands at `path` for `node`.
    pub fn adopt(&mut self, path: &Path, node: NodeId) {
        let Some(old) = self.names.insert(path.to_owned(), node).filter(|old| *old != node) else {
            return;
        };
        let is_done = !self.names.values().any(|id| *id == old);
        let inode = match is_done && old.0 & UNKNOWN != 0 {
            true => self.inodes.remove(&old),
            false => self.inodes.get(&old).cloned(),
        };
        self.inodes.extend(inode.map(|inode| (node, inode)));
    }

    /// Whether what `effect` moves is there: a crash may have come after it was moved.
    pub fn can_move(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Moved { node, from_path, .. } => self.must_hold(from_path, *node).is_ok(),
            _ => true,
        }
    }

    /// What the tree does not know and stands where a name goes is moved beside.
    pub fn clear_stray(&mut self, effect: &Effect) -> Result<(), String> {
        let Effect::Moved { to_path, replaced: None, .. } = effect else { return Ok(()) };
        if !self.names.contains_key(to_path) {
            return Ok(());
        }
        let mut beside = to_path.as_os_str().to_owned();
        beside.push(" (found here)");
        self.rename(to_path, Path::new(&beside))
    }

    /// The scan removes a placeholder that nobody knows.
    pub fn drop_placeholder(&mut self, path: &Path) {
        self.names.remove(path);
    }

    /// What a user does on disk, before `tree` knows.
    pub fn make(&mut self, op: &Op, tree: &Tree) -> Result<(), String> {
        let free = |dir: NodeId, name: &EntryName| {
            tree.path_in(dir, name.as_bytes()).ok_or("no directory")
        };
        let shown = |node: NodeId, dir: NodeId, name: &EntryName| {
            let links = &tree.node(node)?.links;
            let link = links.iter().find(|l| l.parent == dir && l.name == *name)?;
            tree.path_in(dir, link.shown.as_bytes())
        };
        match op {
            Op::Create { node, parent, name, body, .. } => {
                let content = match body {
                    Body::File(content) => Some(*content),
                    _ => None,
                };
                self.inodes.insert(*node, Inode { kind: body.kind(), content });
                self.put(&free(*parent, name)?, *node)
            }
            Op::Link { node, parent, name, .. } => self.put(&free(*parent, name)?, *node),
            Op::Unlink { node, parent, name, .. } => {
                self.remove(&shown(*node, *parent, name).ok_or("no such name")?)
            }
            Op::Rename { node, from, to, target, .. } => {
                let from_path = shown(*node, from.0, &from.1).ok_or("no such name")?;
                let to_path = free(to.0, &to.1)?;
                match target {
                    RenameTarget::Free => self.rename(&from_path, &to_path),
                    RenameTarget::Replaced { .. } => {
                        self.remove(&to_path)?;
                        self.rename(&from_path, &to_path)
                    }
                    RenameTarget::Exchanged { .. } => self.exchange(&from_path, &to_path),
                }
            }
            Op::Content { node, content, .. } => {
                self.fill(*node, *content);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Carries out one effect of a change that `tree` has.
    pub fn carry_out(&mut self, effect: &Effect, tree: &Tree) -> Result<(), String> {
        match effect {
            Effect::Made { node, path, .. } => {
                let stands = tree.node(*node).ok_or("no such node")?;
                let content = stands.file().filter(|file| file.resident).map(|file| file.content);
                if content.is_some_and(|content| content.size_bytes > 0) {
                    return Err(format!("{node} is made anew with bytes that nobody brought"));
                }
                self.inodes.insert(*node, Inode { kind: stands.kind(), content });
                self.put(path, *node)
            }
            Effect::Linked { node, existing, path, .. } => {
                self.must_hold(existing, *node)?;
                self.put(path, *node)
            }
            Effect::Removed { node, path, .. } => {
                self.must_hold(path, *node)?;
                self.remove(path)
            }
            Effect::Moved { node, from_path, to_path, replaced, .. } => {
                self.must_hold(from_path, *node)?;
                if let Some(replaced) = replaced {
                    self.must_hold(to_path, *replaced)?;
                    self.remove(to_path)?;
                }
                self.rename(from_path, to_path)
            }
            Effect::Swapped { a_path, b_path, .. } => self.exchange(a_path, b_path),
            Effect::SetAside { node, from, copy, to, content, .. } => {
                self.must_hold(from, *node)?;
                if self.inodes.get(node).and_then(|i| i.content) != Some(*content) {
                    return Err(format!("the bytes of {node} that were overruled are gone"));
                }
                self.fill(*copy, *content);
                self.put(to, *copy)
            }
            Effect::Wanted { node } => {
                self.size_placeholder(*node, tree);
                Ok(())
            }
            Effect::Adopted { was, node, .. } => {
                self.names.values_mut().filter(|id| **id == *was).for_each(|id| *id = *node);
                let inode = self.inodes.remove(was);
                self.inodes.extend(inode.map(|inode| (*node, inode)));
                Ok(())
            }
            Effect::Perm { .. } | Effect::Times { .. } | Effect::Xattr { .. } => Ok(()),
        }
    }

    /// A file that was shown empty and has absent content now, or the reverse.
    fn size_placeholder(&mut self, node: NodeId, tree: &Tree) {
        let Some(file) = tree.node(node).and_then(|n| n.file()) else { return };
        let Some(inode) = self.inodes.get_mut(&node) else { return };
        if !file.resident {
            inode.content = None;
        } else if inode.content.is_none() && file.content.size_bytes == 0 {
            inode.content = Some(file.content);
        }
    }

    /// What `tree` says should be here.
    pub fn of(tree: &Tree) -> Below {
        let mut names = BTreeMap::new();
        for (id, node) in tree.iter() {
            for link in &node.links {
                if let Some(path) = tree.path_in(link.parent, link.shown.as_bytes()) {
                    names.insert(path, id);
                }
            }
        }
        Below { names, inodes: BTreeMap::new() }
    }

    fn put(&mut self, path: &Path, node: NodeId) -> Result<(), String> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent != Path::new("") && !self.names.contains_key(parent) {
            return Err(format!("no directory for {}", path.display()));
        }
        match self.names.insert(path.to_owned(), node) {
            None => Ok(()),
            Some(old) => Err(format!("{} would overwrite {old}", path.display())),
        }
    }

    fn must_hold(&self, path: &Path, node: NodeId) -> Result<(), String> {
        match self.names.get(path) {
            Some(held) if was(*held) == node => Ok(()),
            held => Err(format!("{} holds {held:?}, not {node}", path.display())),
        }
    }

    fn remove(&mut self, path: &Path) -> Result<(), String> {
        if self.names.keys().any(|other| other != path && other.starts_with(path)) {
            return Err(format!("{} is not empty", path.display()));
        }
        self.names.remove(path).map(drop).ok_or(format!("{} is not there", path.display()))
    }

    fn exchange(&mut self, a: &Path, b: &Path) -> Result<(), String> {
        let aside = PathBuf::from("\u{1}swap");
        self.rename(a, &aside)?;
        self.rename(b, a)?;
        self.rename(&aside, b)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), String> {
        if to.starts_with(from) && to != from {
            return Err(format!("{} would move below itself", from.display()));
        }
        let moved: Vec<(PathBuf, NodeId)> = self
            .names
            .iter()
            .filter(|(path, _)| path.starts_with(from))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        if moved.is_empty() {
            return Err(format!("{} is not there", from.display()));
        }
        for (path, _) in &moved {
            self.names.remove(path);
        }
        for (path, node) in moved {
            let rest = path.strip_prefix(from).map_err(|e| e.to_string())?;
            let path = if rest == Path::new("") { to.to_owned() } else { to.join(rest) };
            self.put(&path, node)?;
        }
        Ok(())
    }
}

/// Every path with its node and registers.
pub type View = BTreeMap<PathBuf, String>;

/// What users see of a tree.
pub fn view(tree: &Tree) -> View {
    let mut all = BTreeMap::new();
    for (id, node) in tree.iter() {
        let body = match &node.body {
            NodeBody::File(file) => {
                let (content, version) = match file.incoming {
                    Some(incoming) => (incoming.content, incoming.version),
                    None => (file.content, file.version),
                };
                format!("file {content:?} {version:?}")
            }
            NodeBody::Dir(_) => "dir".to_owned(),
            NodeBody::Symlink(target) => format!("symlink {target:?}"),
            NodeBody::Fifo => "fifo".to_owned(),
            NodeBody::Socket => "socket".to_owned(),
        };
        // As they will be once content on its way is here, which may be never.
        let (perm, times) =
            tree.state(id).map_or((node.perm, node.times), |s| (s.perm.0, s.times.0));
        let stat = format!("{id} {body} {:o} {times:?} nlink {}", perm.mode, node.nlink());
        for link in &node.links {
            if let Some(path) = tree.path_in(link.parent, link.shown.as_bytes()) {
                all.insert(path, stat.clone());
            }
        }
        if id == NodeId::ROOT {
            all.insert(PathBuf::new(), stat);
        }
    }
    all
}
