//! Moving names, and what stood where they go.

use super::Tree;
use super::effect::{Effect, Place};
use super::node::{Link, Node};
use crate::attr::Timespec;
use crate::change::RenameTarget;
use crate::ids::{NodeId, Version};
use crate::name::EntryName;
use crate::planted::{self, Bug};

type At = (NodeId, EntryName);

impl Tree {
    pub(super) fn apply_rename(
        &mut self,
        id: NodeId,
        (from, to): (&At, &At),
        target: &RenameTarget,
        at: Timespec,
        version: Version,
    ) {
        // A directory put where it is moves nothing.
        if from != to {
            self.touch_dir(from.0, at, version);
            self.touch_dir(to.0, at, version);
            self.touch_ctime(id, at, version);
        }
        match target {
            RenameTarget::Free => self.move_claim(id, from, to, version),
            RenameTarget::Replaced { node, seen } => {
                self.touch_ctime(*node, at, version);
                self.take_claim(*node, to, version, *seen);
                self.move_claim(id, from, to, version);
            }
            RenameTarget::Exchanged { node } => {
                self.touch_ctime(*node, at, version);
                self.exchange((id, from), (*node, to), version);
                return;
            }
        }
        let replaced = match target {
            RenameTarget::Replaced { node, .. } => Some(*node),
            _ => None,
        };
        self.reconcile_move(id, replaced);
    }

    /// Claims only; the node is shown by what follows.
    fn move_claim(&mut self, id: NodeId, from: &At, to: &At, version: Version) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let dir = node.dir().is_some();
        let claims = node.claims_mut();
        if !dir && from != to {
            claims.take(from.0, &from.1, version, dir);
        }
        let to_dir = if planted::has(Bug::RetargetWrongly) { from.0 } else { to.0 };
        claims.give(to_dir, &to.1, version, dir);
    }

    /// A name of `id` is taken by one who had seen the content `seen` if it was meant to be the
    /// last name, or none.
    pub(super) fn take_claim(&mut self, id: NodeId, at: &At, version: Version, seen: Version) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let dir = node.dir().is_some();
        let claims = node.claims_mut();
        claims.take(at.0, &at.1, version, dir);
        let seen = if planted::has(Bug::ForgetSeen) { version } else { seen };
        claims.removed_at = claims.removed_at.max(seen);
    }

    /// `id` has a new place; directories it was or is in a cycle with move as well.
    pub(super) fn reconcile_move(&mut self, id: NodeId, replaced: Option<NodeId>) {
        let is_dir = self.nodes.get(&id).is_some_and(|node| node.dir().is_some());
        let (displaced, back) = match is_dir {
            true => self.update_displaced(id),
            false => Default::default(),
        };
        displaced.iter().for_each(|dir| self.place(*dir, None));
        self.reconcile(id, replaced);
        back.iter().for_each(|dir| self.place(*dir, None));
        self.drop_idle_dirs();
    }

    /// Swaps two names: in one step if both stand as the author saw them.
    fn exchange(&mut self, (a, a_at): (NodeId, &At), (b, b_at): (NodeId, &At), version: Version) {
        let is_dir = |id: NodeId| self.nodes.get(&id).is_some_and(|node| node.dir().is_some());
        let plain = self.is_plain(a, a_at, version)
            && self.is_plain(b, b_at, version)
            && !self.has_name(a, b_at.0, &b_at.1)
            && !self.has_name(b, a_at.0, &a_at.1)
            && !self.is_within(a_at.0, b)
            && !self.is_within(b_at.0, a)
            && (self.displaced.is_empty() || !is_dir(a) && !is_dir(b));
        self.move_claim(a, a_at, b_at, version);
        self.move_claim(b, b_at, a_at, version);
        let takes = |tree: &Tree, id, at: &At| {
            let due = tree.due(id);
            let is =
                |at: &At| due.iter().any(|due| due.place.dir == at.0 && due.place.name == at.1);
            is(at)
        };
        let swaps = plain
            && takes(self, a, b_at)
            && takes(self, b, a_at)
            && !takes(self, a, a_at)
            && !takes(self, b, b_at);
        if swaps {
            self.swap((a, a_at), (b, b_at), version);
        }
        self.reconcile_move(b, None);
        self.reconcile_move(a, None);
    }

    /// Whether `id` is shown at `at` as its author named it, by a change not newer than `version`.
    fn is_plain(&self, id: NodeId, at: &At, version: Version) -> bool {
        let link = self.link_index(id, at.0, &at.1).map(|index| &self.nodes[&id].links[index]);
        link.is_some_and(|link| link.shown == at.1 && link.version <= version)
    }

    fn swap(&mut self, (a, a_at): (NodeId, &At), (b, b_at): (NodeId, &At), version: Version) {
        let place = |at: &At| Place { dir: at.0, name: at.1.clone() };
        self.record(|tree| {
            Some(Effect::Swapped {
                a_path: tree.path_in(a_at.0, a_at.1.as_bytes())?,
                b_path: tree.path_in(b_at.0, b_at.1.as_bytes())?,
                a: place(a_at),
                b: place(b_at),
            })
        });
        for (id, from) in [(a, a_at), (b, b_at)] {
            if let Some(index) = self.link_index(id, from.0, &from.1) {
                self.detach(id, index);
            }
        }
        for (id, to) in [(a, b_at), (b, a_at)] {
            let (parent, name) = to.clone();
            self.attach(id, Link { parent, shown: name.clone(), name, version });
        }
    }

    /// Whether `dir` is shown at `top` or below it.
    fn is_within(&self, dir: NodeId, top: NodeId) -> bool {
        let mut up = dir;
        while up != top {
            let link = self.nodes.get(&up).and_then(|node: &Node| node.links.first());
            let Some(link) = link else { return false };
            up = link.parent;
        }
        true
    }
}
