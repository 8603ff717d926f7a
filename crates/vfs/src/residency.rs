//! Which contents are to be here: all of them, or those that are read; what is pinned stays, what
//! was evicted comes back when it is read.
//!
//! The policy decides about files whose bytes are absent. Whatever it says, a reader that waits
//! gets its bytes, and a file whose bytes are here follows its newer versions.

use crate::volume::{State, Volume};
use lockstep_core::tree::Node;
use lockstep_core::{ContentRef, NodeId, Tree, Version};
use lockstep_disk::state::{StateBatch, StateError, StateStore};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Names of the records in the state database begin so; the node's number follows.
const RECORD_PREFIX: &str = "residency/";

/// When the contents of a volume come here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// All of them, at once.
    #[default]
    Eager,
    /// Each when it is first read.
    OnDemand,
}

/// What a user said about one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// Its contents, and those of everything below it, come at once and stay.
    Pinned,
    /// Its bytes were given up.
    Evicted,
}

/// The policy of a volume, and the exceptions.
#[derive(Debug, Default)]
pub(crate) struct Residency {
    pub policy: Policy,
    pinned: BTreeSet<NodeId>,
    evicted: BTreeSet<NodeId>,
    /// Files that are being evicted: no peer may rely on their bytes.
    pub(crate) evicting: BTreeSet<NodeId>,
}

/// What a pin or a directory's eviction is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Files.
    pub files: u64,
    /// Those of them whose bytes are not here.
    pub absent: u64,
}

impl Residency {
    pub(crate) fn load(db: &dyn StateStore) -> Result<Residency, StateError> {
        let mut residency = Residency::default();
        for (name, value) in db.records(RECORD_PREFIX)? {
            let node = name.strip_prefix(RECORD_PREFIX).map(|n| u64::from_str_radix(n, 16));
            if let (Some(Ok(node)), Ok(mark)) = (node, postcard::from_bytes(&value)) {
                residency.set(NodeId(node), Some(mark));
            }
        }
        Ok(residency)
    }

    fn set(&mut self, node: NodeId, mark: Option<Mark>) {
        self.pinned.remove(&node);
        self.evicted.remove(&node);
        match mark {
            Some(Mark::Pinned) => drop(self.pinned.insert(node)),
            Some(Mark::Evicted) => drop(self.evicted.insert(node)),
            None => {}
        }
    }

    /// Whether the content of `node` that is still to come is to be fetched now.
    pub(crate) fn is_due(&self, tree: &Tree, node: NodeId) -> bool {
        let Some(file) = tree.node(node).and_then(Node::file) else { return false };
        if file.wanted().is_none() {
            return false;
        }
        let comes = self.policy == Policy::Eager && !self.evicted.contains(&node);
        file.incoming.is_some() || comes || self.is_pinned(tree, node)
    }

    /// Whether `node` or a directory above it is pinned.
    pub(crate) fn is_pinned(&self, tree: &Tree, node: NodeId) -> bool {
        if self.pinned.is_empty() {
            return false;
        }
        let mut above: Vec<NodeId> = vec![node];
        let mut seen = BTreeSet::new();
        while let Some(id) = above.pop() {
            if self.pinned.contains(&id) {
                return true;
            }
            if seen.insert(id) {
                above.extend(tree.node(id).into_iter().flat_map(|n| &n.links).map(|l| l.parent));
            }
        }
        false
    }

    /// The bytes of `node` are here again.
    pub(crate) fn came(&mut self, node: NodeId) {
        self.evicted.remove(&node);
    }

    pub(crate) fn pins(&self) -> u64 {
        self.pinned.len() as u64
    }
}

impl State {
    /// Content of `node` may be still to come: answers whether it is to be fetched now. Who asked for
    /// what was superseded meanwhile gets what superseded it: nobody else queues that.
    pub(crate) fn want(&mut self, node: NodeId) -> bool {
        let file = self.replica.tree.node(node).and_then(Node::file);
        if file.is_none_or(|file| file.wanted().is_none()) {
            self.wanted.remove(&node);
            return false;
        }
        let due = self.wanted.contains(&node) || self.residency.is_due(&self.replica.tree, node);
        if due {
            self.wanted.insert(node);
        }
        due
    }

    /// Since when no peer has had the content `version` of `node`, in seconds since 1970.
    pub(crate) fn gone_since(&self, node: NodeId, version: Version) -> Option<u64> {
        self.gone.get(&node).filter(|(gone, _)| *gone == version).map(|(_, since)| *since)
    }

    /// The files that have a name and whose content is to come here, with that content.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = (NodeId, ContentRef, Version)> {
        self.wanted.iter().filter_map(|id| {
            let stands = self.replica.tree.node(*id).filter(|node| !node.is_unlinked())?;
            let (content, version) = stands.file()?.wanted()?;
            Some((*id, content, version))
        })
    }
}

impl Volume {
    /// Sets when contents come here.
    pub fn set_policy(&self, policy: Policy) {
        let mut state = self.write_state();
        state.residency.policy = policy;
        let (all, State { residency, replica, wanted, .. }) =
            (crate::scan::wanted(&state.replica), &mut *state);
        *wanted = all.into_iter().filter(|node| residency.is_due(&replica.tree, *node)).collect();
        drop(state);
        self.queue_wanted();
    }

    /// A reader waits for the content of `node`, or another change does.
    pub(crate) fn want_now(&self, state: &mut State, node: NodeId) {
        let stands = state.replica.tree.node(node).filter(|n| !n.is_unlinked());
        let absent = stands.and_then(Node::file).is_some_and(|file| file.wanted().is_some());
        if absent && state.wanted.insert(node) {
            self.transfers.queue(node, false);
        }
    }

    /// The node at `path`, from the volume's root.
    pub fn node_at(&self, path: &Path) -> Option<NodeId> {
        use std::os::unix::ffi::OsStrExt;
        let state = self.read_state();
        path.components()
            .try_fold(NodeId::ROOT, |dir, name| state.child(dir, name.as_os_str().as_bytes()).ok())
    }

    /// The files at and below `node`, with their paths.
    pub fn files_below(&self, node: NodeId) -> Vec<(NodeId, std::path::PathBuf)> {
        let state = self.read_state();
        let tree = &state.replica.tree;
        let (mut files, mut rest) = (Vec::new(), vec![node]);
        while let Some(id) = rest.pop() {
            match tree.node(id) {
                Some(n) if n.file().is_some() => {
                    files.extend(tree.path(id).map(|path| (id, path)));
                }
                Some(n) => {
                    let entries = n.dir().into_iter().flat_map(|dir| dir.after(0));
                    rest.extend(entries.map(|(_, _, child)| child));
                }
                None => {}
            }
        }
        files.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        files.dedup_by_key(|(id, _)| *id);
        files
    }

    /// Pins `node`: it and everything below it comes now, and stays.
    pub fn pin(&self, node: NodeId) -> Result<Extent, StateError> {
        self.mark(vec![node], Some(Mark::Pinned))?;
        let mut extent = Extent::default();
        for (file, _) in self.files_below(node) {
            let mut state = self.write_state();
            extent.files += 1;
            if state.want(file) {
                extent.absent += 1;
                self.transfers.queue(file, false);
            }
        }
        Ok(extent)
    }

    /// Takes the pin of `node` away. Says whether it had one. What is here stays until evicted.
    pub fn unpin(&self, node: NodeId) -> Result<bool, StateError> {
        let had = self.read_state().residency.pinned.contains(&node);
        if had {
            self.mark(vec![node], None)?;
            let mut state = self.write_state();
            let State { residency, replica, wanted, .. } = &mut *state;
            wanted.retain(|node| residency.is_due(&replica.tree, *node));
        }
        Ok(had)
    }

    /// Sets, or takes away, the marks of `nodes`.
    pub(crate) fn mark(&self, nodes: Vec<NodeId>, mark: Option<Mark>) -> Result<(), StateError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let value = mark.map(|mark| postcard::to_stdvec(&mark).expect("marks always encode"));
        let name = |node: &NodeId| format!("{RECORD_PREFIX}{:016x}", node.0);
        let records = nodes.iter().map(|node| (name(node), value.clone())).collect();
        self.db.commit(&StateBatch { records, ..StateBatch::default() })?;
        let mut state = self.write_state();
        nodes.into_iter().for_each(|node| state.residency.set(node, mark));
        Ok(())
    }
}

/// Whether `bytes` are a mark of a node.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn is_mark(bytes: &[u8]) -> bool {
    postcard::from_bytes::<Mark>(bytes).is_ok()
}
