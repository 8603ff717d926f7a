//! Bringing a peer up to date by state: digests of all nodes, and the states and removals that
//! differ. The decisions are [`lockstep_core::Replica`]'s.

use crate::clock::Clock;
use crate::volume::Volume;
use lockstep_core::tree::{Node, NodeState};
use lockstep_core::{
    Change, DigestIndex, LogCursor, Met, NodeId, Perm, Plan, Replica, Sequence, Slot, Start,
    Timespec, Version,
};
use parking_lot::RwLockWriteGuard;
use std::collections::BTreeSet;

/// Milliseconds from 1970 to 2025: node counters have 48 bits and start above 64 per millisecond since.
const NODE_EPOCH_MS: u64 = 1_735_689_600_000;

/// Numbers above all that were drawn in runs before this one, even by a state that was lost or is
/// newer than this copy of it: runs start by the clock, and none draws 64 nodes or 1,024 Lamport
/// times in each millisecond of its life.
pub(crate) fn start_of_run(clock: &dyn Clock) -> Start {
    let ms = clock.wall().as_millis() as u64;
    let node = (ms.saturating_sub(NODE_EPOCH_MS) << 6).min(NodeId::COUNTER_MAX / 2);
    Start { incarnation: clock.random() | 1, node, lamport: ms << 10 }
}

/// One part of an exchange of state.
#[derive(Debug, Default)]
pub struct Told {
    /// What to send, in order.
    pub changes: Vec<Change>,
    /// Whether the peer's state was lost.
    to_lost: bool,
    /// What is still to be told, and was told.
    planned: BTreeSet<NodeId>,
    done: BTreeSet<NodeId>,
}

impl Told {
    /// Nothing of `plan` so far; `to_lost` says that the peer's state was lost.
    pub fn nothing_of(plan: &Plan, to_lost: bool) -> Told {
        Told { to_lost, planned: plan.nodes.iter().copied().collect(), ..Told::default() }
    }
}

impl Volume {
    /// A peer opens a session and tells how far it has the own log.
    pub fn meet(&self, peer: Slot, theirs: LogCursor) -> Met {
        let mut state = self.write_state();
        let only = state.replica.log.peers() <= 1;
        state.replica.meet(peer, theirs, only)
    }

    /// How far the log of `peer` is applied here, and which of its logs.
    pub fn cursor(&self, peer: Slot) -> LogCursor {
        self.read_state().replica.cursor(peer)
    }

    /// Changes of `peer` that are applied from now on were numbered by its run `incarnation`.
    pub fn reads_log_of(&self, peer: Slot, incarnation: u64) {
        if self.cursor(peer).incarnation != incarnation {
            self.write_state().replica.reads_log_of(peer, incarnation);
        }
    }

    /// The run that numbers the own log.
    pub fn incarnation(&self) -> u64 {
        self.read_state().replica.incarnation()
    }

    /// Whether `peer` is to tell its full state.
    pub fn wants_state(&self, peer: Slot) -> bool {
        self.read_state().replica.wants_state(peer)
    }

    /// Whether `peer` has yet to tell what it has before it hears of anything from here.
    pub fn listens_first(&self, peer: Slot) -> bool {
        self.read_state().replica.listens_first(peer)
    }

    /// Whether `peer` is to be told what came of the state it told.
    pub fn answers(&self, peer: Slot) -> bool {
        self.read_state().replica.answers(peer)
    }

    /// Whether this run began without any state of earlier ones.
    pub fn began_without_state(&self) -> bool {
        self.began_without_state
    }

    /// Digests of all nodes that have a name.
    pub fn digests(&self) -> DigestIndex {
        digests_of(&self.read_state().replica)
    }

    /// From now on this replica tells `peer` what it has at this moment; see [`Replica::tells`].
    pub fn begin_exchange(&self, peer: Slot) -> (DigestIndex, Plan) {
        let mut state = self.write_state();
        let plan = state.replica.tells(peer);
        (digests_of(&RwLockWriteGuard::downgrade(state).replica), plan)
    }

    /// Adds to `plan` what differs; see [`Replica::plan`].
    pub fn plan_exchange(
        &self,
        plan: &mut Plan,
        differing: &BTreeSet<NodeId>,
        only_there: &[NodeId],
        removed_too: bool,
    ) {
        self.write_state().replica.plan(plan, differing, only_there, removed_too);
    }

    /// The states of `nodes`, each after those of directories above it that have changed since
    /// `index` was made, or are to be told as well: who was told of a name lacks no directory for it,
    /// also if it moved meanwhile.
    pub fn tell_nodes(&self, nodes: &[NodeId], index: &DigestIndex, told: &mut Told) {
        let state = self.read_state();
        for node in nodes {
            let mut above = state.replica.tree.above(*node);
            let is_due = |up| told.planned.contains(&up) || is_new(&state.replica, up, index);
            above.retain(|up| !told.done.contains(up) && is_due(*up));
            above.push(*node);
            for node in above {
                if told.done.insert(node) {
                    told.changes.extend(state.replica.tell_node(node, told.to_lost));
                }
            }
        }
    }

    /// The removals of `nodes`.
    pub fn tell_gone(&self, nodes: &[NodeId]) -> Vec<Change> {
        let state = self.read_state();
        nodes.iter().filter_map(|node| state.replica.tell_gone(*node)).collect()
    }

    /// Whether the log still reaches back to the change after `cursor`, and is the log it is of.
    pub fn log_reaches(&self, cursor: LogCursor) -> bool {
        let (last, continues) = {
            let state = self.read_state();
            (state.replica.log.last(), state.replica.continues_from(cursor))
        };
        let first = self.db.first_log().ok().flatten();
        let kept = cursor.seq >= last || first.is_some_and(|first| first <= cursor.seq.next());
        continues && kept
    }

    /// Last change in the own log that was written down.
    pub fn log_last(&self) -> Sequence {
        self.read_state().replica.log.last()
    }

    /// Last change in the own log.
    pub fn last(&self) -> Sequence {
        self.read_state().replica.last()
    }
}

fn digests_of(replica: &Replica) -> DigestIndex {
    let nodes = replica.tree.iter().filter(|(_, node)| !node.is_unlinked());
    let digest = |(id, _): (NodeId, &Node)| Some((id, digest(&replica.tree.state(id)?)));
    DigestIndex::new(nodes.filter_map(digest).collect())
}

fn is_new(replica: &Replica, node: NodeId, index: &DigestIndex) -> bool {
    let now = replica.tree.state(node).map(|state| digest(&state));
    index.digest(node) != now
}

/// The root without registers that no change has ever set: those are each replica's own, as it
/// found them in its backing directory.
fn without_own_values(mut state: NodeState) -> NodeState {
    if state.perm.1 == Version::default() {
        state.perm.0 = Perm::default();
    }
    let (times, set) = &mut state.times;
    for (time, version) in [
        (&mut times.atime, set.atime),
        (&mut times.mtime, set.mtime),
        (&mut times.ctime, set.ctime),
    ] {
        if version == Version::default() {
            *time = Timespec::default();
        }
    }
    state
}

fn digest(state: &NodeState) -> u128 {
    let root = (state.node == NodeId::ROOT).then(|| without_own_values(state.clone()));
    let bytes = postcard::to_stdvec(root.as_ref().unwrap_or(state)).expect("states always encode");
    let hash = *blake3::hash(&bytes).as_bytes();
    u128::from_le_bytes(hash[..16].try_into().expect("16 of 32 bytes"))
}
