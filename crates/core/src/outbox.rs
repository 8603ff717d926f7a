//! Local changes between being made and being numbered: what was made and removed again meanwhile
//! never leaves.
//!
//! A lock file, a compiler's temporary, a directory unpacked and thrown away: all changes about such
//! a node are left out, and the order of the rest is kept. What they did to directories that
//! stay (their times) leaves as one change a directory.

use crate::change::{Op, RenameTarget};
use crate::ids::{NodeId, Version};
use std::collections::{BTreeMap, BTreeSet};

/// Changes made and not yet numbered, in order.
pub(crate) type Pending = Vec<(Op, Version)>;

/// Pending changes without those about nodes that came and went.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outbox {
    /// What is left, in order.
    pub changes: Pending,
    /// Directories whose times only a change left out has set, with that change's version.
    pub touched: BTreeMap<NodeId, Version>,
}

/// Cancels what came and went. `is_gone` tells whether a node has no name any more.
pub(crate) fn cancel(pending: Pending, is_gone: impl Fn(NodeId) -> bool) -> Outbox {
    let passing = passing_nodes(&pending, is_gone);
    if passing.is_empty() {
        return Outbox { changes: pending, touched: BTreeMap::new() };
    }
    let mut outbox = Outbox::default();
    for (mut op, version) in pending {
        let dirs = dirs_of(&op).filter(|dir| !passing.contains(dir)).collect::<Vec<_>>();
        if passing.contains(&op.node()) {
            outbox.touched.extend(dirs.into_iter().map(|dir| (dir, version)));
            continue;
        }
        for dir in dirs {
            outbox.touched.remove(&dir);
        }
        if let Op::Rename { target, .. } = &mut op
            && matches!(target, RenameTarget::Replaced { node, .. } if passing.contains(node))
        {
            *target = RenameTarget::Free;
        }
        outbox.changes.push((op, version));
    }
    outbox
}

/// Nodes that were made and lost their last name within `pending`, and that no change about
/// another node needs.
fn passing_nodes(pending: &Pending, is_gone: impl Fn(NodeId) -> bool) -> BTreeSet<NodeId> {
    let made = |(op, _): &(Op, Version)| matches!(op, Op::Create { .. }).then(|| op.node());
    let mut passing: BTreeSet<NodeId> =
        pending.iter().filter_map(made).filter(|node| is_gone(*node)).collect();
    while !passing.is_empty() {
        let needed: BTreeSet<NodeId> =
            pending.iter().flat_map(|(op, _)| needed_by(op, &passing)).collect();
        let before = passing.len();
        passing.retain(|node| !needed.contains(node));
        if passing.len() == before {
            break;
        }
    }
    passing
}

/// Which of the `passing` nodes must stay for the sake of `op`.
fn needed_by(op: &Op, passing: &BTreeSet<NodeId>) -> Vec<NodeId> {
    let is_passing = passing.contains(&op.node());
    match op {
        // What it displaced was there before: somebody has to tell.
        Op::Rename { node, target: RenameTarget::Replaced { node: old, .. }, .. }
            if is_passing && !passing.contains(old) =>
        {
            vec![*node]
        }
        Op::Rename { node, target: RenameTarget::Exchanged { node: other }, .. } => {
            vec![*node, *other]
        }
        _ if is_passing => Vec::new(),
        _ => dirs_of(op).collect(),
    }
}

/// The directories in which `op` adds or removes a name.
fn dirs_of(op: &Op) -> impl Iterator<Item = NodeId> {
    let dirs = match op {
        Op::Create { parent, .. } | Op::Link { parent, .. } | Op::Unlink { parent, .. } => {
            [Some(*parent), None]
        }
        Op::Rename { from, to, .. } => [Some(from.0), Some(to.0)],
        Op::SetPerm { .. }
        | Op::SetTimes { .. }
        | Op::SetXattr { .. }
        | Op::Content { .. }
        | Op::Exchange(_) => [None, None],
    };
    dirs.into_iter().flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::attr::{Perm, Times, Timespec};
    use crate::change::Body;
    use crate::ids::Slot;
    use crate::name::EntryName;

    const ROOT: NodeId = NodeId::ROOT;
    const AT: Timespec = Timespec { secs: 0, nanos: 0 };

    fn name(text: &str) -> EntryName {
        EntryName::new(text.as_bytes()).unwrap()
    }

    fn make(node: u64, parent: NodeId, body: Body) -> Op {
        let (perm, times, xattrs) = (Perm::default(), Times::default(), Vec::new());
        let name = name(&node.to_string());
        Op::Create { node: NodeId(node), parent, name, body, perm, times, xattrs, at: AT }
    }

    fn file(node: u64) -> Op {
        make(node, ROOT, Body::File(Default::default()))
    }

    fn unlink(node: u64, parent: NodeId) -> Op {
        let (name, seen) = (name(&node.to_string()), Version::default());
        Op::Unlink { node: NodeId(node), parent, name, seen, at: AT }
    }

    fn rename(node: u64, to: &str, target: RenameTarget) -> Op {
        let (from, to) = ((ROOT, name(&node.to_string())), (ROOT, name(to)));
        Op::Rename { node: NodeId(node), from, to, target, at: AT }
    }

    fn over(node: u64) -> RenameTarget {
        RenameTarget::Replaced { node: NodeId(node), seen: Version::default() }
    }

    fn version(lamport: usize) -> Version {
        Version { lamport: lamport as u64, slot: Slot(1) }
    }

    fn run(ops: Vec<Op>, gone: &[u64]) -> (Vec<Op>, Vec<(NodeId, Version)>) {
        let pending = ops.into_iter().enumerate().map(|(i, op)| (op, version(i))).collect();
        let outbox = cancel(pending, |node| gone.contains(&node.0));
        let changes = outbox.changes.into_iter().map(|(op, _)| op).collect();
        (changes, outbox.touched.into_iter().collect())
    }

    #[test]
    fn what_came_and_went_leaves_only_its_directorys_times() {
        let (changes, touched) = run(vec![file(7), unlink(7, ROOT)], &[7]);
        assert_eq!((changes, touched), (Vec::new(), vec![(ROOT, version(1))]));
    }

    #[test]
    fn a_later_change_in_the_directory_sets_its_times_anyway() {
        let (changes, touched) = run(vec![file(7), unlink(7, ROOT), file(8)], &[7]);
        assert_eq!((changes, touched), (vec![file(8)], Vec::new()));
    }

    #[test]
    fn a_chain_of_replacements_leaves_its_last_link() {
        let ops = vec![file(7), rename(7, "ref", RenameTarget::Free), file(8)];
        let ops = [ops, vec![rename(8, "ref", over(7)), file(9), rename(9, "ref", over(8))]];
        let (changes, _) = run(ops.concat(), &[7, 8]);
        assert_eq!(changes, [file(9), rename(9, "ref", RenameTarget::Free)]);
    }

    #[test]
    fn what_replaced_something_older_is_told_even_if_it_is_gone_again() {
        let ops = vec![file(7), rename(7, "ref", over(3)), unlink(7, ROOT)];
        assert_eq!(run(ops.clone(), &[7, 3]).0, ops);
    }

    #[test]
    fn a_directory_that_others_passed_through_stays() {
        let dir = NodeId(7);
        let moved = |from: NodeId, to: NodeId| Op::Rename {
            node: NodeId(3),
            from: (from, name("x")),
            to: (to, name("x")),
            target: RenameTarget::Free,
            at: AT,
        };
        let ops = vec![make(7, ROOT, Body::Dir), moved(ROOT, dir), moved(dir, ROOT)];
        let ops = [ops, vec![unlink(7, ROOT)]].concat();
        assert_eq!(run(ops.clone(), &[7]).0, ops);
    }

    #[test]
    fn a_tree_made_and_removed_is_nothing() {
        let dir = NodeId(7);
        let ops = vec![make(7, ROOT, Body::Dir), make(8, dir, Body::Dir)];
        let ops = [ops, vec![unlink(8, dir), unlink(7, ROOT)]].concat();
        assert_eq!(run(ops, &[7, 8]), (Vec::new(), vec![(ROOT, version(3))]));
    }
}
