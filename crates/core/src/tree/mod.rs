//! The replicated tree: every node by id, and how a change of any author alters it.
//!
//! A name is a *link*: the triple (directory, name, node). Two replicas that name different nodes
//! alike therefore never overwrite each other; which of them is *shown* under the name, and under
//! which name the other stands beside it, is a function of the links alone.

mod adopt;
mod apply;
mod claim;
mod conflict;
mod cycles;
mod directory;
mod effect;
mod links;
pub(crate) mod merge;
mod node;
mod place;
mod rename;
mod repository;
mod row;
mod state;

pub use conflict::{civil, conflict_name, restored_name};
pub use directory::Directory;
pub use effect::{Effect, Place};
pub use node::{FileBody, Incoming, Link, Node, NodeBody, TimesVersion};
pub use repository::InRepository;
pub use row::NodeRow;
pub use state::NodeState;

use crate::attr::{Perm, Times};
use crate::change::Body;
use crate::ids::{NodeId, Slot, Version};
use crate::name::EntryName;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The state of one volume as one replica knows it.
#[derive(Debug)]
pub struct Tree {
    nodes: HashMap<NodeId, Node>,
    /// Links shown under another name than their own, by their own place.
    shadows: BTreeMap<Place, Vec<NodeId>>,
    /// Host names for conflict copies.
    hosts: BTreeMap<Slot, String>,
    /// Names that a conflict name would have and somebody has: links to be shown under them once
    /// they are free.
    avoided: BTreeMap<Place, BTreeSet<(NodeId, EntryName)>>,
    /// Directories of a cycle that are shown in the root.
    displaced: BTreeSet<NodeId>,
    /// Nodes that remember more of their names than their links say.
    remembering: BTreeSet<NodeId>,
    /// Directories that have lost an entry to the change being applied.
    idle: BTreeSet<NodeId>,
    /// Nodes without a name.
    unlinked: BTreeSet<NodeId>,
    /// Nodes whose rows are stale.
    touched: BTreeSet<NodeId>,
    /// Effects of the change being applied.
    recorded: Vec<Effect>,
    /// Whether that change is this replica's own.
    is_local: bool,
}

impl Tree {
    /// An empty tree whose root directory has `perm` and `times`.
    pub fn new(perm: Perm, times: Times) -> Self {
        let root = Node::new(&Body::Dir, perm, times, Version::default());
        Tree {
            nodes: HashMap::from([(NodeId::ROOT, root)]),
            shadows: BTreeMap::new(),
            hosts: BTreeMap::new(),
            avoided: BTreeMap::new(),
            displaced: BTreeSet::new(),
            remembering: BTreeSet::new(),
            idle: BTreeSet::new(),
            unlinked: BTreeSet::new(),
            touched: BTreeSet::from([NodeId::ROOT]),
            recorded: Vec::new(),
            is_local: false,
        }
    }

    /// Rebuilds a tree from its rows. Links to directories that no row describes are dropped; the
    /// nodes concerned come back with the next scan or from a peer.
    pub fn load(rows: impl IntoIterator<Item = NodeRow>) -> Self {
        let mut tree = Tree::new(Perm::default(), Times::default());
        tree.touched.clear();
        for row in rows {
            let (id, node) = (row.node, row.into_node());
            if node.history.is_some() {
                tree.remembering.insert(id);
            }
            tree.nodes.insert(id, node);
        }
        let mut ids: Vec<NodeId> = tree.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            tree.show_loaded_links(id);
        }
        tree.find_displaced();
        tree.find_avoided();
        tree
    }

    fn find_avoided(&mut self) {
        let shadows: Vec<(Place, NodeId)> = self
            .shadows
            .iter()
            .flat_map(|(place, ids)| ids.iter().map(|id| (place.clone(), *id)))
            .collect();
        for (place, id) in shadows {
            if let Some(index) = self.link_index(id, place.dir, &place.name) {
                let link = self.nodes[&id].links[index].clone();
                self.note_avoided(id, &link);
            }
        }
    }

    fn show_loaded_links(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let is_dir = node.dir().is_some();
        let mut links = std::mem::take(&mut node.links);
        links.retain(|link| {
            let Some(dir) = self.nodes.get_mut(&link.parent).and_then(Node::dir_mut) else {
                return false;
            };
            if dir.get(link.shown.as_bytes()).is_some() {
                return false;
            }
            dir.insert(link.shown.clone(), id);
            dir.subdirs += u32::from(is_dir);
            if link.shown != link.name {
                let place = Place { dir: link.parent, name: link.name.clone() };
                self.shadows.entry(place).or_default().push(id);
            }
            true
        });
        if let Some(node) = self.nodes.get_mut(&id) {
            if links.is_empty() && id != NodeId::ROOT {
                node.claims_mut();
                self.unlinked.insert(id);
            }
            node.links = links;
        }
    }

    /// Tells which host a slot is, for the names of conflict copies.
    pub fn name_host(&mut self, slot: Slot, host: &str) {
        self.hosts.insert(slot, host.to_owned());
    }

    /// The name of the host in `slot`.
    pub fn host(&self, slot: Slot) -> &str {
        self.hosts.get(&slot).map_or("a peer", String::as_str)
    }

    /// The node `id`, also while it has no name.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The node `id` for changing its registers; its row becomes stale.
    pub fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.touched.insert(id);
        self.nodes.get_mut(&id)
    }

    /// The node shown under `name` in directory `parent`.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.node(parent)?.dir()?.get(name)
    }

    /// The directory a node's first name is in; the root is its own parent.
    pub fn parent(&self, id: NodeId) -> NodeId {
        self.node(id).and_then(|node| node.links.first()).map_or(NodeId::ROOT, |link| link.parent)
    }

    /// All directories above a node, by any of its names, each after those above it.
    pub fn above(&self, id: NodeId) -> Vec<NodeId> {
        let mut above = Vec::new();
        for link in self.node(id).map_or(&[][..], |node| &node.links) {
            let mut up = link.parent;
            let mut chain = Vec::new();
            while up != NodeId::ROOT && !above.contains(&up) {
                chain.push(up);
                up = self.parent(up);
            }
            above.extend(chain.into_iter().rev());
        }
        above
    }

    /// Path of a node's first name relative to the volume's root; `None` if it has no name.
    pub fn path(&self, id: NodeId) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut id = id;
        while id != NodeId::ROOT {
            debug_assert!(names.len() <= self.nodes.len(), "{id} is in a cycle");
            let link = self.nodes.get(&id)?.links.first()?;
            names.push(link.shown.clone());
            id = link.parent;
        }
        Some(names.iter().rev().map(|name| OsStr::from_bytes(name.as_bytes())).collect())
    }

    /// Path of `name` in `parent`, whether it stands or not; `None` if the directory has no name.
    pub fn path_in(&self, parent: NodeId, name: &[u8]) -> Option<PathBuf> {
        Some(self.path(parent)?.join(OsStr::from_bytes(name)))
    }

    /// Whether any directory is shown elsewhere than in its place.
    pub fn has_displaced(&self) -> bool {
        !self.displaced.is_empty()
    }

    /// Whether a node waits for another to give up the name `name` in `dir`.
    pub fn is_awaited(&self, dir: NodeId, name: &EntryName) -> bool {
        self.shadows.contains_key(&Place { dir, name: name.clone() })
    }

    /// All nodes, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Number of nodes, unlinked ones included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// Nodes that have lost their last name and are remembered until every peer knows.
    pub fn unlinked(&self) -> impl Iterator<Item = NodeId> {
        self.unlinked.iter().copied()
    }

    /// Every replica has every change: names that were taken need not be remembered any more.
    pub fn forget_lost_names(&mut self) {
        for id in std::mem::take(&mut self.remembering) {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.forget_taken_names();
                self.compact(id);
            }
        }
    }

    /// Forgets a node without a name.
    pub fn forget(&mut self, id: NodeId) {
        if self.nodes.get(&id).is_some_and(Node::is_unlinked) {
            self.nodes.remove(&id);
            self.unlinked.remove(&id);
            self.remembering.remove(&id);
            self.displaced.remove(&id);
            self.touched.insert(id);
        }
    }

    /// Whether any row became stale since they were last taken.
    pub fn has_stale_rows(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Ids whose rows became stale since the last call, each with its new row; `None`: delete it.
    pub fn take_rows(&mut self) -> Vec<(NodeId, Option<NodeRow>)> {
        let touched = std::mem::take(&mut self.touched);
        let row = |id| self.nodes.get(&id).map(|node| NodeRow::of(id, node));
        touched.into_iter().map(|id| (id, row(id))).collect()
    }

    /// The invariants, for tests: every shown name leads to a node that has that link, every link
    /// is shown, directories have one name and form no cycle.
    pub fn check(&self) -> Result<(), String> {
        for (id, node) in &self.nodes {
            for link in &node.links {
                if self.lookup(link.parent, link.shown.as_bytes()) != Some(*id) {
                    return Err(format!("{id} has {link:?}, which is not shown"));
                }
            }
            if node.dir().is_some() && node.links.len() > 1 {
                return Err(format!("directory {id} has {} names", node.links.len()));
            }
            self.check_entries(*id, node)?;
        }
        Ok(())
    }

    fn check_entries(&self, id: NodeId, node: &Node) -> Result<(), String> {
        let Some(dir) = node.dir() else { return Ok(()) };
        let mut subdirs = 0;
        for (_, name, child) in dir.after(0) {
            let Some(child_node) = self.nodes.get(&child) else {
                return Err(format!("{name} in {id} leads to no node"));
            };
            subdirs += u32::from(child_node.dir().is_some());
            if !child_node.links.iter().any(|l| l.parent == id && l.shown == *name) {
                return Err(format!("{name} in {id} leads to {child}, which has no such link"));
            }
        }
        if subdirs != dir.subdirs {
            return Err(format!("{id} counts {} subdirectories, has {subdirs}", dir.subdirs));
        }
        let mut up = id;
        for _ in 0..=self.nodes.len() {
            if up == NodeId::ROOT || self.nodes.get(&up).is_none_or(|n| n.links.is_empty()) {
                return Ok(());
            }
            up = self.parent(up);
        }
        Err(format!("{id} is in a cycle"))
    }

    fn record(&mut self, effect: impl FnOnce(&Tree) -> Option<Effect>) {
        let effect = effect(self);
        self.recorded.extend(effect);
    }
}
