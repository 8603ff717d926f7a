//! Merging a peer's state of a node into the tree. Registers take the newer version. A name that
//! one side has and the other lacks was removed there if the other had seen it, and is new if not.

use super::Tree;
use super::claim::Claim;
use super::effect::Effect;
use super::node::{Incoming, Node, NodeBody};
use super::state::{Name, NodeState};
use crate::attr::{Perm, Timespec};
use crate::change::Body;
use crate::ids::{NodeId, Slot, Version};
use crate::name::EntryName;
use crate::seen::Seen;

/// What both sides of an exchange had seen when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'s> {
    /// This replica.
    pub own: &'s Seen,
    /// The author of the state.
    pub theirs: &'s Seen,
    /// Newer than anything the author had seen.
    pub now: Version,
}

/// What became of a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Merged {
    /// It is in the tree.
    Taken,
    /// The node was removed here, and the author does not know yet.
    RemovedHere,
}

impl Tree {
    /// Runs `alter` as the change of a peer; what disk and kernel have to do is in the answer.
    pub(crate) fn recorded<T>(&mut self, alter: impl FnOnce(&mut Tree) -> T) -> (T, Vec<Effect>) {
        self.is_local = false;
        self.recorded.clear();
        let answer = alter(self);
        let mut effects = std::mem::take(&mut self.recorded);
        effects.sort_by_key(Effect::is_about_attributes);
        effects.dedup();
        (answer, effects)
    }

    /// Merges a peer's state of a node that has names.
    pub(crate) fn merge(&mut self, state: &NodeState, sight: Sight<'_>) -> Merged {
        if self.nodes.contains_key(&state.node) {
            self.merge_known(state, sight);
            return Merged::Taken;
        }
        // Who edited or renamed it did not know that it was removed.
        let edited = state.content().is_some() && !sight.own.has_version(state.content_version);
        let renamed = state.names.iter().any(|(.., given)| !sight.own.has_version(*given));
        if sight.own.has_node(state.node) && !edited && !renamed {
            return Merged::RemovedHere;
        }
        self.insert_state(state, sight.now);
        Merged::Taken
    }

    /// Makes the node as `state` has it.
    pub(crate) fn insert_state(&mut self, state: &NodeState, now: Version) {
        let mut node = state.to_node();
        let is_dir = node.dir().is_some();
        let claims = node.claims_mut();
        for (parent, name, version) in &state.names {
            claims.give(*parent, name, *version, is_dir);
            if state.held {
                claims.take(*parent, name, now, is_dir);
            }
        }
        self.nodes.insert(state.node, node);
        self.touched.insert(state.node);
        self.show_claims(state.node);
    }

    fn merge_known(&mut self, state: &NodeState, sight: Sight<'_>) {
        let id = state.node;
        let newer = self.nodes[&id].content_version() < state.content_version;
        let edited = !sight.own.has_version(state.content_version);
        let comes_back = edited && self.nodes[&id].links.is_empty();
        if let Some(content) = state.content().filter(|_| newer) {
            let (version, times, perm) = (state.content_version, state.times.0, state.perm.0);
            self.apply_content(id, Incoming { content, version, times, perm });
        }
        self.merge_registers(state);
        if id == NodeId::ROOT {
            return;
        }
        match self.nodes[&id].dir().is_some() {
            true => self.merge_dir_claim(state, sight),
            false => self.merge_claims(state, sight, comes_back),
        }
        self.show_claims(id);
    }

    fn show_claims(&mut self, id: NodeId) {
        self.reconcile_move(id, None);
    }

    fn merge_registers(&mut self, state: &NodeState) {
        let id = state.node;
        let Some(node) = self.node_mut(id) else { return };
        let mut perm = node.set_perm(state.perm.0, state.perm.1);
        let mut times = merge_times(node, state);
        if is_settled(node) {
            perm |= id != NodeId::ROOT && merge_found_perm(node, state);
            times |= merge_found_times(node, state);
        }
        let mut changed = Vec::new();
        for (name, value) in &state.xattrs {
            // What each side found on its own disk has equal versions: the greater value counts.
            if node.xattrs.get(name).is_none_or(|own| own < value) {
                node.xattrs.insert(name.clone(), value.clone());
                changed.push(name.clone());
            }
        }
        if perm {
            self.record(|_| Some(Effect::Perm { node: id }));
        }
        if times {
            self.record(|_| Some(Effect::Times { node: id }));
        }
        for name in changed {
            self.record(|_| Some(Effect::Xattr { node: id, name }));
        }
    }

    /// A directory has one name: the newer move counts, and a removal of it.
    fn merge_dir_claim(&mut self, state: &NodeState, sight: Sight<'_>) {
        let Some((parent, name, version)) = state.names.first() else { return };
        let Some(node) = self.nodes.get_mut(&state.node) else { return };
        let claims = node.claims_mut();
        claims.give(*parent, name, *version, true);
        if state.held && claims.names.iter().all(|claim| claim.given <= *version) {
            claims.take(*parent, name, sight.now, true);
        }
    }

    fn merge_claims(&mut self, state: &NodeState, sight: Sight<'_>, comes_back: bool) {
        let id = state.node;
        let content = self.seen_version(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let claims = node.claims_mut();
        let standing: Vec<Claim> = claims.standing(content).into_iter().cloned().collect();
        let stands = |at: &Name| standing.iter().any(|c| c.parent == at.0 && c.name == at.1);
        for name in &state.names {
            let new = comes_back || !sight.own.has_version(name.2);
            if new || stands(name) {
                claims.give(name.0, &name.1, name.2, false);
            }
            if new {
                // Whatever took this name away before had not seen it given again.
                claims.clear_taken(name.0, &name.1);
            }
        }
        let told =
            |claim: &Claim| state.names.iter().any(|n| n.0 == claim.parent && n.1 == claim.name);
        for gone in standing.iter().filter(|claim| !told(claim)) {
            if sight.theirs.has_version(gone.given) {
                claims.take(gone.parent, &gone.name, sight.now, false);
            }
        }
        if !claims.names.iter().any(Claim::stands) && !standing.is_empty() {
            let own = standing.iter().map(|c| (c.parent, c.name.clone(), c.given));
            claims.keep_one(own.chain(state.names.iter().cloned()));
        }
    }

    /// The author of the exchange removed a node. A directory stays while something is in it, a
    /// file with an edit that the author had not seen comes back.
    pub(crate) fn merge_removal(&mut self, id: NodeId, sight: Sight<'_>) {
        let content = self.seen_version(id);
        let Some(node) = self.nodes.get_mut(&id).filter(|_| id != NodeId::ROOT) else { return };
        let seen_all = node.dir().is_some() || sight.theirs.has_version(node.content_version());
        let is_dir = node.dir().is_some();
        let claims = node.claims_mut();
        let seen = |claim: &&Claim| claim.stands() && sight.theirs.has_version(claim.given);
        let gone: Vec<(NodeId, EntryName)> =
            claims.names.iter().filter(seen).map(|c| (c.parent, c.name.clone())).collect();
        for (parent, name) in &gone {
            claims.take(*parent, name, sight.now, is_dir);
        }
        if seen_all {
            claims.removed_at = claims.removed_at.max(content);
        }
        self.show_claims(id);
    }

    /// The node made in `slot` and unknown to the author of `state` that is the same thing under
    /// the same name: a file with equal bytes, an equal symlink, a directory.
    pub(crate) fn twin(&self, state: &NodeState, slot: Slot, theirs: &Seen) -> Option<NodeId> {
        let names = state.names.iter().map(|(dir, name, _)| (dir, name));
        let mut places = names.chain(state.had.iter().map(|(dir, name)| (dir, name)));
        let standing = places.find_map(|(dir, name)| {
            let id = self.lookup(*dir, name.as_bytes())?;
            let plain = self.has_name(id, *dir, name) && self.nodes[&id].links.len() == 1;
            (plain && id.slot() == slot && !theirs.has_node(id)).then_some(id)
        })?;
        let node = self.node(standing)?;
        let equal = match (&node.body, state.content()) {
            (NodeBody::File(file), Some(content)) => {
                file.resident && !file.dirty && file.incoming.is_none() && file.content == content
            }
            (NodeBody::Symlink(target), _) => {
                matches!(&state.body, Body::Symlink(theirs) if theirs == target)
            }
            _ => node.kind() == state.kind(),
        };
        equal.then_some(standing)
    }
}

fn merge_times(node: &mut Node, state: &NodeState) -> bool {
    let (times, set) = state.times;
    let mut changed = node.set_mtime(times.mtime, set.mtime);
    changed |= node.set_ctime(times.ctime, set.ctime);
    if set.atime > node.times_version.atime {
        (node.times.atime, node.times_version.atime) = (times.atime, set.atime);
        changed = true;
    }
    changed
}

/// Whether its registers are what is shown.
fn is_settled(node: &Node) -> bool {
    node.file().is_none_or(|file| file.announced.is_none() && file.incoming.is_none())
}

/// Permissions that each side found on its own disk have equal versions: the lesser ones count.
fn merge_found_perm(node: &mut Node, state: &NodeState) -> bool {
    let (theirs, set) = state.perm;
    let rank = |perm: Perm| (perm.mode, perm.uid, perm.gid);
    let lesser = set == node.perm_version && rank(theirs) < rank(node.perm);
    if lesser {
        node.perm = theirs;
    }
    lesser
}

/// Times that each side found on its own disk have equal versions: the later ones count.
fn merge_found_times(node: &mut Node, state: &NodeState) -> bool {
    let (before, (times, set), own) = (node.times, state.times, node.times_version);
    let later = |here: Timespec, there: Timespec, equal: bool| match equal {
        true => here.max(there),
        false => here,
    };
    node.times.atime = later(before.atime, times.atime, own.atime == set.atime);
    node.times.mtime = later(before.mtime, times.mtime, own.mtime == set.mtime);
    node.times.ctime = later(before.ctime, times.ctime, own.ctime == set.ctime);
    node.times != before
}
