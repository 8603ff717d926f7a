//! A node as it is written down: everything but what other rows imply.

use super::claim::Claims;
use super::node::{FileBody, Link, Node, NodeBody, TimesVersion};
use crate::attr::{Perm, Times};
use crate::ids::{NodeId, Version};
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One node's durable state. A directory's entries are implied by its children's links.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeRow {
    /// The node.
    pub node: NodeId,
    body: RowBody,
    perm: (Perm, Version),
    times: (Times, TimesVersion),
    xattrs: BTreeMap<Vec<u8>, (Version, Option<Vec<u8>>)>,
    links: Vec<Link>,
    history: Option<Box<Claims>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum RowBody {
    File(FileBody),
    Dir,
    Symlink(Vec<u8>),
    Fifo,
    Socket,
}

impl NodeRow {
    pub(super) fn of(id: NodeId, node: &Node) -> Self {
        let body = match &node.body {
            NodeBody::File(file) => RowBody::File(file.clone()),
            NodeBody::Dir(_) => RowBody::Dir,
            NodeBody::Symlink(target) => RowBody::Symlink(target.clone()),
            NodeBody::Fifo => RowBody::Fifo,
            NodeBody::Socket => RowBody::Socket,
        };
        NodeRow {
            node: id,
            body,
            perm: (node.perm, node.perm_version),
            times: (node.times, node.times_version),
            xattrs: node.xattrs.clone(),
            links: node.links.clone(),
            history: node.history.clone(),
        }
    }

    pub(super) fn into_node(self) -> Node {
        Node {
            body: match self.body {
                RowBody::File(file) => NodeBody::File(file),
                RowBody::Dir => NodeBody::Dir(Box::default()),
                RowBody::Symlink(target) => NodeBody::Symlink(target),
                RowBody::Fifo => NodeBody::Fifo,
                RowBody::Socket => NodeBody::Socket,
            },
            perm: self.perm.0,
            perm_version: self.perm.1,
            times: self.times.0,
            times_version: self.times.1,
            xattrs: self.xattrs,
            links: self.links,
            history: self.history.filter(|_| !planted::has(Bug::LoseHistory)),
        }
    }
}
