//! Showing each node where its claims say: the difference between the names a node is shown under
//! and those it ought to have becomes moves, removals and new names, in an order a disk can follow.

use super::claim::Claim;
use super::effect::{Effect, Place};
use super::node::{Link, NodeBody};
use super::{Node, Tree};
use crate::ids::{NodeId, Version};
use crate::name::EntryName;
use crate::planted::{self, Bug};

/// A name that a node ought to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub place: Place,
    pub version: Version,
}

impl Due {
    fn shown_as(&self, shown: EntryName) -> Link {
        let Place { dir, name } = self.place.clone();
        Link { parent: dir, name, shown, version: self.version }
    }

    fn is(&self, link: &Link) -> bool {
        link.parent == self.place.dir && link.name == self.place.name
    }
}

impl Tree {
    /// The names that `id` ought to have.
    pub(super) fn due(&self, id: NodeId) -> Vec<Due> {
        let Some(node) = self.nodes.get(&id) else { return Vec::new() };
        if let NodeBody::Dir(entries) = &node.body {
            let is_held = !entries.is_empty() && !planted::has(Bug::ForgetEntries);
            let stands = node.dir_claim().is_some_and(|claim| claim.3) || is_held;
            return self.dir_due(id).filter(|_| stands).into_iter().collect();
        }
        let claims = node.claims();
        let standing = claims.standing(self.seen_version(id));
        let due = standing.into_iter().map(|claim| Due {
            place: Place { dir: self.dir_or_root(claim.parent), name: claim.name.clone() },
            version: claim.given,
        });
        let mut due: Vec<Due> = due.collect();
        // Two claims in directories that are gone may meet in the root.
        due.sort_by(|a, b| (&a.place, b.version).cmp(&(&b.place, a.version)));
        due.dedup_by(|a, b| a.place == b.place);
        due
    }

    /// Where the directory `id` ought to be if it stands.
    fn dir_due(&self, id: NodeId) -> Option<Due> {
        let (parent, name, version, _) = self.nodes.get(&id)?.dir_claim()?;
        let dir = match self.displaced.contains(&id) {
            true => NodeId::ROOT,
            false => self.dir_or_root(parent),
        };
        Some(Due { place: Place { dir, name }, version })
    }

    fn dir_or_root(&self, id: NodeId) -> NodeId {
        match self.nodes.get(&id).map(|node| node.dir().is_some()) {
            Some(true) => id,
            _ => NodeId::ROOT,
        }
    }

    /// What a removal of `id` that has seen all of it has seen: the newest content of a file.
    pub(crate) fn seen_version(&self, id: NodeId) -> Version {
        match self.nodes.get(&id).and_then(Node::file) {
            Some(file) => file.newest_version(),
            None => Version { lamport: 0, slot: id.slot() },
        }
    }

    /// Whether the directory `id` was removed and stands only because something is in it.
    pub(crate) fn is_held_by_entries(&self, id: NodeId) -> bool {
        let claim =
            self.nodes.get(&id).filter(|node| node.dir().is_some()).and_then(Node::dir_claim);
        claim.is_some_and(|claim| !claim.3)
    }

    /// The name of a file whose names were all taken, and that stands nevertheless.
    pub(crate) fn link_kept_by_edit(&self, id: NodeId) -> Option<Link> {
        let node = self.nodes.get(&id)?;
        let claims = node.history.as_ref()?;
        let is_kept = node.dir().is_none() && !claims.names.iter().any(Claim::stands);
        node.links.first().filter(|_| is_kept).cloned()
    }

    /// Whether `id` once had a name and lost it to a change that may be newer than others.
    pub(crate) fn was_taken(&self, id: NodeId, parent: NodeId, name: &EntryName) -> bool {
        let history = self.nodes.get(&id).and_then(|node| node.history.as_ref());
        history.is_some_and(|claims| {
            claims
                .names
                .iter()
                .any(|claim| !claim.stands() && claim.parent == parent && claim.name == *name)
        })
    }

    /// The claims of `id` and of what it `replaces` have changed: both are shown accordingly.
    pub(super) fn reconcile(&mut self, id: NodeId, replaces: Option<NodeId>) {
        let moves_on = |tree: &Tree, other: NodeId| {
            let links = tree.nodes.get(&other).map_or(&[][..], |node| &node.links);
            tree.due(other).iter().any(|due| !links.iter().any(|link| due.is(link)))
        };
        let clobbered = replaces.filter(|other| !moves_on(self, *other));
        if clobbered.is_none() {
            replaces.into_iter().for_each(|other| self.place(other, None));
        }
        self.place(id, clobbered);
        clobbered.into_iter().for_each(|other| self.place(other, None));
        self.drop_idle_dirs();
    }

    /// Shows `id` under the names it ought to have. A name that `clobbered` loses in the same
    /// change is taken over in one step.
    pub(super) fn place(&mut self, id: NodeId, clobbered: Option<NodeId>) {
        if !self.nodes.contains_key(&id) || id == NodeId::ROOT {
            return;
        }
        let due = self.due(id);
        let links = self.nodes[&id].links.clone();
        let mut gone: Vec<&Link> =
            links.iter().filter(|link| !due.iter().any(|due| due.is(link))).collect();
        for due in &due {
            if links.iter().any(|link| due.is(link)) {
                self.renew(id, due);
                continue;
            }
            self.revive(due.place.dir);
            match gone.is_empty() {
                true => self.show(id, due),
                false => self.transfer(id, gone.remove(0), due, clobbered),
            }
        }
        for link in gone {
            self.hide(id, link);
        }
        self.compact(id);
    }

    pub(super) fn compact(&mut self, id: NodeId) {
        self.touched.insert(id);
        match self.nodes.get_mut(&id).is_some_and(Node::compact_claims) {
            true => self.remembering.insert(id),
            false => self.remembering.remove(&id),
        };
    }

    /// A name the node has already was given once more.
    fn renew(&mut self, id: NodeId, due: &Due) {
        let Some(index) = self.link_index(id, due.place.dir, &due.place.name) else { return };
        let node = self.nodes.get_mut(&id).expect("it has a link");
        if node.links[index].version != due.version {
            node.links[index].version = due.version;
            self.touched.insert(id);
            self.contend_again(id, index);
        }
    }

    /// A name for a node that keeps all it has.
    fn show(&mut self, id: NodeId, due: &Due) {
        let shown = self.contend(&due.place, id, due.version);
        let existing = self.path(id);
        if existing.is_none() {
            self.reappear(id);
        }
        let link = due.shown_as(shown.clone());
        self.attach(id, link);
        let place = Place { dir: due.place.dir, name: shown };
        self.record(|tree| {
            let path = tree.path_in(place.dir, place.name.as_bytes())?;
            Some(match existing {
                Some(existing) => Effect::Linked { node: id, existing, place, path },
                None => Effect::Made { node: id, place, path },
            })
        });
    }

    /// What a peer's change brings back has no bytes here any more.
    fn reappear(&mut self, id: NodeId) {
        if self.is_local {
            return;
        }
        let Some(node) = self.node_mut(id) else { return };
        node.forget_writes();
        let Some(file) = node.file_mut() else { return };
        let incoming = file.incoming;
        let (content, version) = match incoming {
            Some(incoming) => (incoming.content, incoming.version),
            None => (file.content, file.version),
        };
        file.show_absent(content, version);
        if let Some(incoming) = incoming {
            self.adopt_attributes(id, &incoming);
        }
    }

    /// One name becomes another.
    fn transfer(&mut self, id: NodeId, from: &Link, due: &Due, clobbered: Option<NodeId>) {
        let replaced = clobbered.filter(|other| self.is_replaceable(*other, id, due));
        let shown = match replaced {
            Some(_) => due.place.name.clone(),
            None => self.contend(&due.place, id, due.version),
        };
        // Contending may have shown it elsewhere.
        let Some(index) = self.link_index(id, from.parent, &from.name) else { return };
        let from = self.nodes[&id].links[index].clone();
        let to = Place { dir: due.place.dir, name: shown.clone() };
        self.record_move(id, self.shown_place(&from), to, replaced);
        if let Some(other) = replaced
            && let Some(index) = self.link_index(other, due.place.dir, &due.place.name)
        {
            self.detach(other, index);
        }
        self.detach(id, index);
        self.attach(id, due.shown_as(shown));
        self.freed(&from);
    }

    /// Whether `other` stands where `id` goes, may go in the same step, and nobody else wants the
    /// name more.
    fn is_replaceable(&self, other: NodeId, id: NodeId, due: &Due) -> bool {
        let is_dir = |id: NodeId| self.nodes.get(&id).is_some_and(|node| node.dir().is_some());
        self.lookup(due.place.dir, due.place.name.as_bytes()) == Some(other)
            && self.has_name(other, due.place.dir, &due.place.name)
            && !self.due(other).iter().any(|kept| kept.place == due.place)
            && is_dir(other) == is_dir(id)
            && !self.is_outranked(&due.place, id, due.version)
    }

    /// Takes a name away.
    pub(super) fn hide(&mut self, id: NodeId, link: &Link) {
        let Some(index) = self.link_index(id, link.parent, &link.name) else { return };
        let link = self.nodes[&id].links[index].clone();
        let is_dir = self.nodes[&id].dir().is_some();
        let place = self.shown_place(&link);
        self.record(|tree| {
            let path = tree.path_in(link.parent, link.shown.as_bytes())?;
            Some(Effect::Removed { node: id, place, path, is_dir })
        });
        self.detach(id, index);
        self.freed(&link);
    }

    /// Something is about to stand in `dir`: if it was removed, it comes back, with the directories
    /// above it.
    fn revive(&mut self, dir: NodeId) {
        let mut absent = Vec::new();
        let mut up = dir;
        while up != NodeId::ROOT && self.nodes.get(&up).is_some_and(|node| node.links.is_empty()) {
            let Some(due) = self.dir_due(up) else { break };
            absent.push(up);
            up = due.place.dir;
        }
        for dir in absent.into_iter().rev() {
            if let Some(due) = self.dir_due(dir) {
                self.show(dir, &due);
            }
        }
    }

    /// Removed directories go when the last thing in them does.
    pub(super) fn drop_idle_dirs(&mut self) {
        while let Some(dir) = self.idle.pop_first() {
            let Some(link) = self.nodes.get(&dir).and_then(|node| node.links.first()) else {
                continue;
            };
            let link = link.clone();
            if self.due(dir).is_empty() {
                self.hide(dir, &link);
                self.compact(dir);
            }
        }
    }
}
