//! One run: two replicas, the changes between them, and what must hold.

use crate::actions::act;
use crate::below::{Below, View, view};
use crate::rng::Rng;
use lockstep_core::tree::Node;
use lockstep_core::{
    Change, ContentRef, Effect, NodeId, Op, Perm, Replica, Sequence, Slot, Times, Tree,
};
use std::collections::{BTreeSet, VecDeque};

/// What went wrong, and when.
#[derive(Debug)]
pub struct Failure {
    /// The run's seed.
    pub seed: u64,
    /// Number of the step.
    pub step: usize,
    /// Which promise.
    pub kind: FailureKind,
    /// What did not hold.
    pub what: String,
}

/// Which promise did not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// A tree broke an invariant, or an effect asked the disk for the impossible.
    Broken,
    /// A content that nobody who knew it gave up is nowhere.
    Lost,
    /// At the end the sides show different trees.
    Differ,
}

struct Side {
    replica: Replica,
    below: Below,
    /// Changes on their way to this side.
    inbox: VecDeque<Change>,
    /// Every change this side ever sent, for the delivery again after a reconnect.
    sent: Vec<Change>,
}

const SLOTS: [Slot; 2] = [Slot(1), Slot(2)];
const STEPS: usize = 60;

/// Runs `seed`; the trace of what was applied goes to `trace`.
pub fn run(seed: u64, apart: bool, trace: &mut dyn FnMut(String)) -> Result<(), Failure> {
    let mut rng = Rng::new(seed);
    let mut sides: Vec<Side> = SLOTS.iter().map(|slot| side(*slot)).collect();
    let fail = |step, what| Failure { seed, step, kind: FailureKind::Broken, what };
    let connected_percent = if apart { [0, 20][rng.below(2)] } else { 90 };
    for step in 0..STEPS {
        let who = rng.below(2);
        if rng.chance(60) {
            act(&mut sides[who].replica, &mut rng, step as u64);
        }
        ship(&mut sides, who, trace);
        if rng.chance(connected_percent) {
            let count = rng.below(4);
            deliver(&mut sides, who, count, trace).map_err(|what| fail(step, what))?;
        }
        if rng.chance(5) {
            resend(&mut sides, who);
        }
        if rng.chance(30) {
            fetch(&mut sides[who].replica);
        }
        check(&sides[who]).map_err(|what| fail(step, what))?;
    }
    settle(&mut sides, trace).map_err(|what| fail(STEPS, what))?;
    let ended = |kind| move |what| Failure { seed, step: STEPS, kind, what };
    nothing_lost(&sides).map_err(ended(FailureKind::Lost))?;
    same_view(&sides).map_err(ended(FailureKind::Differ))
}

fn side(slot: Slot) -> Side {
    let mut tree = Tree::new(Perm { mode: 0o755, uid: 0, gid: 0 }, Times::default());
    tree.name_host(Slot(1), "one");
    tree.name_host(Slot(2), "two");
    Side {
        replica: Replica::new(slot, tree, Default::default()),
        below: Below::default(),
        inbox: VecDeque::new(),
        sent: Vec::new(),
    }
}

/// Local changes are numbered and on their way; the local disk is what the tree says, for local
/// effects come before their change.
fn ship(sides: &mut [Side], who: usize, trace: &mut dyn FnMut(String)) {
    let changes = sides[who].replica.drain().changes;
    sides[who].below = Below::of(&sides[who].replica.tree);
    for change in &changes {
        trace(format!("{who} does {change:?}"));
    }
    sides[who].sent.extend(changes.iter().cloned());
    sides[1 - who].inbox.extend(changes);
}

fn deliver(
    sides: &mut [Side],
    who: usize,
    count: usize,
    trace: &mut dyn FnMut(String),
) -> Result<(), String> {
    for _ in 0..count {
        let Some(change) = sides[who].inbox.pop_front() else { break };
        let side = &mut sides[who];
        let Ok(effects) = side.replica.apply_remote(SLOTS[1 - who], &change) else { continue };
        trace(format!("{who} applies {change:?}: {effects:?}"));
        for effect in &effects {
            if let Effect::SetAside { copy, content, .. } = effect {
                announce_copy(&mut side.replica, *copy, *content);
            }
            side.below
                .carry_out(effect)
                .map_err(|why| format!("{effect:?} of {change:?} at {who}: {why}"))?;
        }
        let expected = Below::of(&side.replica.tree);
        if side.below != expected {
            return Err(format!(
                "after {change:?} at {who} the disk differs:\n{:?}\n{expected:?}",
                side.below
            ));
        }
        ship(sides, who, trace);
        check(&sides[who])?;
    }
    Ok(())
}

/// The shell copies the bytes that were overruled and announces what it copied.
fn announce_copy(replica: &mut Replica, node: NodeId, content: ContentRef) {
    let Some(stands) = replica.tree.node(node) else { return };
    let (times, perm, base) = (stands.times, stands.perm, stands.content_version());
    replica.local(Op::Content { node, base, content, times, perm });
}

/// A reconnect: everything not known to be applied is sent again.
fn resend(sides: &mut [Side], who: usize) {
    let applied: Sequence = sides[who].replica.applied(SLOTS[1 - who]);
    let again: Vec<Change> =
        sides[1 - who].sent.iter().filter(|c| c.seq.0 + 2 > applied.0).cloned().collect();
    sides[who].inbox = again.into();
}

/// All content on its way arrives.
fn fetch(replica: &mut Replica) {
    let wanted = |(id, node): (NodeId, &Node)| Some((id, node.file()?.wanted()?.1));
    let wanted: Vec<_> = replica.tree.iter().filter_map(wanted).collect();
    for (id, version) in wanted {
        replica.tree.content_arrived(id, version);
    }
}

fn check(side: &Side) -> Result<(), String> {
    side.replica.tree.check()
}

/// Everything is delivered and fetched.
fn settle(sides: &mut [Side], trace: &mut dyn FnMut(String)) -> Result<(), String> {
    while sides.iter().any(|side| !side.inbox.is_empty()) {
        for who in 0..2 {
            deliver(sides, who, usize::MAX, trace)?;
        }
    }
    sides.iter_mut().for_each(|side| fetch(&mut side.replica));
    sides.iter().try_for_each(check)
}

fn same_view(sides: &[Side]) -> Result<(), String> {
    let (one, two) = (view(&sides[0].replica.tree), view(&sides[1].replica.tree));
    let only = |a: &View, b: &View| -> String {
        let lines = a.iter().filter(|(path, stat)| b.get(*path) != Some(stat));
        lines.map(|(path, stat)| format!("{}: {stat}\n", path.display())).collect()
    };
    match one == two {
        true => Ok(()),
        false => {
            Err(format!("the sides differ\nONE\n{}TWO\n{}", only(&one, &two), only(&two, &one)))
        }
    }
}

/// Every content that nobody who had seen it replaced or removed is still somewhere.
fn nothing_lost(sides: &[Side]) -> Result<(), String> {
    use lockstep_core::change::RenameTarget;
    let changes: Vec<&Change> = sides.iter().flat_map(|side| &side.sent).collect();
    let mut over = BTreeSet::new();
    for change in &changes {
        match &change.op {
            Op::Content { node, base, .. } => drop(over.insert((*node, *base))),
            Op::Unlink { node, seen, .. }
            | Op::Rename { target: RenameTarget::Replaced { node, seen }, .. } => {
                over.insert((*node, *seen));
            }
            _ => {}
        }
    }
    let shown: BTreeSet<_> = sides[0]
        .replica
        .tree
        .iter()
        .filter(|(_, node)| !node.is_unlinked())
        .filter_map(|(_, node)| node.file())
        .map(|file| file.incoming.map_or(file.content, |i| i.content).hash)
        .collect();
    let overruled: BTreeSet<_> = changes
        .iter()
        .filter(|c| over.contains(&(c.op.node(), c.version)))
        .filter_map(|c| c.op.content())
        .map(|content| content.hash)
        .collect();
    let lost = |c: &&&Change| {
        let content = c.op.content().filter(|content| content.size_bytes > 0);
        content.is_some_and(|c| !overruled.contains(&c.hash) && !shown.contains(&c.hash))
    };
    match changes.iter().find(lost) {
        Some(change) => Err(format!("lost: {change:?}")),
        None => Ok(()),
    }
}
