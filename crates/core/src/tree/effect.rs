//! What a change of a peer asks of the disk and the kernel, in order.
//!
//! Paths are relative to the volume's root and true at the moment the effect is carried out, if
//! all effects before it were.

use crate::change::{Op, RenameTarget};
use crate::content::ContentRef;
use crate::ids::NodeId;
use crate::name::EntryName;
use std::path::PathBuf;

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Directory.
    pub dir: NodeId,
    /// Name in it.
    pub name: EntryName,
}

/// One step towards making disk and kernel agree with the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A new node appeared: make it, absent if it is a file with bytes.
    Made {
        /// The node, with its attributes in the tree.
        node: NodeId,
        /// Where.
        place: Place,
        /// Where, as a path.
        path: PathBuf,
    },
    /// A node gained a further name.
    Linked {
        /// The node.
        node: NodeId,
        /// A path it already has.
        existing: PathBuf,
        /// The new name.
        place: Place,
        /// The new name, as a path.
        path: PathBuf,
    },
    /// A name is gone.
    Removed {
        /// The node it stood for.
        node: NodeId,
        /// The name.
        place: Place,
        /// The name, as a path.
        path: PathBuf,
        /// Whether it is a directory.
        is_dir: bool,
    },
    /// A name moved.
    Moved {
        /// The node.
        node: NodeId,
        /// Where it was.
        from: Place,
        /// Where it was, as a path.
        from_path: PathBuf,
        /// Where it is.
        to: Place,
        /// Where it is, as a path.
        to_path: PathBuf,
        /// What stood there and lost the name in the same instant.
        replaced: Option<NodeId>,
    },
    /// Two names changed places.
    Swapped {
        /// One place.
        a: Place,
        /// One place, as a path.
        a_path: PathBuf,
        /// The other.
        b: Place,
        /// The other, as a path.
        b_path: PathBuf,
    },
    /// The bytes of a file that lost a concurrent edit become a file of their own: `from` is copied
    /// to `to`, and what was copied is announced as the content of `copy`. `from` itself stays as
    /// it is until the content that won is complete.
    SetAside {
        /// The file whose content was overruled.
        node: NodeId,
        /// That content, if nobody is writing just now.
        content: ContentRef,
        /// Its path.
        from: PathBuf,
        /// The new file that keeps the bytes.
        copy: NodeId,
        /// The new file's name.
        place: Place,
        /// The new file's path.
        to: PathBuf,
    },
    /// What stands at a name turned out to be a peer's node: nothing changes below.
    Adopted {
        /// The node it was taken for.
        was: NodeId,
        /// The node it is.
        node: NodeId,
        /// Its name.
        place: Place,
    },
    /// Mode or owner changed.
    Perm {
        /// The node.
        node: NodeId,
    },
    /// Times changed.
    Times {
        /// The node.
        node: NodeId,
    },
    /// An extended attribute changed.
    Xattr {
        /// The node.
        node: NodeId,
        /// The attribute.
        name: Vec<u8>,
    },
    /// The file has content to be fetched.
    Wanted {
        /// The node.
        node: NodeId,
    },
}

impl Effect {
    /// Whether the author of `op` made it on disk before recording the change.
    pub(super) fn is_made_by(&self, op: &Op) -> bool {
        match (self, op) {
            (Effect::Made { node, .. }, Op::Create { node: made, .. })
            | (Effect::Linked { node, .. }, Op::Link { node: made, .. })
            | (Effect::Removed { node, .. }, Op::Unlink { node: made, .. }) => node == made,
            (Effect::Swapped { .. }, Op::Rename { .. }) => true,
            (Effect::Moved { node, .. }, Op::Rename { node: made, target, .. }) => {
                node == made
                    || matches!(target, RenameTarget::Exchanged { node: other } if node == other)
            }
            (Effect::Removed { node, .. }, Op::Rename { target, .. }) => {
                matches!(target, RenameTarget::Replaced { node: other, .. } if node == other)
            }
            _ => false,
        }
    }

    /// Whether it concerns a node wherever it is, not a name: such effects come after all others,
    /// when every node stands where the tree has it.
    pub(super) fn is_about_attributes(&self) -> bool {
        match self {
            Effect::Made { .. }
            | Effect::Linked { .. }
            | Effect::Removed { .. }
            | Effect::Moved { .. }
            | Effect::Swapped { .. }
            | Effect::SetAside { .. }
            | Effect::Adopted { .. } => false,
            Effect::Perm { .. }
            | Effect::Times { .. }
            | Effect::Xattr { .. }
            | Effect::Wanted { .. } => true,
        }
    }
}
