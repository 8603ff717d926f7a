//! The replicated record of one effect on the tree: what the change log holds and peers exchange.

use crate::attr::{Kind, Perm, Times, Timespec};
use crate::content::ContentRef;
use crate::ids::{NodeId, Sequence, Version};
use crate::name::EntryName;
use crate::seen::Seen;
use crate::tree::NodeState;
use serde::{Deserialize, Serialize};

/// One effect, numbered in its author's log and versioned against everything the author had seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Position in the author's log.
    pub seq: Sequence,
    /// Version of what the change sets.
    pub version: Version,
    /// The effect.
    pub op: Op,
}

/// What a change does. Nodes are named by id, places by (directory id, name): never by path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// A new node under a new name. Sets the directory's mtime and ctime to `times.ctime`'s
    /// creation moment `at`.
    Create {
        /// The new node.
        node: NodeId,
        /// Directory it appears in.
        parent: NodeId,
        /// Name it appears under.
        name: EntryName,
        /// What it is, with what only that kind has.
        body: Body,
        /// Mode and owner.
        perm: Perm,
        /// Times of the node.
        times: Times,
        /// Extended attributes.
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
        /// When the name appeared: the directory's new mtime and ctime.
        at: Timespec,
    },
    /// A further name for a file (hard link).
    Link {
        /// The node that gains a name.
        node: NodeId,
        /// Directory of the new name.
        parent: NodeId,
        /// The new name.
        name: EntryName,
        /// New ctime of the node; new mtime and ctime of the directory.
        at: Timespec,
    },
    /// A name is gone; with the last one, so is the node.
    Unlink {
        /// The node the name stood for.
        node: NodeId,
        /// Directory of the name.
        parent: NodeId,
        /// The name.
        name: EntryName,
        /// Content version the author saw: a newer one keeps the file (edit beats delete).
        seen: Version,
        /// New ctime of the node; new mtime and ctime of the directory.
        at: Timespec,
    },
    /// A name moves, replacing what stood at the target.
    Rename {
        /// The node that moves.
        node: NodeId,
        /// Where it was.
        from: (NodeId, EntryName),
        /// Where it is now.
        to: (NodeId, EntryName),
        /// What stood at the target before.
        target: RenameTarget,
        /// New ctime of the node; new mtime and ctime of both directories.
        at: Timespec,
    },
    /// Mode, owner.
    SetPerm {
        /// The node.
        node: NodeId,
        /// New values.
        perm: Perm,
        /// New ctime.
        ctime: Timespec,
    },
    /// Times set by hand (`utimensat`).
    SetTimes {
        /// The node.
        node: NodeId,
        /// New values.
        times: Times,
    },
    /// One extended attribute.
    SetXattr {
        /// The node.
        node: NodeId,
        /// Attribute name, with its namespace (`user.…`).
        name: Vec<u8>,
        /// New value; `None` removes it.
        value: Option<Vec<u8>>,
        /// New ctime.
        ctime: Timespec,
    },
    /// New bytes of a file.
    Content {
        /// The file.
        node: NodeId,
        /// Content version the author started from: if the receiver has another, the edits were
        /// concurrent.
        base: Version,
        /// The new bytes.
        content: ContentRef,
        /// Times of the node after the edit.
        times: Times,
        /// Permissions after the edit (a write clears setuid and setgid).
        perm: Perm,
    },
    /// A step of bringing a peer up to date by state, not by the log. Never in a log itself.
    Exchange(Exchange),
}

/// The steps of an exchange of state, in their order: one beginning, nodes (directories before
/// what is in them), removals, one end, whose sequence number is where the log goes on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Exchange {
    /// What the author had seen at the beginning: whatever of it the author lacks, it removed.
    Begin(Seen),
    /// A node that differs, as the author has it.
    Node(Box<NodeState>),
    /// A node that the author knew and removed.
    Gone(NodeId),
    /// Everything was said.
    End,
}

/// What only one kind of node has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// A file with these bytes.
    File(ContentRef),
    /// An empty directory.
    Dir,
    /// A symlink to this target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

impl Body {
    /// The kind this body belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Body::File(_) => Kind::File,
            Body::Dir => Kind::Dir,
            Body::Symlink(_) => Kind::Symlink,
            Body::Fifo => Kind::Fifo,
            Body::Socket => Kind::Socket,
        }
    }
}

/// What a rename found at its target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenameTarget {
    /// Nothing.
    Free,
    /// A node that loses this name.
    Replaced {
        /// That node.
        node: NodeId,
        /// Its content version the author saw (edit beats delete).
        seen: Version,
    },
    /// A node that takes the moved one's place (`RENAME_EXCHANGE`).
    Exchanged {
        /// That node.
        node: NodeId,
    },
}

impl Op {
    /// The node the change is about.
    pub fn node(&self) -> NodeId {
        match self {
            Op::Create { node, .. }
            | Op::Link { node, .. }
            | Op::Unlink { node, .. }
            | Op::Rename { node, .. }
            | Op::SetPerm { node, .. }
            | Op::SetTimes { node, .. }
            | Op::SetXattr { node, .. }
            | Op::Content { node, .. }
            | Op::Exchange(Exchange::Gone(node)) => *node,
            Op::Exchange(Exchange::Node(state)) => state.node,
            Op::Exchange(Exchange::Begin(_) | Exchange::End) => NodeId::ROOT,
        }
    }

    /// The content the change announces, if it announces any.
    pub fn content(&self) -> Option<ContentRef> {
        match self {
            Op::Create { body: Body::File(content), .. } | Op::Content { content, .. } => {
                Some(*content)
            }
            Op::Exchange(Exchange::Node(state)) if !state.removed => state.content(),
            _ => None,
        }
    }
}
