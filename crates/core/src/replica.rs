//! One replica of a volume: its tree, its clock, its log of changes, and what it has of its peers'.
//!
//! Local operations enter through [`Replica::local`], changes of peers through
//! [`Replica::apply_remote`]; [`Replica::drain`] hands out what must be written down, numbered, and
//! only what was written down is offered to peers.

use crate::attr::{Perm, Times, Timespec};
use crate::change::{Body, Change, Op, RenameTarget};
use crate::ids::{NodeId, Sequence, Slot, Version};
use crate::log::Log;
use crate::name::EntryName;
use crate::outbox::{self, Pending};
use crate::tree::{Effect, Node, NodeRow, Place, Tree};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Why a peer's change was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    /// It was applied before: not an error, skip it.
    #[error("change {0:?} was applied before")]
    Duplicate(Sequence),
    /// Changes before it are missing.
    #[error("expected change {expected:?}, got {got:?}")]
    Gap {
        /// The next change this replica can apply.
        expected: Sequence,
        /// The change that came.
        got: Sequence,
    },
}

/// The few numbers a replica must never forget or reuse.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Highest Lamport time seen or drawn.
    pub lamport: u64,
    /// Highest node counter drawn.
    pub node: u64,
    /// Last change numbered in the own log.
    pub last: Sequence,
    /// Per peer: last change of its log applied here.
    pub applied: BTreeMap<Slot, Sequence>,
}

/// What is to be written down in one atomic step.
#[derive(Debug, Default)]
pub struct Drained {
    /// New entries of the own log.
    pub changes: Vec<Change>,
    /// Stale rows; `None` deletes.
    pub rows: Vec<(NodeId, Option<NodeRow>)>,
    /// The counters after this step.
    pub counters: Counters,
}

impl Drained {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.rows.is_empty()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Replica {
    slot: Slot,
    /// The replicated state.
    pub tree: Tree,
    counters: Counters,
    written: Counters,
    pending: Pending,
    /// Numbered changes that peers may still need.
    pub log: Log,
    /// Peers that are sending their full state: the next numbered change may jump ahead.
    catching_up: BTreeSet<Slot>,
    /// What local changes ask of the disk beyond what their author did.
    consequences: Vec<Effect>,
}

/// Jump of the clock and the node counter at each start: numbers drawn and lost in a power cut are
/// never drawn again.
const RESTART_STRIDE: u64 = 1 << 20;

impl Replica {
    /// A replica in `slot` over `tree`, continuing from `counters` (default: a new one).
    pub fn new(slot: Slot, tree: Tree, counters: Counters) -> Self {
        let fresh = counters == Counters::default();
        let stride = if fresh { 0 } else { RESTART_STRIDE };
        let counters = Counters {
            lamport: counters.lamport + stride,
            node: counters.node.max(1) + stride,
            ..counters
        };
        Replica {
            slot,
            tree,
            log: Log::starting_after(counters.last),
            written: Counters::default(),
            counters,
            pending: Vec::new(),
            catching_up: BTreeSet::new(),
            consequences: Vec::new(),
        }
    }

    /// This replica's slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Draws the id of a new node.
    pub fn new_node(&mut self) -> NodeId {
        self.counters.node += 1;
        NodeId::new(self.slot, self.counters.node)
    }

    /// Stamps, applies and queues an operation whose effect on disk was made already.
    /// What else the disk has to do then waits in [`Replica::take_consequences`].
    pub fn local(&mut self, op: Op) -> Version {
        self.settle_places(&op);
        let version = self.next_version();
        self.enter(op, version);
        version
    }

    fn next_version(&mut self) -> Version {
        self.counters.lamport += 1;
        Version { lamport: self.counters.lamport, slot: self.slot }
    }

    /// Directories stay where their user sees them: one that stands only because of what is in it,
    /// or in the root only because of a cycle, is put there for good by a change of its own, before
    /// `op` takes the reason away.
    fn settle_places(&mut self, op: &Op) {
        let (left, moved) = match op {
            Op::Unlink { node, parent, .. } => (*parent, *node),
            Op::Rename { node, from, .. } => (from.0, *node),
            _ => return,
        };
        let is_dir = self.tree.node(moved).is_some_and(|node| node.dir().is_some());
        let mut unsettled: BTreeSet<NodeId> = BTreeSet::new();
        unsettled.extend(Some(left).filter(|dir| self.tree.is_held_by_entries(*dir)));
        unsettled.extend(self.tree.displaced().filter(|_| is_dir));
        for dir in unsettled.into_iter().filter(|dir| *dir != moved) {
            self.settle_place(dir);
        }
    }

    fn settle_place(&mut self, dir: NodeId) {
        let Some(node) = self.tree.node(dir) else { return };
        let Some(link) = node.links.first() else { return };
        let at = self.tree.node(link.parent).map(|dir| dir.times.ctime).unwrap_or_default();
        let (from, to) = ((link.parent, link.name.clone()), (link.parent, link.shown.clone()));
        let version = self.next_version();
        self.enter(Op::Rename { node: dir, from, to, target: RenameTarget::Free, at }, version);
    }

    /// Effects on disk that follow from local changes since the last call, in order.
    pub fn take_consequences(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.consequences)
    }

    /// Like [`Replica::local`] for what was found in a directory that joins a volume: older than
    /// anything the volume holds, so that the volume's names win.
    pub fn local_found(&mut self, op: Op) {
        let taken = match &op {
            Op::Link { node, parent, name, .. } => self.tree.was_taken(*node, *parent, name),
            _ => false,
        };
        let version = match taken {
            true => self.next_version(),
            false => Version { lamport: 0, slot: self.slot },
        };
        self.enter(op, version);
    }

    fn enter(&mut self, op: Op, version: Version) {
        let consequences = self.tree.apply_local(&op, version);
        self.consequences.extend(consequences);
        self.pending.push((op, version));
    }

    /// Changes not yet numbered.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Last number in the own log.
    pub fn last(&self) -> Sequence {
        self.counters.last
    }

    /// Last change of `peer` applied here.
    pub fn applied(&self, peer: Slot) -> Sequence {
        self.counters.applied.get(&peer).copied().unwrap_or_default()
    }

    /// Whether every peer has every change made here, content included; true without peers.
    pub fn is_known_everywhere(&self) -> bool {
        let complete = self.log.complete_everywhere();
        self.pending.is_empty() && complete.is_none_or(|all| all >= self.counters.last)
    }

    /// What was done here up to this Lamport time, every peer has, content included.
    pub fn known_everywhere_through(&self) -> u64 {
        if self.is_known_everywhere() {
            return self.counters.lamport;
        }
        let complete = self.log.complete_everywhere();
        complete.and_then(|seq| self.log.lamport_at(seq)).unwrap_or(0)
    }

    /// Highest Lamport time seen or drawn.
    pub fn lamport(&self) -> u64 {
        self.counters.lamport
    }

    /// A peer remembers more of this log than this replica does (it lost its tail in a power cut):
    /// numbers up to `known` are spent.
    pub fn skip_past(&mut self, known: Sequence) {
        if known > self.counters.last {
            self.counters.last = known;
            self.log = Log::starting_after(known);
        }
    }

    /// Numbers everything pending, but for what came and went meanwhile, and takes all stale rows.
    pub fn drain(&mut self) -> Drained {
        let pending = self.take_pending();
        let mut changes = Vec::with_capacity(pending.len());
        for (op, version) in pending {
            self.counters.last = self.counters.last.next();
            changes.push(Change { seq: self.counters.last, version, op });
        }
        let rows = self.tree.take_rows();
        self.written = self.counters.clone();
        Drained { changes, rows, counters: self.counters.clone() }
    }

    fn take_pending(&mut self) -> Pending {
        let gone = |node| self.tree.node(node).is_none_or(Node::is_unlinked);
        let mut outbox = outbox::cancel(std::mem::take(&mut self.pending), gone);
        for (node, version) in outbox.touched {
            let Some(dir) = self.tree.node(node) else { continue };
            let op = Op::SetTimes { node, times: dir.times };
            self.tree.apply_local(&op, version);
            outbox.changes.push((op, version));
        }
        outbox.changes
    }

    /// Whether anything is to be written down.
    pub fn has_unwritten(&self) -> bool {
        !self.pending.is_empty() || self.written != self.counters || self.tree.has_stale_rows()
    }

    /// Checks that `change` is the next one of `peer`.
    pub fn expects(&self, peer: Slot, change: &Change) -> Result<(), OutOfOrder> {
        let expected = self.applied(peer).next();
        let jump = self.catching_up.contains(&peer);
        match change.seq {
            Sequence(0) => Ok(()),
            got if got == expected || (jump && got > expected) => Ok(()),
            got if got < expected => Err(OutOfOrder::Duplicate(got)),
            got => Err(OutOfOrder::Gap { expected, got }),
        }
    }

    /// Applies the next change of `peer`; see [`Replica::expects`].
    pub fn apply_remote(&mut self, peer: Slot, change: &Change) -> Result<Vec<Effect>, OutOfOrder> {
        self.expects(peer, change)?;
        self.counters.lamport = self.counters.lamport.max(change.version.lamport);
        let mut effects = self.set_aside_overruled(change);
        effects.extend(self.tree.apply_remote(change));
        if change.seq == Sequence(0) {
            self.catching_up.insert(peer);
        } else {
            self.catching_up.remove(&peer);
            self.counters.applied.insert(peer, change.seq);
        }
        Ok(effects)
    }

    /// If `change` overrules bytes that this replica wrote and the author had not seen, they
    /// become a file of their own first.
    fn set_aside_overruled(&mut self, change: &Change) -> Vec<Effect> {
        let Op::Content { node, base, content, .. } = &change.op else { return Vec::new() };
        let Some(stands) = self.tree.node(*node).filter(|n| !n.is_unlinked()) else {
            return Vec::new();
        };
        let overruled = stands.file().is_some_and(|file| {
            file.version.slot == self.slot
                && file.incoming.is_none()
                && file.version != *base
                && change.version > file.version
                && file.content != *content
                && file.content.size_bytes > 0
                && file.resident
                && !file.dirty
        });
        if !overruled {
            return Vec::new();
        }
        self.keep_copy(*node).into_iter().collect()
    }

    fn keep_copy(&mut self, node: NodeId) -> Option<Effect> {
        let from = self.tree.path(node)?;
        let (parent, name) = self.tree.name_beside(node)?;
        let loser = self.tree.node(node)?;
        let content = loser.file()?.content;
        let (perm, times) = (loser.perm, loser.times);
        let copy = self.new_node();
        self.local(Op::Create {
            node: copy,
            parent,
            name: name.clone(),
            body: Body::File(Default::default()),
            perm,
            times,
            xattrs: Vec::new(),
            at: times.ctime,
        });
        let to = self.tree.path_in(parent, name.as_bytes())?;
        Some(Effect::SetAside { node, content, from, copy, place: Place { dir: parent, name }, to })
    }

    /// Names of this replica that lost to another: (node, its own place, name it is shown under).
    pub fn own_shadows(&self) -> Vec<(NodeId, Place, EntryName)> {
        self.tree.shadows_of(self.slot)
    }

    /// The author's name for what users see as `shown` in `parent`, with its node.
    pub fn own_name(&self, parent: NodeId, shown: &[u8]) -> Option<(NodeId, EntryName)> {
        let node = self.tree.lookup(parent, shown)?;
        let links = &self.tree.node(node)?.links;
        let link = links.iter().find(|l| l.parent == parent && l.shown.as_bytes() == shown)?;
        Some((node, link.name.clone()))
    }

    /// The whole tree as changes, parents before children, each register under its own version:
    /// what a peer needs that the log no longer reaches. All are numbered 0 but the last, which
    /// carries the number the log continues after.
    pub fn snapshot(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut dirs = vec![NodeId::ROOT];
        self.snapshot_registers(NodeId::ROOT, &mut changes);
        let mut seen = BTreeSet::new();
        while let Some(dir) = dirs.pop() {
            let entries = self.tree.node(dir).and_then(|n| n.dir());
            for (_, shown, id) in entries.into_iter().flat_map(|d| d.after(0)) {
                let Some((node, name)) = self.own_name(dir, shown.as_bytes()) else { continue };
                if seen.insert(node) {
                    self.snapshot_node(node, dir, name, &mut changes);
                } else {
                    self.snapshot_link(node, dir, name, &mut changes);
                }
                if self.tree.node(id).is_some_and(|n| n.dir().is_some()) {
                    dirs.push(id);
                }
            }
        }
        let root = self.tree.node(NodeId::ROOT).expect("there is a root");
        let op = Op::SetTimes { node: NodeId::ROOT, times: root.times };
        let drawn = Version { lamport: 0, slot: self.slot };
        let version = root.times_version.ctime.max(drawn);
        changes.push(Change { seq: self.counters.last, version, op });
        changes
    }

    fn snapshot_node(&self, id: NodeId, parent: NodeId, name: EntryName, out: &mut Vec<Change>) {
        use crate::tree::NodeBody;
        let Some(node) = self.tree.node(id) else { return };
        let body = match &node.body {
            NodeBody::File(_) => Body::File(Default::default()),
            NodeBody::Dir(_) => Body::Dir,
            NodeBody::Symlink(target) => Body::Symlink(target.clone()),
            NodeBody::Fifo => Body::Fifo,
            NodeBody::Socket => Body::Socket,
        };
        let version = node
            .links
            .iter()
            .find(|l| l.parent == parent && l.name == name)
            .map_or(Version::default(), |l| l.version);
        let at = self.tree.node(parent).map_or(Timespec::default(), |dir| dir.times.ctime);
        let (perm, times) = (node.perm, node.times);
        let op = Op::Create { node: id, parent, name, body, perm, times, xattrs: Vec::new(), at };
        out.push(Change { seq: Sequence(0), version, op });
        self.snapshot_registers(id, out);
    }

    fn snapshot_link(&self, id: NodeId, parent: NodeId, name: EntryName, out: &mut Vec<Change>) {
        let Some(node) = self.tree.node(id) else { return };
        let Some(link) = node.links.iter().find(|l| l.parent == parent && l.name == name) else {
            return;
        };
        let (version, at) = (link.version, node.times.ctime);
        out.push(Change { seq: Sequence(0), version, op: Op::Link { node: id, parent, name, at } });
    }

    fn snapshot_registers(&self, id: NodeId, out: &mut Vec<Change>) {
        let Some(node) = self.tree.node(id) else { return };
        let mut push = |version, op| {
            if version != Version::default() {
                out.push(Change { seq: Sequence(0), version, op });
            }
        };
        let (perm, times): (Perm, Times) = (node.perm, node.times);
        if let Some(file) = node.file() {
            let (content, base) = (file.content, Version::default());
            push(file.version, Op::Content { node: id, base, content, times, perm });
        }
        for (name, (version, value)) in &node.xattrs {
            let (name, value) = (name.clone(), value.clone());
            push(*version, Op::SetXattr { node: id, name, value, ctime: times.ctime });
        }
        push(node.perm_version, Op::SetPerm { node: id, perm, ctime: times.ctime });
        let set = &node.times_version;
        let newest = set.atime.max(set.mtime).max(set.ctime);
        push(newest, Op::SetTimes { node: id, times });
    }

    /// What a rename finds at (`parent`, shown `name`), as its change records it.
    pub fn rename_target(&self, parent: NodeId, name: &[u8]) -> RenameTarget {
        match self.tree.lookup(parent, name) {
            None => RenameTarget::Free,
            Some(node) => RenameTarget::Replaced { node, seen: self.seen(node) },
        }
    }

    /// What a removal of one name of `node` by this replica has seen: its newest content if it is
    /// the last name; nothing while others stand, for then the node is not meant to go.
    pub fn seen(&self, node: NodeId) -> Version {
        match self.tree.node(node) {
            Some(stands) if stands.links.len() <= 1 => self.tree.seen_version(node),
            _ => Version::default(),
        }
    }
}
