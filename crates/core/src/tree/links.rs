//! Adding and removing names: the only code that changes a directory.

use super::conflict::shadow_name;
use super::effect::{Effect, Place};
use super::node::Link;
use super::{Tree, conflict_name};
use crate::ids::{NodeId, Version};
use crate::name::EntryName;

impl Tree {
    /// Shows `node` under `shown` in its link's directory.
    pub(super) fn attach(&mut self, id: NodeId, link: Link) {
        let is_dir = self.nodes[&id].dir().is_some();
        if let Some(dir) = self.nodes.get_mut(&link.parent).and_then(super::Node::dir_mut) {
            dir.insert(link.shown.clone(), id);
            dir.subdirs += u32::from(is_dir);
        }
        if link.shown != link.name {
            let place = Place { dir: link.parent, name: link.name.clone() };
            self.shadows.entry(place).or_default().push(id);
        }
        self.touched.insert(id);
        self.unlinked.remove(&id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.links.push(link);
            node.last_link = None;
        }
    }

    /// Takes the link at `index` away from `node`.
    pub(super) fn detach(&mut self, id: NodeId, index: usize) -> Link {
        self.touched.insert(id);
        let node = self.nodes.get_mut(&id).expect("callers hold an existing node");
        let is_dir = node.dir().is_some();
        let link = node.links.remove(index);
        if node.links.is_empty() {
            node.last_link = Some(link.clone());
            self.unlinked.insert(id);
        }
        if let Some(dir) = self.nodes.get_mut(&link.parent).and_then(super::Node::dir_mut) {
            dir.remove(&link.shown);
            dir.subdirs -= u32::from(is_dir);
        }
        if link.shown != link.name {
            let place = Place { dir: link.parent, name: link.name.clone() };
            if let Some(nodes) = self.shadows.get_mut(&place) {
                nodes.retain(|n| *n != id);
                if nodes.is_empty() {
                    self.shadows.remove(&place);
                }
            }
        }
        link
    }

    /// Whether `id` has the name that its author called `name` in `parent`, shown so or not.
    pub fn has_name(&self, id: NodeId, parent: NodeId, name: &EntryName) -> bool {
        self.link_index(id, parent, name).is_some()
    }

    /// Position of the link of `id` that its author called `name` in `parent`.
    pub(super) fn link_index(&self, id: NodeId, parent: NodeId, name: &EntryName) -> Option<usize> {
        self.nodes.get(&id)?.links.iter().position(|l| l.parent == parent && l.name == *name)
    }

    /// The place under which users see the link that its author called (`parent`, `name`).
    pub(super) fn shown_place(&self, link: &Link) -> Place {
        Place { dir: link.parent, name: link.shown.clone() }
    }

    /// Removes the link at `index`, with its effect.
    pub(super) fn unlink_at(&mut self, id: NodeId, index: usize) {
        let link = self.nodes[&id].links[index].clone();
        let is_dir = self.nodes[&id].dir().is_some();
        let place = self.shown_place(&link);
        self.record(|tree| {
            let path = tree.path_in(link.parent, link.shown.as_bytes())?;
            Some(Effect::Removed { node: id, place, path, is_dir })
        });
        self.detach(id, index);
        if link.shown == link.name {
            self.promote(&link);
        }
    }

    /// The name of `freed` is free again: of the nodes that wanted it, the newest now shows it.
    pub(super) fn promote(&mut self, freed: &Link) {
        let place = Place { dir: freed.parent, name: freed.name.clone() };
        let Some(waiting) = self.shadows.get(&place) else { return };
        let newest = waiting.iter().max_by_key(|id| {
            self.link_index(**id, place.dir, &place.name)
                .map(|index| self.nodes[id].links[index].version)
        });
        if let Some(id) = newest.copied()
            && let Some(index) = self.link_index(id, place.dir, &place.name)
        {
            self.show_as(id, index, place.name);
        }
    }

    /// Records that `node` moves between two shown places, while it still stands at the first.
    pub(super) fn record_move(
        &mut self,
        node: NodeId,
        from: Place,
        to: Place,
        replaced: Option<NodeId>,
    ) {
        self.record(|tree| {
            Some(Effect::Moved {
                node,
                from_path: tree.path_in(from.dir, from.name.as_bytes())?,
                to_path: tree.path_in(to.dir, to.name.as_bytes())?,
                from,
                to,
                replaced,
            })
        });
    }

    /// Shows the link at `index` of `id` under another name in the same directory.
    pub(super) fn show_as(&mut self, id: NodeId, index: usize, shown: EntryName) {
        let link = self.nodes[&id].links[index].clone();
        let from = self.shown_place(&link);
        let to = Place { dir: link.parent, name: shown.clone() };
        self.record_move(id, from, to, None);
        self.detach(id, index);
        self.attach(id, Link { shown, ..link });
    }

    /// Moves whatever is shown at (`parent`, `name`) aside if `version` wins the name from it.
    /// Answers the name under which a link of `version` is to be shown.
    pub(super) fn contend(
        &mut self,
        parent: NodeId,
        name: &EntryName,
        id: NodeId,
        version: Version,
    ) -> EntryName {
        let Some(holder) = self.lookup(parent, name.as_bytes()) else { return name.clone() };
        let holder_link = self.nodes[&holder]
            .links
            .iter()
            .position(|l| l.parent == parent && l.shown == *name)
            .expect("a shown name has its link");
        let held = self.nodes[&holder].links[holder_link].version;
        if version > held {
            let aside = self.shadow_name(parent, name, holder);
            self.show_as(holder, holder_link, aside);
            name.clone()
        } else {
            self.shadow_name(parent, name, id)
        }
    }

    fn shadow_name(&self, parent: NodeId, name: &EntryName, loser: NodeId) -> EntryName {
        let mut shadow = shadow_name(name, self.host(loser.slot()), loser);
        while self.lookup(parent, shadow.as_bytes()).is_some() {
            shadow = shadow_name(&shadow, "", loser);
        }
        shadow
    }

    /// A free name in `parent` that says that `node` lost the name `name`.
    pub fn free_conflict_name(&self, parent: NodeId, name: &EntryName, node: NodeId) -> EntryName {
        let mtime = self.nodes.get(&node).map(|n| n.times.mtime).unwrap_or_default();
        (0..)
            .map(|attempt| conflict_name(name, self.host(node.slot()), mtime, attempt))
            .find(|candidate| self.lookup(parent, candidate.as_bytes()).is_none())
            .expect("a directory cannot hold every candidate")
    }

    /// A free conflict name beside the first name of `loser`; in a git repository one that git
    /// ignores.
    pub(crate) fn name_beside(&self, loser: NodeId) -> Option<(NodeId, EntryName)> {
        let link = self.nodes.get(&loser)?.links.first()?;
        if self.in_repository(link.parent).is_some() {
            let mut name = shadow_name(&link.shown, self.host(loser.slot()), loser);
            while self.lookup(link.parent, name.as_bytes()).is_some() {
                name = shadow_name(&name, "", loser);
            }
            return Some((link.parent, name));
        }
        Some((link.parent, self.free_conflict_name(link.parent, &link.shown, loser)))
    }

    /// The links shown under another name than their author's whose author is `slot`:
    /// (node, author's place, shown name).
    pub(crate) fn shadows_of(&self, slot: crate::Slot) -> Vec<(NodeId, Place, EntryName)> {
        let mut found = Vec::new();
        for (place, nodes) in &self.shadows {
            for id in nodes {
                if let Some(index) = self.link_index(*id, place.dir, &place.name) {
                    let link = &self.nodes[id].links[index];
                    if link.version.slot == slot {
                        found.push((*id, place.clone(), link.shown.clone()));
                    }
                }
            }
        }
        found
    }
}
