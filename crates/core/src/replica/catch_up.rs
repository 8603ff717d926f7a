//! Bringing a peer up to date by state instead of by the log, and being brought up to date: when
//! the log no longer reaches back, and when a replica's state was lost or put back to an earlier
//! point.
//!
//! Such a replica first lets its peers tell what they have. What of its backing tree equals a
//! peer's file becomes that file; the rest is then its own, and goes to the peers the same way.

use super::Replica;
use crate::attr::Kind;
use crate::branch::LogCursor;
use crate::change::{Change, Exchange, Op};
use crate::content::ContentRef;
use crate::ids::{NodeId, Sequence, Slot, Version};
use crate::planted::{self, Bug};
use crate::seen::Seen;
use crate::spans::Spans;
use crate::tree::merge::{Merged, Sight};
use crate::tree::{Effect, Node, NodeState, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// What was learned from how a peer opened a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    /// The log goes on from what the peer has.
    Continues,
    /// The peer has nothing that the log goes on from: it is to get the full state.
    Behind,
    /// The same, for what it has is a later or another log of this replica: this replica's state
    /// was lost or put back, and the peer is to tell what it has.
    Overtaken,
}

/// What one exchange with a peer needs until it ends.
#[derive(Debug)]
pub(super) struct CatchUp {
    own: Seen,
    theirs: Seen,
    /// Version of the exchange: newer than anything its author had seen.
    now: Version,
    /// Directories removed here that the peer still has: made again if something new is in them.
    removed_here: BTreeMap<NodeId, NodeState>,
    /// Contents of the author's that lost to newer ones here, written without knowing them, with
    /// the versions of those.
    overruled: Vec<(Version, Version)>,
    /// Whether anything differed.
    differed: bool,
}

/// What is to be told in one exchange, in this order. Beginning and end are of the moment at which
/// the states were compared: what changes from then on is in the log after the end. States and
/// removals are read when they are told ([`Replica::tell_node`], [`Replica::tell_gone`]).
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who is told.
    pub peer: Slot,
    /// The beginning.
    pub begin: Change,
    /// Nodes, directories first, each after the one it is in.
    pub nodes: Vec<NodeId>,
    /// Nodes that only the peer has and that were removed here.
    pub gone: Vec<NodeId>,
    /// The end.
    pub end: Change,
}

/// Names of one node that are told; a node with more is left to the log.
const NAMES_TOLD_MAX: usize = 16_384;

/// Where a run starts to draw its numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// Drawn at random.
    pub incarnation: u64,
    /// No node counter up to here was drawn before, whatever the state says.
    pub node: u64,
    /// No Lamport time up to here was drawn before, whatever the state says.
    pub lamport: u64,
}

impl Replica {
    /// Starts a run: what it draws was never drawn before, even if the state is an old copy.
    pub fn start(&mut self, start: Start) {
        self.counters.node = self.counters.node.max(start.node);
        self.counters.lamport = self.counters.lamport.max(start.lamport);
        self.started = (self.counters.node, self.counters.lamport);
        self.counters.branch.run(start.incarnation, self.counters.last);
        // One of each is drawn, so that there is something seen in every run.
        self.new_node();
        self.counters.lamport += 1;
        let versions: &mut Spans = self.counters.seen.versions.entry(self.slot).or_default();
        versions.add(self.started.1, self.counters.lamport);
        if self.counters.lost {
            // What this run finds is in no log: whoever has the log of an earlier one lacks it.
            self.jump(self.counters.last.next());
        }
    }

    /// The state was lost: nothing is known of what this replica numbered before.
    pub fn start_without_state(&mut self) {
        self.counters.lost = true;
        self.jump(self.counters.last.next());
    }

    fn jump(&mut self, to: Sequence) {
        self.counters.last = self.counters.last.max(to);
        self.log.jump(self.counters.last);
        self.counters.branch.restart(self.counters.last);
    }

    /// The run that numbers the log now.
    pub fn incarnation(&self) -> u64 {
        self.counters.branch.incarnation()
    }

    /// A peer opens a session and tells how far it has this log. `only` says that it is the only
    /// peer there is.
    pub fn meet(&mut self, peer: Slot, theirs: LogCursor, only: bool) -> Met {
        self.catching_up.remove(&peer);
        if self.told.contains(&peer) {
            self.answering.insert(peer);
        }
        if self.counters.lost {
            self.adopting.insert(peer);
        }
        if self.counters.branch.holds(theirs, self.counters.last) {
            self.log.meet(peer, theirs.seq);
            if only && self.adopting.is_empty() {
                self.counters.seen.fill(self.slot);
            }
            return Met::Continues;
        }
        self.log.meet(peer, Sequence(0));
        if theirs.seq == Sequence(0) {
            return Met::Behind;
        }
        if self.adopting.insert(peer) {
            self.counters.applied.remove(&peer);
        }
        // Beyond what the peer has, so that it knows when it has been told everything.
        self.jump(theirs.seq.next());
        Met::Overtaken
    }

    /// Changes of `peer` are numbered by its run `incarnation` from now on.
    pub fn reads_log_of(&mut self, peer: Slot, incarnation: u64) {
        self.counters.applied.entry(peer).or_default().incarnation = incarnation;
    }

    /// Whether the log goes on from what a peer says it has.
    pub fn continues_from(&self, cursor: LogCursor) -> bool {
        self.counters.branch.holds(cursor, self.counters.last)
    }

    /// Whether `peer` is to tell its full state.
    pub fn wants_state(&self, peer: Slot) -> bool {
        self.counters.lost || self.listens_first(peer)
    }

    /// Whether `peer` has yet to tell what it has before it hears of anything from here.
    pub fn listens_first(&self, peer: Slot) -> bool {
        self.adopting.contains(&peer)
    }

    /// This replica tells `peer` what it has at this moment, in which its digests are taken; what
    /// differs is still to be found out ([`Replica::plan`]). From now on nothing here becomes a node
    /// of the peer.
    pub fn tells(&mut self, peer: Slot) -> Plan {
        self.adopting.remove(&peer);
        self.answering.remove(&peer);
        let begin = self.told(Sequence(0), Exchange::Begin(self.counters.seen.clone()));
        let end = self.told(self.log.last(), Exchange::End);
        self.told.insert(peer);
        self.begun.insert(peer);
        Plan { peer, begin, nodes: Vec::new(), gone: Vec::new(), end }
    }

    /// Whether `peer` is to be told what came of the state it told: what was edited here and removed
    /// there, or renamed on both sides, is decided by who hears of it, and the other has to know.
    /// Ends when nothing differs.
    pub fn answers(&self, peer: Slot) -> bool {
        self.answering.contains(&peer) && self.catching_up.is_empty()
    }

    /// Whether a peer's state is being taken in: names may be in conflict for a moment only.
    pub fn is_catching_up(&self) -> bool {
        !self.catching_up.is_empty() || !self.adopting.is_empty()
    }

    /// Adds to `plan` what differs in `differing` (nodes here) and that the peer has `only_there`.
    /// `removed_too`: the peer's state was lost, so it also hears what it must not bring back.
    pub fn plan(
        &mut self,
        plan: &mut Plan,
        differing: &BTreeSet<NodeId>,
        only_there: &[NodeId],
        removed_too: bool,
    ) {
        let peer = plan.peer;
        // A file may have names in several directories: all of those come first.
        let is_dir = |id| self.tree.node(id).is_some_and(|node| node.dir().is_some());
        let rank = |id: &NodeId| Some((!is_dir(*id), self.tree.depth(*id)?, *id));
        let mut nodes: Vec<_> = differing.iter().filter_map(rank).collect();
        nodes.sort_unstable();
        let mut nodes: Vec<NodeId> = nodes.into_iter().map(|(_, _, id)| id).collect();
        let mut gone = only_there.to_vec();
        // Removed since its state was summed up: of what it was until then the log says nothing.
        gone.extend(differing.iter().filter(|id| self.tree.depth(**id).is_none()));
        if removed_too {
            let removed = self.tree.removed_by_depth();
            gone.extend(removed.iter().rev());
            nodes.extend(removed);
        }
        let forgets = planted::has(Bug::ForgetRemovals);
        gone.retain(|id| self.counters.seen.has_node(*id) && !forgets);
        if planted::has(Bug::PlanLate) {
            plan.end = self.told(self.log.last(), Exchange::End);
        }
        // Until nothing differs: a session may end before all was told.
        match nodes.is_empty() && gone.is_empty() {
            true => self.told.remove(&peer),
            false => self.told.insert(peer),
        };
        (plan.nodes, plan.gone) = (nodes, gone);
    }

    /// The state of `node` as a step of an exchange. `None` if there is nothing to tell: the node
    /// is forgotten, or it has more names than travel.
    /// A peer whose state was lost (`to_lost`) also hears which names the node had.
    pub fn tell_node(&self, node: NodeId, to_lost: bool) -> Option<Change> {
        let mut state = self.tree.state(node)?;
        if to_lost {
            state.had = self.tree.lost_names(node);
        } else if state.removed {
            return Some(self.told(Sequence(0), Exchange::Gone(node)));
        }
        let tellable =
            state.names.len() <= NAMES_TOLD_MAX && state.names.is_empty() == (node == NodeId::ROOT);
        tellable.then(|| self.told(Sequence(0), Exchange::Node(Box::new(state))))
    }

    /// The removal of `node` as a step of an exchange; if it is back, its state: it may have lost
    /// names that the peer still shows.
    pub fn tell_gone(&self, node: NodeId) -> Option<Change> {
        match self.tree.node(node).is_none_or(|node| node.is_unlinked()) {
            true => Some(self.told(Sequence(0), Exchange::Gone(node))),
            false => self.tell_node(node, false),
        }
    }

    fn told(&self, seq: Sequence, step: Exchange) -> Change {
        let version = Version { lamport: self.counters.lamport, slot: self.slot };
        Change { seq, version, op: Op::Exchange(step) }
    }

    pub(super) fn catch_up(&mut self, peer: Slot, change: &Change, step: &Exchange) -> Vec<Effect> {
        if let Exchange::Begin(theirs) = step {
            let begun = CatchUp {
                own: self.counters.seen.clone(),
                theirs: self.possibly_seen(peer, theirs),
                now: change.version,
                removed_here: BTreeMap::new(),
                overruled: Vec::new(),
                differed: false,
            };
            self.catching_up.insert(peer, begun);
            return Vec::new();
        }
        // A step without a beginning belongs to a session that is over.
        let Some(mut with) = self.catching_up.remove(&peer) else { return Vec::new() };
        with.differed |= !matches!(step, Exchange::End);
        let effects = match step {
            Exchange::Node(state) => self.take_state(peer, state, &mut with),
            Exchange::Gone(node) => self.take_removal(*node, &mut with),
            Exchange::Begin(_) | Exchange::End => {
                self.caught_up(peer, change.seq, &with);
                return Vec::new();
            }
        };
        self.catching_up.insert(peer, with);
        effects
    }

    /// What a peer says it has seen. Of what was drawn in this run it cannot have seen anything
    /// before it was told: if it says so, these numbers were drawn twice.
    fn possibly_seen(&mut self, peer: Slot, theirs: &Seen) -> Seen {
        let mut seen = theirs.clone();
        let of_own = (seen.nodes.get_mut(&self.slot), seen.versions.get_mut(&self.slot));
        if let (Some(nodes), Some(versions)) = of_own {
            self.counters.node = self.counters.node.max(nodes.newest());
            self.counters.lamport = self.counters.lamport.max(versions.newest());
            if self.adopting.contains(&peer) && !self.begun.contains(&peer) {
                nodes.cut(self.started.0);
                versions.cut(self.started.1);
            }
        }
        seen
    }

    fn take_removal(&mut self, node: NodeId, with: &mut CatchUp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let version = self.tree.node(node).map(Node::content_version).unwrap_or_default();
        if with.theirs.has_overruled(version) {
            // Removed with bytes that had taken the place of these: no edit of the node itself.
            let nothing = ContentRef::default();
            let newest = Version { lamport: u64::MAX, slot: self.slot };
            effects.extend(self.set_aside_unseen(node, nothing, newest, &|_| false));
            let of_author = with.theirs.versions.entry(version.slot).or_default();
            of_author.add(version.lamport - 1, version.lamport);
        }
        let removal = |tree: &mut Tree| tree.merge_removal(node, with.sight());
        effects.extend(self.tree.recorded(removal).1);
        effects
    }

    fn take_state(&mut self, peer: Slot, state: &NodeState, with: &mut CatchUp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let by_log = self.comes_by_log(peer, state, with.now);
        let state = by_log.as_ref().unwrap_or(state);
        if self.adopting.contains(&peer)
            && self.tree.node(state.node).is_none()
            && let Some(twin) = self.tree.twin(state, self.slot, &with.theirs)
        {
            effects.extend(self.tree.recorded(|tree| tree.adopt(twin, state.node)).1);
        }
        if state.removed {
            return effects;
        }
        if let Some(content) = state.content() {
            let seen = |version| with.theirs.has_version(version);
            let version = state.content_version;
            effects.extend(self.set_aside_unseen(state.node, content, version, &seen));
            let by = self.overrules(state.node, content, version, &with.own);
            with.overruled.extend(by.map(|by| (version, by)));
        }
        self.make_parents_again(state, with, &mut effects);
        let (merged, made) = self.tree.recorded(|tree| tree.merge(state, with.sight()));
        effects.extend(made);
        if merged == Merged::RemovedHere && state.kind() == Kind::Dir {
            with.removed_here.insert(state.node, state.clone());
        }
        // The author may have lost what it had seen, but not what it tells.
        with.theirs.saw_state(state);
        effects
    }

    /// `state` without its content, if that was written after the exchange began: its change comes by
    /// the log, with the version it was based on.
    fn comes_by_log(&self, peer: Slot, state: &NodeState, began: Version) -> Option<NodeState> {
        let version = state.content_version;
        let later = version.slot == peer && version > began;
        (later && self.tree.node(state.node).is_some())
            .then(|| NodeState { content_version: Version::default(), ..state.clone() })
    }

    /// A directory removed here in which the peer has something new comes back for it.
    fn make_parents_again(
        &mut self,
        state: &NodeState,
        with: &mut CatchUp,
        effects: &mut Vec<Effect>,
    ) {
        let mut again = Vec::new();
        for (parent, ..) in &state.names {
            let mut up = *parent;
            while let Some(dir) = with.removed_here.remove(&up) {
                up = dir.names.first().map_or(NodeId::ROOT, |(parent, ..)| *parent);
                again.push(NodeState { held: true, ..dir });
            }
        }
        for dir in again.iter().rev() {
            let insert = |tree: &mut Tree| tree.insert_state(dir, with.now);
            effects.extend(self.tree.recorded(insert).1);
        }
    }

    fn caught_up(&mut self, peer: Slot, seq: Sequence, with: &CatchUp) {
        self.counters.merge_seen(&with.theirs);
        with.overruled.iter().for_each(|(version, by)| self.counters.overrule(*version, *by));
        self.counters.applied.entry(peer).or_default().seq = seq;
        self.adopting.remove(&peer);
        self.counters.lost = false;
        if with.differed && !planted::has(Bug::TellOnce) {
            self.answering.insert(peer);
        }
    }
}

impl CatchUp {
    fn sight(&self) -> Sight<'_> {
        Sight { own: &self.own, theirs: &self.theirs, now: self.now }
    }
}
