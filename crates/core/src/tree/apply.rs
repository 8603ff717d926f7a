//! How one change alters the tree. Total: whatever the state, a change of a known author does
//! something sensible, and two replicas that have applied the same changes show the same tree.

use super::Tree;
use super::effect::Effect;
use super::node::{Incoming, Node};
use crate::attr::{Kind, Perm, Times, Timespec};
use crate::change::{Body, Change, Op};
use crate::content::ContentRef;
use crate::ids::{NodeId, Version};
use crate::name::EntryName;
use crate::planted::{self, Bug};

impl Tree {
    /// Applies a peer's change; what disk and kernel have to do follows in the answer.
    pub fn apply_remote(&mut self, change: &Change) -> Vec<Effect> {
        self.is_local = false;
        self.apply(&change.op, change.version);
        let mut effects = std::mem::take(&mut self.recorded);
        effects.sort_by_key(Effect::is_about_attributes);
        effects.dedup();
        effects
    }

    /// Applies a change of this replica, whose effects on disk were made already; what else follows
    /// from it is in the answer: a name that it freed may go to another node.
    pub(crate) fn apply_local(&mut self, op: &Op, version: Version) -> Vec<Effect> {
        self.is_local = true;
        self.apply(op, version);
        let made = |effect: &Effect| effect.is_about_attributes() || effect.is_made_by(op);
        std::mem::take(&mut self.recorded).into_iter().filter(|effect| !made(effect)).collect()
    }

    fn apply(&mut self, op: &Op, version: Version) {
        self.recorded.clear();
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
            // Needs to know what both sides have seen: [`Tree::merge`].
            Op::Exchange(_) => {}
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
            return self.give_claim(id, (parent, name), version);
        }
        let mut node = Node::new(fresh.body, fresh.perm, fresh.times, version);
        for (name, value) in fresh.xattrs {
            node.xattrs.insert(name.clone(), (version, Some(value.clone())));
        }
        if self.is_local
            && let Some(file) = node.file_mut()
        {
            file.resident = true;
        }
        self.nodes.insert(id, node);
        self.give_claim(id, (parent, name), version);
        self.touch_dir(parent, fresh.at, version);
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
        self.give_claim(id, (parent, name), version);
        self.touch_ctime(id, at, version);
        self.touch_dir(parent, at, version);
    }

    /// A new name for `id`, which is shown under it unless a newer change took it.
    fn give_claim(&mut self, id: NodeId, (parent, name): (NodeId, &EntryName), version: Version) {
        if let Some(node) = self.nodes.get_mut(&id) {
            let dir = node.dir().is_some();
            node.claims_mut().give(parent, name, version, dir);
            // A hostile peer may make a directory again, below itself.
            self.reconcile_move(id, None);
        }
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
        self.take_claim(id, &(parent, name.clone()), version, seen);
        self.reconcile(id, None);
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

    pub(super) fn apply_content(&mut self, id: NodeId, new: Incoming) {
        let local = self.is_local;
        let Some(file) = self.nodes.get_mut(&id).and_then(Node::file_mut) else { return };
        if new.version <= file.newest_version() {
            return;
        }
        if !planted::has(Bug::KeepOldRow) {
            self.touched.insert(id);
        }
        let replaces_bytes = file.resident && (file.dirty || file.content.size_bytes > 0);
        if local {
            file.content = new.content;
            file.version = new.version;
            file.incoming = None;
            file.resident = true;
        } else if is_same(new.content, file.content) && file.resident && !file.dirty {
            file.version = new.version;
            file.incoming = None;
        } else if replaces_bytes {
            file.incoming = Some(new);
        } else {
            file.show_absent(new.content, new.version);
        }
        let waits = file.incoming.is_some();
        // Before the attributes: those of a placeholder are its own.
        self.record(|_| Some(Effect::Wanted { node: id }));
        if !waits {
            self.adopt_attributes(id, &new);
        }
        if self.nodes.get(&id).is_some_and(Node::is_unlinked) {
            self.reconcile(id, None);
        }
    }

    pub(super) fn adopt_attributes(&mut self, id: NodeId, new: &Incoming) {
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

fn is_same(a: ContentRef, b: ContentRef) -> bool {
    a == b || planted::has(Bug::CompareBySize) && a.size_bytes == b.size_bytes
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
