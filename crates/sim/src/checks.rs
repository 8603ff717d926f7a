//! What must hold: at each change, and when everything has arrived.

use crate::below::{View, view};
use crate::failure::{Check, FailureKind};
use crate::model;
use crate::network::Message;
use crate::side::{Made, Side};
use crate::world::World;
use lockstep_core::change::RenameTarget;
use lockstep_core::spans::Spans;
use lockstep_core::{ContentHash, ContentRef, NodeId, Op, Part, Slot, Version, compare, limits};
use std::collections::BTreeSet;

/// A change is the next of its author, and comes after all its author had seen.
pub fn in_order(side: &Side, author: Slot, made: &Made) -> Check {
    if matches!(made.change.op, Op::Exchange(_)) {
        return Ok(());
    }
    let expected = side.replica.applied(author).next();
    if made.change.seq != expected || !side.has_all(&made.after) {
        let what = format!("{:?} takes effect where {expected:?} was due", made.change);
        return Err((FailureKind::Order, what));
    }
    Ok(())
}

/// Nothing grows beyond the limit that `core` has for it.
pub fn bounds(world: &World<'_>) -> Check {
    let queues = world.sessions.iter().flatten().flat_map(|session| {
        [
            ("batches in flight", session.in_flight.len(), limits::BATCHES_IN_FLIGHT_MAX),
            ("batches in an inbox", session.inbox.len(), limits::BATCHES_IN_FLIGHT_MAX),
        ]
    });
    let sides = world.sides.iter().flat_map(|side| {
        let (pending, spans) = (side.replica.pending_len(), side.spans_of_seen());
        [
            ("changes not numbered", pending, limits::PENDING_CHANGES_MAX),
            ("intervals of what was seen", spans, Spans::SPANS_MAX),
        ]
    });
    let messages = world.network.under_way().map(size);
    match queues.chain(sides).chain(messages).find(|(_, size, most)| size > most) {
        Some((what, size, most)) => {
            Err((FailureKind::Unbounded, format!("{size} {what} where {most} may be")))
        }
        None => Ok(()),
    }
}

/// What a message holds, how much of it, and how much it may hold.
fn size(message: &Message) -> (&'static str, usize, usize) {
    match message {
        Message::Batch(batch) => {
            ("changes in a batch", batch.len(), limits::BATCH_NOTIFICATIONS_MAX)
        }
        Message::Ask(ranges) => ("ranges in a question", ranges.len(), compare::ASKED_MAX),
        Message::Answer(_, parts) => {
            let largest = parts.iter().map(|part| match part {
                Part::Listed(nodes) => nodes.len(),
                Part::Split(ranges) => ranges.len(),
            });
            ("nodes in an answer", largest.max().unwrap_or(0), compare::LISTED_MAX)
        }
        _ => ("", 0, 0),
    }
}

/// Everybody has everything.
pub fn at_the_end(world: &World<'_>) -> Check {
    for side in &world.sides {
        side.compare_disk("everything").map_err(|what| (FailureKind::Broken, what))?;
        right_bytes(side)?;
        let lacks = |(_, content, _): &&(NodeId, ContentRef, Version)| {
            !given_up(world).contains(&content.hash)
        };
        if let Some(wanted) = side.wanted().iter().find(lacks) {
            return Err((FailureKind::Lost, format!("nobody has the bytes of {wanted:?}")));
        }
    }
    same_view(&world.sides)?;
    nothing_lost(world)?;
    // A state that was lost takes numbers back that others count as seen.
    if !world.has_exchanged || !world.plan.loses_state {
        nothing_resurrected(world)?;
    }
    // It goes by the changes alone; a state says less: what was removed, but not by which of them.
    if !world.has_exchanged {
        model::agrees(world)?;
    }
    nothing_kept(&world.sides)
}

/// The disk holds the bytes that the tree shows.
fn right_bytes(side: &Side) -> Check {
    for (id, node) in side.replica.tree.iter() {
        let Some(file) = node.file().filter(|file| file.resident && !node.is_unlinked()) else {
            continue;
        };
        let held = side.inode(id).and_then(|inode| inode.content);
        if held != Some(file.content) {
            let what = format!("{id} shows {:?} and holds {held:?}", file.content);
            return Err((FailureKind::Broken, what));
        }
    }
    Ok(())
}

fn same_view(sides: &[Side]) -> Check {
    let only = |a: &View, b: &View| -> String {
        let lines = a.iter().filter(|(path, stat)| b.get(*path) != Some(stat));
        lines.map(|(path, stat)| format!("{}: {stat}\n", path.display())).collect()
    };
    let one = view(&sides[0].replica.tree);
    for other in &sides[1..] {
        let two = view(&other.replica.tree);
        if one != two {
            let (a, b) = (only(&one, &two), only(&two, &one));
            let what = format!("the sides differ\n{:?}\n{a}{:?}\n{b}", sides[0].slot, other.slot);
            return Err((FailureKind::Differ, what));
        }
    }
    Ok(())
}

/// Contents that somebody who had seen them replaced or removed, or that went with a disk.
fn given_up(world: &World<'_>) -> BTreeSet<ContentHash> {
    let made = || world.made.iter().chain(&world.unmade);
    let mut over = BTreeSet::new();
    for made in made() {
        match &made.change.op {
            Op::Content { node, base, .. } => drop(over.insert((*node, *base))),
            Op::Unlink { node, seen, .. }
            | Op::Rename { target: RenameTarget::Replaced { node, seen }, .. } => {
                over.insert((*node, *seen));
            }
            _ => {}
        }
    }
    let overruled = made().filter(|m| over.contains(&(m.change.op.node(), m.change.version)));
    let overruled = overruled.filter_map(|m| Some(m.change.op.content()?.hash));
    overruled.chain(world.sides.iter().flat_map(|side| side.given_up.iter().copied())).collect()
}

/// Every content that nobody gave up is still somewhere.
fn nothing_lost(world: &World<'_>) -> Check {
    let nodes = world.sides[0].replica.tree.iter().filter(|(_, node)| !node.is_unlinked());
    let files = nodes.filter_map(|(_, node)| node.file());
    let shown: BTreeSet<_> = files.map(|file| file.content.hash).collect();
    let given_up = given_up(world);
    let lost = |m: &&Made| {
        let content = m.change.op.content().filter(|content| content.size_bytes > 0);
        content.is_some_and(|c| !given_up.contains(&c.hash) && !shown.contains(&c.hash))
    };
    match world.made.iter().find(lost) {
        Some(made) => Err((FailureKind::Lost, format!("lost: {:?}", made.change))),
        None => Ok(()),
    }
}

/// A node is gone if somebody removed it who had seen everything that was ever done to it.
fn nothing_resurrected(world: &World<'_>) -> Check {
    let removed = |made: &Made| match &made.change.op {
        Op::Unlink { node, seen, .. }
        | Op::Rename { target: RenameTarget::Replaced { node, seen }, .. } => {
            Some(*node).filter(|_| *seen != Version::default())
        }
        _ => None,
    };
    for removal in &world.made {
        let Some(node) = removed(removal) else { continue };
        let concerns = |m: &&Made| concerns(&m.change.op, node);
        let had_seen = |m: &Made| {
            let (author, by) = (m.change.version.slot, removal.change.version.slot);
            match author == by {
                true => m.change.seq <= removal.change.seq,
                false => removal.after.get(&author).is_some_and(|seen| *seen >= m.change.seq),
            }
        };
        // A directory may stand for what came back into it.
        let stands = world.sides[0].replica.tree.node(node).is_some_and(|stands| {
            !stands.is_unlinked() && stands.dir().is_none_or(|entries| entries.is_empty())
        });
        if stands && world.made.iter().filter(concerns).all(had_seen) {
            let what = format!("{node} stands after {:?}", removal.change);
            return Err((FailureKind::Resurrected, what));
        }
    }
    Ok(())
}

/// Whether `op` says something of `node`, or puts something into it.
fn concerns(op: &Op, node: NodeId) -> bool {
    let inside = match op {
        Op::Create { parent, .. } | Op::Link { parent, .. } => *parent == node,
        Op::Rename { to, target, .. } => {
            let other = match target {
                RenameTarget::Replaced { node, .. } | RenameTarget::Exchanged { node } => {
                    Some(*node)
                }
                RenameTarget::Free => None,
            };
            to.0 == node || other == Some(node)
        }
        _ => false,
    };
    inside || op.node() == node
}

/// What was remembered for peers is forgotten once they know.
fn nothing_kept(sides: &[Side]) -> Check {
    for side in sides {
        let removed: Vec<NodeId> = side.replica.tree.unlinked().collect();
        if !removed.is_empty() || !side.log_is_trimmed() {
            let what = format!("{:?} still keeps {removed:?} or its log", side.slot);
            return Err((FailureKind::Unbounded, what));
        }
    }
    Ok(())
}
