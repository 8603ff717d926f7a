//! Changes of this replica's own that keep nodes where their user sees them, before an operation
//! takes the reason away for which they are shown there.

use super::Replica;
use crate::change::{Op, RenameTarget};
use crate::ids::NodeId;
use std::collections::BTreeSet;

impl Replica {
    /// Directories stay where their user sees them: one that stands only because of what is in it,
    /// or in the root only because of a cycle, is put there for good by a change of its own, before
    /// `op` takes the reason away.
    pub(super) fn settle_places(&mut self, op: &Op) {
        if let Op::Link { node, .. } = op {
            return self.settle_kept_name(*node);
        }
        let (left, moved, other) = match op {
            Op::Unlink { node, parent, .. } => (*parent, *node, None),
            Op::Rename { node, from, target: RenameTarget::Exchanged { node: other }, .. } => {
                (from.0, *node, Some(*other))
            }
            Op::Rename { node, from, .. } => (from.0, *node, None),
            _ => return,
        };
        let is_dir = |id: NodeId| self.tree.node(id).is_some_and(|node| node.dir().is_some());
        let moves_dir = is_dir(moved) || other.is_some_and(is_dir);
        let mut unsettled: BTreeSet<NodeId> = BTreeSet::new();
        unsettled.extend(Some(left).filter(|dir| self.tree.is_held_by_entries(*dir)));
        unsettled.extend(self.tree.displaced().filter(|_| moves_dir));
        // Two are exchanged in one step only where both stand for good.
        for dir in unsettled.into_iter().filter(|dir| *dir != moved || other.is_some()) {
            self.settle_place(dir);
        }
    }

    /// A file that stands only because it was edited while it was removed gets its name back for
    /// good, before another name takes the reason away.
    fn settle_kept_name(&mut self, node: NodeId) {
        let Some(link) = self.tree.link_kept_by_edit(node) else { return };
        let at = self.tree.node(link.parent).map(|dir| dir.times.ctime).unwrap_or_default();
        let version = self.next_version();
        self.enter(Op::Link { node, parent: link.parent, name: link.name, at }, version);
    }

    fn settle_place(&mut self, dir: NodeId) {
        let Some(node) = self.tree.node(dir) else { return };
        let Some(link) = node.links.first() else { return };
        let at = self.tree.node(link.parent).map(|dir| dir.times.ctime).unwrap_or_default();
        let (from, to) = ((link.parent, link.name.clone()), (link.parent, link.shown.clone()));
        let version = self.next_version();
        self.enter(Op::Rename { node: dir, from, to, target: RenameTarget::Free, at }, version);
    }
}
