//! Moving names: in one step where a filesystem would, and sensibly where two peers moved the same
//! thing, or moved directories below each other.

use super::Tree;
use super::effect::{Effect, Place};
use super::node::Link;
use crate::attr::{Kind, Timespec};
use crate::change::RenameTarget;
use crate::ids::{NodeId, Version};
use crate::name::EntryName;

impl Tree {
    pub(super) fn apply_rename(
        &mut self,
        id: NodeId,
        (from, to): (&(NodeId, EntryName), &(NodeId, EntryName)),
        target: &RenameTarget,
        at: Timespec,
        version: Version,
    ) {
        self.touch_dir(from.0, at, version);
        self.touch_dir(to.0, at, version);
        if !self.nodes.contains_key(&id) || from == to {
            return;
        }
        self.touch_ctime(id, at, version);
        match target {
            RenameTarget::Free => self.relocate(id, from, to, None, version),
            RenameTarget::Replaced { node, seen } => {
                self.touch_ctime(*node, at, version);
                self.relocate(id, from, to, Some((*node, *seen)), version);
            }
            RenameTarget::Exchanged { node } => {
                self.touch_ctime(*node, at, version);
                if !self.exchange(id, from, *node, to, version) {
                    self.relocate(*node, to, from, None, version);
                    self.relocate(id, from, to, None, version);
                }
            }
        }
    }

    /// Moves one name, if both its directory and its node are still there to move.
    fn relocate(
        &mut self,
        id: NodeId,
        from: &(NodeId, EntryName),
        to: &(NodeId, EntryName),
        replaced: Option<(NodeId, Version)>,
        version: Version,
    ) {
        if !self.nodes.contains_key(&id) {
            return;
        }
        self.living_dir(to.0);
        let refuge = (NodeId::ROOT, to.1.clone());
        let to = if self.break_cycle(id, to.0, version) { &refuge } else { to };
        if from != to {
            self.move_link(id, from, to, replaced, version);
        }
    }

    /// Two moves made apart may put each directory below the other. The newer move stands; the
    /// directory of the older one goes to the volume's root, on every replica.
    fn break_cycle(&mut self, id: NodeId, dir: NodeId, version: Version) -> bool {
        if self.nodes[&id].kind() != Kind::Dir {
            return false;
        }
        let mut newest = (id, Version::default());
        let mut up = dir;
        while up != id {
            let link = self.nodes.get(&up).and_then(|node| node.links.first());
            let Some(link) = link.filter(|_| up != NodeId::ROOT) else { return false };
            if link.version >= newest.1 {
                newest = (up, link.version);
            }
            up = link.parent;
        }
        let (below, moved) = newest;
        if below == id || version < moved {
            return true;
        }
        let link = self.nodes[&below].links[0].clone();
        let root = (NodeId::ROOT, link.name.clone());
        self.move_link(below, &(link.parent, link.name), &root, None, moved);
        false
    }

    /// Swaps two names in one step if both stand as the author saw them.
    fn exchange(
        &mut self,
        a: NodeId,
        a_place: &(NodeId, EntryName),
        b: NodeId,
        b_place: &(NodeId, EntryName),
        version: Version,
    ) -> bool {
        let plain = |tree: &Tree, id: NodeId, place: &(NodeId, EntryName)| {
            let link = tree.link_index(id, place.0, &place.1).map(|i| &tree.nodes[&id].links[i]);
            tree.lookup(place.0, place.1.as_bytes()) == Some(id)
                && link.is_some_and(|link| link.version <= version)
        };
        let crossed =
            self.has_name(a, b_place.0, &b_place.1) || self.has_name(b, a_place.0, &a_place.1);
        let nested = self.is_within(a_place.0, b) || self.is_within(b_place.0, a);
        if nested || crossed || !plain(self, a, a_place) || !plain(self, b, b_place) {
            return false;
        }
        let place = |at: &(NodeId, EntryName)| Place { dir: at.0, name: at.1.clone() };
        self.record(|tree| {
            Some(Effect::Swapped {
                a_path: tree.path_in(a_place.0, a_place.1.as_bytes())?,
                b_path: tree.path_in(b_place.0, b_place.1.as_bytes())?,
                a: place(a_place),
                b: place(b_place),
            })
        });
        for (id, from) in [(a, a_place), (b, b_place)] {
            let index = self.lose(id, from.0, &from.1, version).expect("checked above");
            self.detach(id, index);
        }
        for (id, to) in [(a, b_place), (b, a_place)] {
            self.attach(
                id,
                Link { parent: to.0, name: to.1.clone(), shown: to.1.clone(), version },
            );
        }
        true
    }

    fn move_link(
        &mut self,
        id: NodeId,
        from: &(NodeId, EntryName),
        to: &(NodeId, EntryName),
        replaced: Option<(NodeId, Version)>,
        version: Version,
    ) {
        let to_dir = self.living_dir(to.0);
        if self.superseded_dir_move(id, version) {
            return;
        }
        let lost = self.lose(id, from.0, &from.1, version);
        let source = lost.or_else(|| {
            // A directory has one name: wherever it is, it moves from there.
            (self.nodes[&id].kind() == Kind::Dir && !self.nodes[&id].links.is_empty()).then_some(0)
        });
        let others = self.nodes[&id].links.len() - usize::from(lost.is_some());
        if others == 0
            && let Some(node) = self.nodes.get_mut(&id)
        {
            // Moving never takes a node's last name, whatever was removed elsewhere meanwhile.
            node.keep(to_dir, &to.1);
        }
        let node = &self.nodes[&id];
        let barred = node.dir().is_none() && node.has_lost(to_dir, &to.1, version);
        let taken = self.link_index(id, to_dir, &to.1).is_some();
        let Some(source) = source.filter(|_| !taken && !barred) else {
            if let Some((node, seen)) = replaced {
                self.remove_replaced(node, (to_dir, &to.1), seen, version);
            }
            self.name(id, to_dir, &to.1, version);
            if lost.is_some()
                && let Some(index) = self.link_index(id, from.0, &from.1)
            {
                self.unlink_at(id, index);
            }
            return;
        };
        let clobbered = replaced
            .filter(|(node, seen)| self.replaceable(*node, (to_dir, &to.1), *seen, version));
        if clobbered.is_none()
            && let Some((node, seen)) = replaced
        {
            self.remove_replaced(node, (to_dir, &to.1), seen, version);
        }
        self.move_in_one_step(id, source, (to_dir, &to.1), clobbered.map(|c| c.0), version);
    }

    /// A directory that a newer change has moved already stays there.
    fn superseded_dir_move(&self, id: NodeId, version: Version) -> bool {
        let node = &self.nodes[&id];
        node.kind() == Kind::Dir && node.links.first().is_some_and(|link| link.version > version)
    }

    fn move_in_one_step(
        &mut self,
        id: NodeId,
        source: usize,
        (to_dir, to_name): (NodeId, &EntryName),
        clobbered: Option<NodeId>,
        version: Version,
    ) {
        let link = self.nodes[&id].links[source].clone();
        let shown = match clobbered {
            Some(_) => to_name.clone(),
            None => self.contend(to_dir, to_name, id, version),
        };
        let (from, to) = (self.shown_place(&link), Place { dir: to_dir, name: shown.clone() });
        self.record_move(id, from, to, clobbered);
        if let Some(gone) = clobbered
            && let Some(index) = self.lose(gone, to_dir, to_name, version)
        {
            self.detach(gone, index);
        }
        self.detach(id, source);
        self.attach(id, Link { parent: to_dir, name: to_name.clone(), shown, version });
        if link.shown == link.name {
            self.promote(&link);
        }
    }

    /// Whether `node` stands at the target just as the author of a rename saw it.
    fn replaceable(
        &self,
        node: NodeId,
        to: (NodeId, &EntryName),
        seen: Version,
        version: Version,
    ) -> bool {
        let link = self.link_index(node, to.0, to.1).map(|i| &self.nodes[&node].links[i]);
        self.lookup(to.0, to.1.as_bytes()) == Some(node)
            && link.is_some_and(|link| link.version <= version)
            && !self.survives_removal(node, seen)
    }

    fn remove_replaced(
        &mut self,
        node: NodeId,
        at: (NodeId, &EntryName),
        seen: Version,
        version: Version,
    ) {
        if !self.survives_removal(node, seen)
            && let Some(index) = self.lose(node, at.0, at.1, version)
        {
            self.unlink_at(node, index);
        }
    }
}
