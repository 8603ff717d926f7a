//! Adding and removing names: the only code that changes a directory.

use super::conflict::shadow_name;
use super::effect::{Effect, Place};
use super::node::Link;
use super::{Tree, conflict_name};
use crate::ids::{NodeId, Version};
use crate::name::EntryName;
use crate::planted::{self, Bug};

/// How many taken conflict names of one link are given back when they become free.
const CONFLICT_NAMES_AVOIDED_MAX: usize = 8;

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
            self.note_avoided(id, &link);
        }
        self.touched.insert(id);
        self.unlinked.remove(&id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.links.push(link);
        }
        self.compact(id);
    }

    /// Takes the link at `index` away from `node`.
    pub(super) fn detach(&mut self, id: NodeId, index: usize) -> Link {
        self.touched.insert(id);
        let node = self.nodes.get_mut(&id).expect("callers hold an existing node");
        let is_dir = node.dir().is_some();
        if node.links.len() == 1 {
            node.claims_mut();
        }
        let link = node.links.remove(index);
        if node.links.is_empty() {
            self.unlinked.insert(id);
            self.remembering.insert(id);
        }
        if let Some(dir) = self.nodes.get_mut(&link.parent).and_then(super::Node::dir_mut) {
            dir.remove(&link.shown);
            dir.subdirs -= u32::from(is_dir);
            self.idle.insert(link.parent);
        }
        if link.shown != link.name {
            let place = Place { dir: link.parent, name: link.name.clone() };
            if let Some(nodes) = self.shadows.get_mut(&place) {
                nodes.retain(|n| *n != id);
                if nodes.is_empty() {
                    self.shadows.remove(&place);
                }
            }
            self.avoided.retain(|avoided, by| {
                if avoided.dir == link.parent {
                    by.remove(&(id, link.name.clone()));
                }
                !by.is_empty()
            });
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

    /// The name of `freed` was shown and is free again: of the nodes that want it, the newest shows
    /// it; if none does, a conflict name that had avoided it takes it.
    pub(super) fn freed(&mut self, freed: &Link) {
        if freed.shown != freed.name {
            return;
        }
        let place = Place { dir: freed.parent, name: freed.name.clone() };
        if self.lookup(place.dir, place.name.as_bytes()).is_some() {
            return;
        }
        let ranked = |id: &NodeId| Some((self.claim_version(*id, &place)?, *id));
        let newest = self.shadows.get(&place).and_then(|ids| ids.iter().filter_map(ranked).max());
        if let Some((_, id)) = newest
            && let Some(index) = self.link_index(id, place.dir, &place.name)
        {
            return self.show_as(id, index, place.name);
        }
        for (id, name) in self.avoided.remove(&place).unwrap_or_default() {
            if let Some(index) = self.link_index(id, place.dir, &name) {
                let shown = self.shadow_name(&Place { dir: place.dir, name }, id);
                self.show_as(id, index, shown);
            }
        }
    }

    /// Version of the link that gives `id` the name `place`.
    fn claim_version(&self, id: NodeId, place: &Place) -> Option<Version> {
        let index = self.link_index(id, place.dir, &place.name)?;
        Some(self.nodes[&id].links[index].version)
    }

    /// Whether a node that is not shown under the name `place` would show it rather than `id`.
    pub(super) fn is_outranked(&self, place: &Place, id: NodeId, version: Version) -> bool {
        let waiting = self.shadows.get(place).into_iter().flatten();
        let ranked = |other: &NodeId| Some((self.claim_version(*other, place)?, *other));
        waiting.filter(|other| **other != id).filter_map(ranked).any(|other| other > (version, id))
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

    /// The name under which a link of `version` at `place` is to be shown. Whatever is shown there
    /// moves aside if the link wins the name from it.
    pub(super) fn contend(&mut self, place: &Place, id: NodeId, version: Version) -> EntryName {
        let Some((holder, index)) = self.holder(place) else { return place.name.clone() };
        let link = self.nodes[&holder].links[index].clone();
        // A conflict name gives way to whoever wants it for a name.
        let first = planted::has(Bug::FirstComeFirstShown);
        if link.name == place.name && (first || (link.version, holder) > (version, id)) {
            return self.shadow_name(place, id);
        }
        self.move_aside(holder, index);
        place.name.clone()
    }

    /// The link at `index` of `id` has a new version: it may win its name now.
    pub(super) fn contend_again(&mut self, id: NodeId, index: usize) {
        let link = self.nodes[&id].links[index].clone();
        let place = Place { dir: link.parent, name: link.name.clone() };
        if link.shown != link.name && self.contend(&place, id, link.version) == link.name {
            let index = self.link_index(id, link.parent, &link.name).expect("it still has it");
            self.show_as(id, index, link.name);
        }
    }

    /// The link shown at `place`.
    fn holder(&self, place: &Place) -> Option<(NodeId, usize)> {
        let holder = self.lookup(place.dir, place.name.as_bytes())?;
        let shown = |link: &Link| link.parent == place.dir && link.shown == place.name;
        Some((holder, self.nodes[&holder].links.iter().position(shown)?))
    }

    fn move_aside(&mut self, holder: NodeId, index: usize) {
        let link = &self.nodes[&holder].links[index];
        let place = Place { dir: link.parent, name: link.name.clone() };
        let aside = self.shadow_name(&place, holder);
        self.show_as(holder, index, aside);
    }

    /// The conflict name of a link that lost `place`: the first of a fixed sequence that nobody
    /// wants for a name.
    fn shadow_name(&self, place: &Place, loser: NodeId) -> EntryName {
        let mut shadow = shadow_name(&place.name, self.host(loser.slot()), loser);
        while self.lookup(place.dir, shadow.as_bytes()).is_some() {
            shadow = shadow_name(&shadow, "", loser);
        }
        shadow
    }

    /// Remembers which names the conflict name of `link` avoids.
    pub(super) fn note_avoided(&mut self, id: NodeId, link: &Link) {
        let mut shadow = shadow_name(&link.name, self.host(id.slot()), id);
        for _ in 0..CONFLICT_NAMES_AVOIDED_MAX {
            if shadow == link.shown {
                return;
            }
            let place = Place { dir: link.parent, name: shadow.clone() };
            self.avoided.entry(place).or_default().insert((id, link.name.clone()));
            shadow = shadow_name(&shadow, "", id);
        }
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
