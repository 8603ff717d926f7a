//! How one change alters the tree. Total: whatever the state, a change of a known author does
//! something sensible, and two replicas that have applied the same changes show the same tree.

use super::Tree;
use super::effect::{Effect, Place};
use super::node::{Incoming, Link, Node, NodeBody};
use crate::attr::{Kind, Perm, Times, Timespec};
use crate::change::{Body, Change, Op, RenameTarget};
use crate::content::ContentRef;
use crate::ids::{NodeId, Version};
use crate::name::EntryName;

impl Tree {
    /// Applies a peer's change; what disk and kernel have to do follows in the answer.
    pub fn apply_remote(&mut self, change: &Change) -> Vec<Effect> {
        self.recording = Some(Vec::new());
        self.apply(&change.op, change.version);
        let mut effects = self.recording.take().unwrap_or_default();
        effects.sort_by_key(Effect::is_about_attributes);
        effects.dedup();
        effects
    }

    /// Applies a change of this replica, whose effects on disk were made already.
    pub(crate) fn apply_local(&mut self, op: &Op, version: Version) {
        self.recording = None;
        self.apply(op, version);
    }

    fn apply(&mut self, op: &Op, version: Version) {
        match op {
            Op::Create { node, parent, name, body, perm, times, xattrs, at } => {
                let fresh = Fresh { body, perm: *perm, times: *times, xattrs, at: *at };
                self.apply_create(*node, (*parent, name), &fresh, version);
            }
            Op::Link { node, parent, name, at } => {
                self.apply_link(*node, (*parent, name), *at, version);
            }
            Op::Unlink { node, parent, name, seen, at } => {
                self.apply_unlink(*node, (*parent, name), *seen, *at, version);
            }
            Op::Rename { node, from, to, target, at } => {
                self.apply_rename(*node, (from, to), target, *at, version);
            }
            Op::SetPerm { node, perm, ctime } => self.apply_perm(*node, *perm, *ctime, version),
            Op::SetTimes { node, times } => self.apply_times(*node, *times, version),
            Op::SetXattr { node, name, value, ctime } => {
                self.apply_xattr(*node, name, value.as_deref(), *ctime, version);
            }
            Op::Content { node, content, times, perm, .. } => {
                let incoming = Incoming { content: *content, version, times: *times, perm: *perm };
                self.apply_content(*node, incoming);
            }
        }
    }

    fn apply_create(
        &mut self,
        id: NodeId,
        (parent, name): (NodeId, &EntryName),
        fresh: &Fresh<'_>,
        version: Version,
    ) {
        if self.nodes.contains_key(&id) {
            return;
        }
        let mut node = Node::new(fresh.body, fresh.perm, fresh.times, version);
        for (name, value) in fresh.xattrs {
            node.xattrs.insert(name.clone(), (version, Some(value.clone())));
        }
        if self.recording.is_none()
            && let Some(file) = node.file_mut()
        {
            file.resident = true;
        }
        self.nodes.insert(id, node);
        self.name(id, parent, name, version);
        self.touch_dir(parent, fresh.at, version);
    }

    /// Gives `id` the name (`parent`, `name`), contending for it if it is taken.
    fn name(&mut self, id: NodeId, parent: NodeId, name: &EntryName, version: Version) {
        let parent = self.living_dir(parent);
        if let Some(index) = self.link_index(id, parent, name) {
            let node = self.nodes.get_mut(&id).expect("it has a link");
            let link = &mut node.links[index];
            link.version = link.version.max(version);
            return;
        }
        if self.nodes[&id].dir().is_none() && self.nodes[&id].has_lost(parent, name, version) {
            return;
        }
        let shown = self.contend(parent, name, id, version);
        let existing = self.path(id).filter(|_| id != NodeId::ROOT);
        self.attach(id, Link { parent, name: name.clone(), shown: shown.clone(), version });
        let place = Place { dir: parent, name: shown };
        self.record(|tree| {
            let path = tree.path_in(place.dir, place.name.as_bytes())?;
            Some(match existing {
                Some(existing) => Effect::Linked { node: id, existing, place, path },
                None => Effect::Made { node: id, place, path },
            })
        });
    }

    /// `dir` if it has a name; else it gets its last one back, for a removed directory in which a
    /// peer created something meanwhile must not swallow it. Unknown directories become the root.
    fn living_dir(&mut self, dir: NodeId) -> NodeId {
        match self.nodes.get(&dir) {
            Some(node) if node.kind() == Kind::Dir => {
                self.revive(dir);
                dir
            }
            _ => NodeId::ROOT,
        }
    }

    /// Gives an unlinked node its last name back. Whether it did.
    fn revive(&mut self, id: NodeId) -> bool {
        let last =
            self.nodes.get(&id).filter(|n| n.is_unlinked()).and_then(|n| n.last_link.clone());
        let Some(last) = last else { return false };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.keep(last.parent, &last.name);
        }
        self.name(id, last.parent, &last.name, last.version);
        true
    }

    fn apply_link(
        &mut self,
        id: NodeId,
        (parent, name): (NodeId, &EntryName),
        at: Timespec,
        version: Version,
    ) {
        if self.nodes.get(&id).is_none_or(|node| node.kind() == Kind::Dir) {
            return;
        }
        self.name(id, parent, name, version);
        self.touch_ctime(id, at, version);
        self.touch_dir(parent, at, version);
    }

    fn apply_unlink(
        &mut self,
        id: NodeId,
        (parent, name): (NodeId, &EntryName),
        seen: Version,
        at: Timespec,
        version: Version,
    ) {
        self.touch_dir(parent, at, version);
        self.touch_ctime(id, at, version);
        if self.survives_removal(id, seen) {
            return;
        }
        if let Some(index) = self.lose(id, parent, name, version) {
            self.unlink_at(id, index);
        }
    }

    /// A change takes a name away from `id`: remembers it, and answers the link to remove, unless
    /// a newer change gave it back.
    fn lose(
        &mut self,
        id: NodeId,
        parent: NodeId,
        name: &EntryName,
        version: Version,
    ) -> Option<usize> {
        self.node_mut(id)?.lose(parent, name, version);
        let index = self.link_index(id, parent, name)?;
        (self.nodes[&id].links[index].version <= version).then_some(index)
    }

    /// Edit beats delete: the last name of a file stays if its content is newer than what the
    /// remover saw, and a directory that is not empty here stays.
    fn survives_removal(&self, id: NodeId, seen: Version) -> bool {
        let Some(node) = self.nodes.get(&id) else { return true };
        match &node.body {
            NodeBody::Dir(dir) => !dir.is_empty(),
            NodeBody::File(file) => node.links.len() == 1 && file.newest_version() > seen,
            NodeBody::Symlink(_) | NodeBody::Fifo | NodeBody::Socket => false,
        }
    }

    fn apply_rename(
        &mut self,
        id: NodeId,
        (from, to): (&(NodeId, EntryName), &(NodeId, EntryName)),
        target: &RenameTarget,
        at: Timespec,
        version: Version,
    ) {
        self.touch_dir(from.0, at, version);
        self.touch_dir(to.0, at, version);
        if !self.nodes.contains_key(&id) {
            return;
        }
        let refuge = (NodeId::ROOT, to.1.clone());
        let to = if self.break_cycle(id, to.0, version) { &refuge } else { to };
        self.touch_ctime(id, at, version);
        if let RenameTarget::Exchanged { node: other } = target {
            self.touch_ctime(*other, at, version);
            if self.exchange(id, from, *other, to, version) {
                return;
            }
            self.move_link(*other, to, from, None, version);
        }
        let replaced = match target {
            RenameTarget::Replaced { node, seen } => Some((*node, *seen)),
            RenameTarget::Free | RenameTarget::Exchanged { .. } => None,
        };
        if let Some((node, _)) = replaced {
            self.touch_ctime(node, at, version);
        }
        self.move_link(id, from, to, replaced, version);
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
        if !plain(self, a, a_place) || !plain(self, b, b_place) {
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
        self.record(|tree| {
            Some(Effect::Moved {
                node: id,
                from_path: tree.path_in(from.dir, from.name.as_bytes())?,
                to_path: tree.path_in(to.dir, to.name.as_bytes())?,
                from,
                to,
                replaced: clobbered,
            })
        });
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

    fn apply_perm(&mut self, id: NodeId, perm: Perm, ctime: Timespec, version: Version) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        self.touched.insert(id);
        if node.set_perm(perm, version) {
            self.record(|_| Some(Effect::Perm { node: id }));
        }
        self.touch_ctime(id, ctime, version);
    }

    fn apply_times(&mut self, id: NodeId, times: Times, version: Version) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        self.touched.insert(id);
        if node.set_times(times, version) {
            self.record(|_| Some(Effect::Times { node: id }));
        }
    }

    fn apply_xattr(
        &mut self,
        id: NodeId,
        name: &[u8],
        value: Option<&[u8]>,
        ctime: Timespec,
        version: Version,
    ) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        self.touched.insert(id);
        if node.xattrs.get(name).is_none_or(|(set, _)| *set < version) {
            node.xattrs.insert(name.to_vec(), (version, value.map(<[u8]>::to_vec)));
            let name = name.to_vec();
            self.record(|_| Some(Effect::Xattr { node: id, name }));
        }
        self.touch_ctime(id, ctime, version);
    }

    fn apply_content(&mut self, id: NodeId, new: Incoming) {
        let local = self.recording.is_none();
        let Some(file) = self.nodes.get_mut(&id).and_then(Node::file_mut) else { return };
        if new.version <= file.newest_version() {
            return;
        }
        self.touched.insert(id);
        let replaces_bytes = file.resident && file.content.size_bytes > 0;
        if local {
            file.content = new.content;
            file.version = new.version;
            file.incoming = None;
            file.resident = true;
        } else if new.content == file.content && file.resident {
            file.version = new.version;
            file.incoming = None;
        } else if replaces_bytes {
            file.incoming = Some(new);
        } else {
            file.show_absent(new.content, new.version);
        }
        let waits = file.incoming.is_some();
        self.revive(id);
        if !waits {
            self.adopt_attributes(id, &new);
        }
        self.record(|_| Some(Effect::Wanted { node: id }));
    }

    fn adopt_attributes(&mut self, id: NodeId, new: &Incoming) {
        let Some(node) = self.node_mut(id) else { return };
        if node.set_perm(new.perm, new.version) {
            self.record(|_| Some(Effect::Perm { node: id }));
        }
        let Some(node) = self.node_mut(id) else { return };
        if node.set_times(new.times, new.version) {
            self.record(|_| Some(Effect::Times { node: id }));
        }
    }

    /// All bytes of `version` are in place: shows them. False if they are no longer wanted.
    pub fn content_arrived(&mut self, id: NodeId, version: Version) -> bool {
        let Some(file) = self.node_mut(id).and_then(Node::file_mut) else { return false };
        match file.incoming {
            Some(incoming) if incoming.version == version => {
                file.show_absent(incoming.content, incoming.version);
                file.resident = true;
                self.adopt_attributes(id, &incoming);
                true
            }
            None if file.version == version => {
                file.resident = true;
                true
            }
            _ => false,
        }
    }

    fn touch_dir(&mut self, dir: NodeId, at: Timespec, version: Version) {
        let Some(node) = self.node_mut(dir) else { return };
        let (mtime, ctime) = (node.set_mtime(at, version), node.set_ctime(at, version));
        if mtime || ctime {
            self.record(|_| Some(Effect::Times { node: dir }));
        }
    }

    fn touch_ctime(&mut self, id: NodeId, at: Timespec, version: Version) {
        if self.node_mut(id).is_some_and(|node| node.set_ctime(at, version)) {
            self.record(|_| Some(Effect::Times { node: id }));
        }
    }
}

/// What a created node starts with.
struct Fresh<'a> {
    body: &'a Body,
    perm: Perm,
    times: Times,
    xattrs: &'a [(Vec<u8>, Vec<u8>)],
    at: Timespec,
}

impl super::FileBody {
    /// Shows `content`, whose bytes are not here unless it is empty.
    pub(super) fn show_absent(&mut self, content: ContentRef, version: Version) {
        self.content = content;
        self.version = version;
        self.resident = content.size_bytes == 0;
        self.live_size_bytes = content.size_bytes;
        self.incoming = None;
    }
}
