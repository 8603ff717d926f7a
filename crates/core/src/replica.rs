//! One replica of a volume: its tree, its clock, its log of changes, and what it has of its peers'.
//!
//! Local operations enter through [`Replica::local`], changes of peers through
//! [`Replica::apply_remote`]; [`Replica::drain`] hands out what must be written down, numbered, and
//! only what was written down is offered to peers.

mod catch_up;
mod overruled;
mod places;

pub use catch_up::{Met, Plan, Start};

use crate::branch::{Branch, LogCursor};
use crate::change::{Change, Op, RenameTarget};
use crate::ids::{NodeId, Sequence, Slot, Version};
use crate::log::{Acked, Log};
use crate::name::EntryName;
use crate::outbox::{self, Pending};
use crate::planted::{self, Bug};
use crate::seen::Seen;
use crate::tree::{Effect, Node, NodeRow, Place, Tree};
use catch_up::CatchUp;
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
    /// Per peer: how far its log is applied here.
    pub applied: BTreeMap<Slot, LogCursor>,
    /// The runs that numbered the own log.
    pub branch: Branch,
    /// What this replica has seen of everybody's work.
    pub seen: Seen,
    /// Per peer: how far it has the own log, as it said last.
    pub acked: BTreeMap<Slot, Acked>,
    /// The state was lost: what the backing tree holds is a peer's until that peer has told.
    pub lost: bool,
    /// Contents that lost here to bytes written without knowing them, each with those bytes' version:
    /// they do not count as seen until their author knows what they lost to.
    pub overruled: BTreeMap<Version, Version>,
}

impl Counters {
    /// Whether they can have come from counting, and leave room to count on.
    pub fn can_go_on(&self) -> bool {
        const MAX: u64 = 1 << 62;
        let applied = self.applied.values().map(|cursor| cursor.seq.0);
        let numbers = [self.lamport, self.last.0].into_iter().chain(applied);
        self.node < NodeId::COUNTER_MAX && numbers.max().is_none_or(|most| most < MAX)
    }
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
    /// What local changes ask of the disk beyond what their author did.
    consequences: Vec<Effect>,
    /// Peers that are bringing this replica up to date by state.
    catching_up: BTreeMap<Slot, CatchUp>,
    /// Peers that have yet to tell what of the backing tree is theirs: this replica's state is
    /// older than what they know, or gone.
    adopting: BTreeSet<Slot>,
    /// Peers that are to hear what came of the state they told.
    answering: BTreeSet<Slot>,
    /// Peers that were told something by state in this run.
    told: BTreeSet<Slot>,
    /// Peers that a telling was begun to in this run: they may have seen anything drawn in it.
    begun: BTreeSet<Slot>,
    /// The counters when this run started: what is drawn is seen from here on.
    started: (u64, u64),
}

impl Replica {
    /// A replica in `slot` over `tree`, continuing from `counters` (default: a new one);
    /// [`Replica::start`] is called before it draws a number.
    pub fn new(slot: Slot, tree: Tree, counters: Counters) -> Self {
        let counters = Counters { node: counters.node.max(1), ..counters };
        let started = (counters.node, counters.lamport);
        let mut log = Log::starting_after(counters.last);
        log.remember(counters.acked.clone());
        Replica {
            slot,
            tree,
            log,
            written: Counters::default(),
            counters,
            pending: Vec::new(),
            consequences: Vec::new(),
            catching_up: BTreeMap::new(),
            adopting: BTreeSet::new(),
            answering: BTreeSet::new(),
            told: BTreeSet::new(),
            begun: BTreeSet::new(),
            started,
        }
    }

    /// This replica's slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Draws the id of a new node.
    pub fn new_node(&mut self) -> NodeId {
        self.counters.node += 1;
        let seen = self.counters.seen.nodes.entry(self.slot).or_default();
        seen.add(self.started.0, self.counters.node);
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
        let seen = self.counters.seen.versions.entry(self.slot).or_default();
        seen.add(self.started.1, self.counters.lamport);
        Version { lamport: self.counters.lamport, slot: self.slot }
    }

    /// Effects on disk that follow from local changes since the last call, in order.
    pub fn take_consequences(&mut self) -> Vec<Effect> {
        let consequences = std::mem::take(&mut self.consequences);
        if planted::has(Bug::IgnoreConsequences) { Vec::new() } else { consequences }
    }

    /// Like [`Replica::local`] for what was found in a directory that joins a volume: older than
    /// anything the volume holds, so that the volume's names win. With lost state it is not even a
    /// change: peers hear of it by state, once they have told what of it is theirs.
    pub fn local_found(&mut self, op: Op) {
        let taken = match &op {
            Op::Link { node, parent, name, .. } => self.tree.was_taken(*node, *parent, name),
            _ => false,
        };
        if !self.counters.lost {
            self.settle_places(&op);
        }
        let version = match taken {
            true => self.next_version(),
            false => Version { lamport: 0, slot: self.slot },
        };
        if self.counters.lost {
            let consequences = self.tree.apply_local(&op, version);
            return self.consequences.extend(consequences);
        }
        self.enter(op, version);
    }

    fn enter(&mut self, op: Op, version: Version) {
        if let Op::Content { node, base, .. } = &op
            && let Some(coming) = self.tree.node(*node).and_then(|n| n.file()?.incoming)
            && coming.version != *base
            && !planted::has(Bug::ForgetOverruled)
        {
            self.counters.overrule(coming.version, version);
        }
        let consequences = self.tree.apply_local(&op, version);
        self.consequences.extend(consequences);
        if planted::has(Bug::DropOnFull) && self.pending.len() > 2 {
            return;
        }
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
        self.cursor(peer).seq
    }

    /// How far the log of `peer` is applied here, and which of its logs.
    pub fn cursor(&self, peer: Slot) -> LogCursor {
        self.counters.applied.get(&peer).copied().unwrap_or_default()
    }

    /// Whether every peer has every change made here, content included; true without peers.
    pub fn is_known_everywhere(&self) -> bool {
        let complete = self.log.complete_everywhere();
        self.pending.is_empty() && complete.is_none_or(|all| all >= self.counters.last)
    }

    /// Whether nothing can come any more that was made without knowing of a removal made here: every
    /// peer has said that it knows, and what it had made until then is applied.
    pub fn may_forget_removed(&self) -> bool {
        let heard = |peer: &Slot| {
            let unaware = self.log.unaware_through(*peer, self.counters.last);
            unaware
                .is_some_and(|last| planted::has(Bug::ForgetEarly) || self.applied(*peer) >= last)
        };
        self.is_known_everywhere() && self.log.all_acked().keys().all(heard)
    }

    /// Of what was done here up to this Lamport time, every peer has said that it has it, content
    /// included, and what it had made until it said so is applied: nothing can come any more that
    /// was made without knowing of it.
    pub fn settled_through(&self) -> u64 {
        let mut settled = None;
        for peer in self.log.all_acked().keys() {
            let Some((complete, last)) = self.log.heard(*peer) else { return 0 };
            if self.applied(*peer) < last {
                return 0;
            }
            settled = Some(settled.map_or(complete, |other: Sequence| other.min(complete)));
        }
        match settled {
            Some(seq) if !self.pending.is_empty() || seq < self.counters.last => {
                self.log.lamport_at(seq).unwrap_or(0)
            }
            _ => u64::MAX,
        }
    }

    /// Whether the change `version` was known here at some time.
    pub fn has_seen(&self, version: Version) -> bool {
        self.counters.seen.has_version(version)
    }

    /// Highest Lamport time seen or drawn.
    pub fn lamport(&self) -> u64 {
        self.counters.lamport
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
        self.counters.acked.clone_from(self.log.all_acked());
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

    /// Whether `node` was made here after the last drain: nobody else has heard of it.
    pub fn is_untold(&self, node: NodeId) -> bool {
        node.slot() == self.slot && node.counter() > self.written.node
    }

    /// Whether anything is to be written down.
    pub fn has_unwritten(&self) -> bool {
        !self.pending.is_empty()
            || self.written != self.counters
            || self.written.acked != *self.log.all_acked()
            || self.tree.has_stale_rows()
    }

    /// Checks that `change` is the next one of `peer`.
    pub fn expects(&self, peer: Slot, change: &Change) -> Result<(), OutOfOrder> {
        let expected = self.applied(peer).next();
        match change.seq {
            _ if matches!(change.op, Op::Exchange(_)) => Ok(()),
            got if got == expected => Ok(()),
            got if got < expected && planted::has(Bug::ApplyTwice) => Ok(()),
            got if got > expected && planted::has(Bug::ApplyOutOfOrder) => Ok(()),
            got if got < expected => Err(OutOfOrder::Duplicate(got)),
            got => Err(OutOfOrder::Gap { expected, got }),
        }
    }

    /// Applies the next change of `peer`; see [`Replica::expects`].
    pub fn apply_remote(&mut self, peer: Slot, change: &Change) -> Result<Vec<Effect>, OutOfOrder> {
        self.expects(peer, change)?;
        if !planted::has(Bug::ClockStandsStill) {
            self.counters.lamport = self.counters.lamport.max(change.version.lamport);
        }
        if let Op::Exchange(step) = &change.op {
            return Ok(self.catch_up(peer, change, step));
        }
        let mut effects = self.set_aside_overruled(change);
        let overruled = match &change.op {
            Op::Content { node, content, .. } => match self.tree.node(*node) {
                // Of a node that was removed and forgotten it may have to come back.
                None => Some(self.newest_drawn()),
                Some(_) => self.overrules(*node, *content, change.version, &self.counters.seen),
            },
            _ => None,
        };
        effects.extend(self.tree.apply_remote(change));
        let made = match &change.op {
            Op::Create { node, .. } => Some(*node),
            _ => None,
        };
        self.counters.seen.applied(change.version, made);
        if let Some(by) = overruled {
            self.counters.overrule(change.version, by);
        }
        self.counters.applied.entry(peer).or_default().seq = change.seq;
        Ok(effects)
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
