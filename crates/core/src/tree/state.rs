//! A node as peers compare it: its registers as they are or will be once content on its way is
//! here, without anything that only this replica knows.

use super::Tree;
use super::node::{FileBody, Node, NodeBody, TimesVersion};
use crate::attr::{Kind, Perm, Times};
use crate::change::Body;
use crate::content::ContentRef;
use crate::ids::{NodeId, Version};
use crate::name::EntryName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Lost names of one node that are told.
const NAMES_LOST_TOLD_MAX: usize = 64;

/// One name of a node, without how it is shown: (directory, name, version).
pub type Name = (NodeId, EntryName, Version);

/// The replicated registers of one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeState {
    /// The node.
    pub node: NodeId,
    /// What it is; of a file, its newest bytes.
    pub body: Body,
    /// Version of those bytes.
    pub content_version: Version,
    /// Mode and owner.
    pub perm: (Perm, Version),
    /// Times.
    pub times: (Times, TimesVersion),
    /// Extended attributes; `None` is a removal still remembered.
    pub xattrs: BTreeMap<Vec<u8>, (Version, Option<Vec<u8>>)>,
    /// Its names, in order. If it was removed, the last one it had.
    pub names: Vec<Name>,
    /// Names it had and has lost; told to a peer that has lost its state, else empty.
    pub had: Vec<(NodeId, EntryName)>,
    /// Whether it has none of them any more.
    pub removed: bool,
    /// A directory that was removed and stands only for what is in it.
    pub held: bool,
}

impl NodeState {
    /// The bytes, if it is a file.
    pub fn content(&self) -> Option<ContentRef> {
        match self.body {
            Body::File(content) => Some(content),
            _ => None,
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// The node, with bytes absent and names still to be given.
    pub(super) fn to_node(&self) -> Node {
        let mut node = Node::new(&self.body, self.perm.0, self.times.0, self.content_version);
        node.perm_version = self.perm.1;
        node.times_version = self.times.1;
        node.xattrs.clone_from(&self.xattrs);
        node
    }
}

impl Tree {
    /// What peers compare of `id`; `None` if there is no such node.
    pub fn state(&self, id: NodeId) -> Option<NodeState> {
        let node = self.node(id)?;
        let claims = node.claims();
        let is_dir = node.dir().is_some();
        let mut names = match is_dir {
            true => claims.names.iter().collect(),
            false => claims.standing(self.seen_version(id)),
        };
        if names.is_empty() {
            names.extend(claims.names.iter().max_by_key(|claim| claim.taken));
        }
        let held = is_dir && names.iter().any(|claim| !claim.stands());
        let mut names: Vec<Name> =
            names.into_iter().map(|c| (c.parent, c.name.clone(), c.given)).collect();
        names.sort_unstable();
        let mut state = NodeState {
            node: id,
            body: body(&node.body),
            content_version: node.content_version(),
            perm: (node.perm, node.perm_version),
            times: (node.times, node.times_version),
            xattrs: node.xattrs.clone(),
            names,
            had: Vec::new(),
            removed: node.is_unlinked(),
            held,
        };
        if let Some(coming) = node.file().and_then(|file| file.incoming) {
            let mut after = Node::new(&state.body, node.perm, node.times, Version::default());
            (after.perm_version, after.times_version) = (node.perm_version, node.times_version);
            after.set_perm(coming.perm, coming.version);
            after.set_times(coming.times, coming.version);
            state.perm = (after.perm, after.perm_version);
            state.times = (after.times, after.times_version);
        }
        Some(state)
    }

    /// Names that `id` had and that are still remembered.
    pub(crate) fn lost_names(&self, id: NodeId) -> Vec<(NodeId, EntryName)> {
        let Some(node) = self.node(id) else { return Vec::new() };
        let lost = node.claims().names.into_iter().filter(|claim| !claim.stands());
        lost.map(|claim| (claim.parent, claim.name)).take(NAMES_LOST_TOLD_MAX).collect()
    }

    /// How many directories are above a node; `None` without a name.
    pub(crate) fn depth(&self, id: NodeId) -> Option<usize> {
        let (mut depth, mut up) = (0, id);
        while up != NodeId::ROOT {
            up = self.node(up)?.links.first()?.parent;
            depth += 1;
        }
        Some(depth)
    }

    /// Removed nodes that are still remembered, directories before what was in them.
    pub(crate) fn removed_by_depth(&self) -> Vec<NodeId> {
        let depth = |id: NodeId| {
            let (mut depth, mut up) = (0, id);
            while let Some(node) = self.node(up).filter(|_| up != NodeId::ROOT && depth < 4096) {
                let claims = node.claims();
                let last = claims.names.iter().max_by_key(|claim| claim.taken);
                up = last.map_or(NodeId::ROOT, |claim| claim.parent);
                depth += 1;
            }
            depth
        };
        let mut removed: Vec<(usize, NodeId)> = self.unlinked().map(|id| (depth(id), id)).collect();
        removed.sort_unstable();
        removed.into_iter().map(|(_, id)| id).collect()
    }
}

fn body(of: &NodeBody) -> Body {
    match of {
        NodeBody::File(file) => Body::File(newest(file)),
        NodeBody::Dir(_) => Body::Dir,
        NodeBody::Symlink(target) => Body::Symlink(target.clone()),
        NodeBody::Fifo => Body::Fifo,
        NodeBody::Socket => Body::Socket,
    }
}

fn newest(file: &FileBody) -> ContentRef {
    file.incoming.map_or(file.content, |incoming| incoming.content)
}
