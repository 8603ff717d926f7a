//! How one change alters the tree. Total: whatever the state, a change of a known author does
//! something sensible, and two replicas that have applied the same changes show the same tree.

use super::Tree;
use super::effect::{Effect, Place};
use super::node::{Incoming, Link, Node, NodeBody};
use crate::attr::{Kind, Perm, Times, Timespec};
use crate::change::{Body, Change, Op};
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
    pub(super) fn name(&mut self, id: NodeId, parent: NodeId, name: &EntryName, version: Version) {
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
    pub(super) fn living_dir(&mut self, dir: NodeId) -> NodeId {
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
        let parent = if self.is_within(last.parent, id) { NodeId::ROOT } else { last.parent };
        self.name(id, parent, &last.name, last.version);
        true
    }

    /// Whether `dir` is `top` or below it.
    pub(super) fn is_within(&self, dir: NodeId, top: NodeId) -> bool {
        let mut up = dir;
        while up != top {
            let link = self.nodes.get(&up).and_then(|node| node.links.first());
            let Some(link) = link else { return false };
            up = link.parent;
        }
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
    pub(super) fn lose(
        &mut self,
        id: NodeId,
        parent: NodeId,
        name: &EntryName,
        version: Version,
    ) -> Option<usize> {
        self.node_mut(id)?.lose(parent, name, version);
        self.bereft.insert(id);
        let index = self.link_index(id, parent, name)?;
        (self.nodes[&id].links[index].version <= version).then_some(index)
    }

    /// Edit beats delete: the last name of a file stays if its content is newer than what the
    /// remover saw, and a directory that is not empty here stays.
    pub(super) fn survives_removal(&self, id: NodeId, seen: Version) -> bool {
        let Some(node) = self.nodes.get(&id) else { return true };
        match &node.body {
            NodeBody::Dir(dir) => !dir.is_empty(),
            NodeBody::File(file) => node.links.len() == 1 && file.newest_version() > seen,
            NodeBody::Symlink(_) | NodeBody::Fifo | NodeBody::Socket => false,
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
        let replaces_bytes = file.resident && (file.dirty || file.content.size_bytes > 0);
        if local {
            file.content = new.content;
            file.version = new.version;
            file.incoming = None;
            file.resident = true;
        } else if new.content == file.content && file.resident && !file.dirty {
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

    pub(super) fn touch_dir(&mut self, dir: NodeId, at: Timespec, version: Version) {
        let Some(node) = self.node_mut(dir) else { return };
        let (mtime, ctime) = (node.set_mtime(at, version), node.set_ctime(at, version));
        if mtime || ctime {
            self.record(|_| Some(Effect::Times { node: dir }));
        }
    }

    pub(super) fn touch_ctime(&mut self, id: NodeId, at: Timespec, version: Version) {
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
