//! Telling a peer the state instead of the log (`crates/lockstep/src/pump/catch_up.rs`,
//! `crates/vfs/src/catch_up.rs`).

use crate::failure::Check;
use crate::network::Message;
use crate::side::{After, Made, Side};
use crate::world::{World, broken};
use lockstep_core::tree::NodeState;
use lockstep_core::{
    Change, Comparison, DigestIndex, NodeId, NodeRange, Part, Plan, Replica, limits,
};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Where one exchange is.
#[derive(Debug)]
pub struct Telling {
    /// The peer's state was lost.
    to_lost: bool,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The peer may have to tell first.
    Listening,
    /// What differs is being found out.
    Comparing(Comparison<Rc<DigestIndex>>, Rc<DigestIndex>, Box<Plan>),
    /// What differs is being sent: what is left, and of what is planned or sent whether it was.
    Sending(VecDeque<Item>, Rc<DigestIndex>, BTreeMap<NodeId, bool>),
}

/// What is still to be told; read when it is sent.
#[derive(Debug)]
enum Item {
    Change(Box<Change>),
    Node(NodeId),
    Gone(NodeId),
}

impl Telling {
    pub fn new(to_lost: bool) -> Telling {
        Telling { to_lost, step: Step::Listening }
    }
}

impl World<'_> {
    /// Goes on with what `peer` is told, as far as may be in flight.
    pub fn tell(&mut self, who: usize, peer: usize) {
        let Some(mut telling) = self.sessions[who][peer].telling.take() else { return };
        match &mut telling.step {
            Step::Listening => self.begin(who, peer, &mut telling),
            Step::Comparing(..) => {}
            Step::Sending(..) => return self.send_state(who, peer, telling),
        }
        self.sessions[who][peer].telling = Some(telling);
    }

    fn begin(&mut self, who: usize, peer: usize, telling: &mut Telling) {
        let slot = self.sides[peer].slot;
        let side = &mut self.sides[who];
        // Of two that both lost their state, the one in the lower slot begins.
        let first = telling.to_lost && side.slot < slot;
        if side.replica.listens_first(slot) && !first {
            return;
        }
        let plan = side.replica.tells(slot);
        let index = Rc::new(digests(&side.replica));
        let mut comparison = Comparison::new(Rc::clone(&index));
        let asked = comparison.ask();
        telling.step = Step::Comparing(comparison, index, Box::new(plan));
        self.send(who, peer, Message::Ask(asked));
    }

    pub fn answer(&mut self, (asking, who): (usize, usize), ranges: Vec<NodeRange>) {
        let known = self.sessions[who][asking].digests.take();
        let known = known.filter(|_| !ranges.contains(&NodeRange::ALL));
        let index = known.unwrap_or_else(|| digests(&self.sides[who].replica));
        let parts = ranges.iter().map(|range| index.part(*range)).collect();
        self.sessions[who][asking].digests = Some(index);
        self.send(who, asking, Message::Answer(ranges, parts));
    }

    pub fn answered(
        &mut self,
        (who, peer): (usize, usize),
        asked: &[NodeRange],
        parts: &[Part],
    ) -> Check {
        let Some(mut telling) = self.sessions[who][peer].telling.take() else { return Ok(()) };
        if let Step::Comparing(comparison, index, plan) = &mut telling.step {
            comparison.answer(asked, parts).map_err(|misfit| broken(misfit.to_string()))?;
            let ask = comparison.ask();
            if ask.is_empty() {
                let replica = &mut self.sides[who].replica;
                let (differing, only_there) = (&comparison.differing, &comparison.only_there);
                replica.plan(plan, differing, only_there, telling.to_lost);
                let items = items(plan);
                let planned = plan.nodes.iter().map(|node| (*node, false)).collect();
                telling.step = Step::Sending(items, Rc::clone(index), planned);
            } else {
                self.send(who, peer, Message::Ask(ask));
            }
        }
        self.sessions[who][peer].telling = Some(telling);
        Ok(())
    }

    fn send_state(&mut self, who: usize, peer: usize, mut telling: Telling) {
        let Step::Sending(items, index, planned) = &mut telling.step else { return };
        while self.sessions[who][peer].in_flight.len() < limits::BATCHES_IN_FLIGHT_MAX {
            let max = 1 + self.rng.below(4);
            let replica = &self.sides[who].replica;
            let mut changes = Vec::new();
            for item in items.drain(..max.min(items.len())) {
                match item {
                    Item::Change(change) => changes.push(*change),
                    Item::Node(node) => {
                        tell_node(replica, node, (index, telling.to_lost), planned, &mut changes);
                    }
                    Item::Gone(node) => changes.extend(replica.tell_gone(node)),
                }
            }
            let end = changes.last().map(|change| change.seq).filter(|_| items.is_empty());
            let made = |change| Made { change, after: After::new() };
            if !changes.is_empty() {
                self.send_batch(who, peer, changes.into_iter().map(made).collect());
            }
            if let Some(end) = end {
                self.sides[who].shipped = self.sides[who].shipped.max(end);
                self.sessions[who][peer].cursor = end;
                return;
            }
        }
        self.sessions[who][peer].telling = Some(telling);
    }
}

fn items(plan: &Plan) -> VecDeque<Item> {
    let nodes = plan.nodes.iter().map(|node| Item::Node(*node));
    let gone = plan.gone.iter().map(|node| Item::Gone(*node));
    let begin = std::iter::once(Item::Change(Box::new(plan.begin.clone())));
    begin.chain(nodes).chain(gone).chain([Item::Change(Box::new(plan.end.clone()))]).collect()
}

/// A node, after directories above it that have changed since `index` was made or are planned.
fn tell_node(
    replica: &Replica,
    node: NodeId,
    (index, to_lost): (&DigestIndex, bool),
    planned: &mut BTreeMap<NodeId, bool>,
    changes: &mut Vec<Change>,
) {
    let is_new = |node| {
        let now = replica.tree.state(node).map(|state| digest(&state));
        index.digest(node) != now
    };
    let mut above = replica.tree.above(node);
    above.retain(|up| planned.contains_key(up) || is_new(*up));
    above.push(node);
    for node in above {
        if planned.insert(node, true) != Some(true) {
            changes.extend(replica.tell_node(node, to_lost));
        }
    }
}

fn digests(replica: &Replica) -> DigestIndex {
    let named = replica.tree.iter().filter(|(_, node)| !node.is_unlinked());
    let digest = |(id, _)| Some((id, digest(&replica.tree.state(id)?)));
    DigestIndex::new(named.filter_map(digest).collect())
}

/// FNV-1a over the state as text.
fn digest(state: &NodeState) -> u128 {
    let mix = |hash: u128, byte: u8| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B)
    };
    format!("{state:?}").bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, mix)
}

impl Side {
    /// Whether the log goes on from `cursor`.
    pub fn log_reaches(&self, cursor: lockstep_core::LogCursor) -> bool {
        self.replica.continues_from(cursor) && self.log_after(cursor.seq, 1).is_some()
    }
}
