//! Directories that were moved below each other. Of the directories of a cycle the one whose move
//! is the oldest is shown in the root; with that the others hang below it.
//!
//! Which one follows from the claims of the directories alone, removed ones included.

use super::{Node, Tree};
use crate::ids::{NodeId, Version};
use std::collections::HashSet;

impl Tree {
    /// The place of the directory `moved` has changed: answers the directories that must now be
    /// shown in the root, and those that no longer are.
    pub(super) fn update_displaced(&mut self, moved: NodeId) -> (Vec<NodeId>, Vec<NodeId>) {
        let stale = |id: &NodeId| self.displaced_in_cycle_of(*id) != Some(*id);
        let back: Vec<NodeId> = self.displaced.iter().copied().filter(stale).collect();
        self.displaced.retain(|id| !back.contains(id));
        let fresh = self.displaced_in_cycle_of(moved).filter(|id| self.displaced.insert(*id));
        (fresh.into_iter().collect(), back)
    }

    /// Looks for all cycles, after loading.
    pub(super) fn find_displaced(&mut self) {
        let mut seen = HashSet::new();
        let mut dirs: Vec<NodeId> =
            self.iter().filter(|(_, node)| node.dir().is_some()).map(|(id, _)| id).collect();
        dirs.sort_unstable();
        for dir in dirs {
            let mut up = Some(dir);
            let mut path = Vec::new();
            while let Some(id) = up.filter(|id| *id != NodeId::ROOT && seen.insert(*id)) {
                path.push(id);
                up = self.claimed_parent(id);
            }
            if let Some(id) = up.filter(|id| path.contains(id)) {
                self.displaced.extend(self.displaced_in_cycle_of(id));
            }
        }
    }

    /// Directories shown in the root although their place is elsewhere.
    pub(crate) fn displaced(&self) -> impl Iterator<Item = NodeId> {
        self.displaced.iter().copied()
    }

    /// If `id` is in a cycle, the directory of it that goes to the root.
    fn displaced_in_cycle_of(&self, id: NodeId) -> Option<NodeId> {
        let mut oldest: Option<(Version, NodeId)> = None;
        let mut seen = HashSet::new();
        let mut up = id;
        while up != NodeId::ROOT && seen.insert(up) {
            let (parent, _, version, _) = self.nodes.get(&up)?.dir_claim()?;
            oldest = Some(oldest.map_or((version, up), |known| known.min((version, up))));
            up = parent;
        }
        oldest.filter(|_| up == id && id != NodeId::ROOT).map(|(_, id)| id)
    }

    fn claimed_parent(&self, id: NodeId) -> Option<NodeId> {
        self.nodes
            .get(&id)
            .filter(|node| node.dir().is_some())
            .and_then(Node::dir_claim)
            .map(|c| c.0)
    }
}
