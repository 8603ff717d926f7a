//! Conflicts: two versions that stand beside each other because both sides changed one thing.
//!
//! The copy that did not get the plain name carries a mark: an attribute that replicates with it,
//! follows it through renames, is written down with its node, and goes with it. Nobody sees it as
//! an attribute, and it is not set on disk. A conflict lasts as long as there are two versions to
//! choose from: until one is removed, moved over the other, or made equal to it.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod packed;
mod repository;
mod resolve;

pub use resolve::{Keep, ResolveError, Resolved};

pub(crate) use packed::Hidden;
pub(crate) use repository::Aside;

use crate::volume::{State, Volume};
use lockstep_core::tree::Node;
use lockstep_core::{EntryName, NodeId, Op, Place, Slot, Timespec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Name of the attribute.
const MARK: &[u8] = b"user.lockstep.conflict";

/// What a copy's mark says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Mark {
    /// The node that kept the plain name.
    kept: NodeId,
    /// Whose version that was.
    kept_by: Slot,
    /// Whose version the copy is.
    copy_of: Slot,
    /// Where the plain name was: its directory and the name.
    place: (NodeId, EntryName),
    /// When the copy was made.
    at: Timespec,
}

/// A copy that is to be marked once the changes at hand are applied.
#[derive(Clone, Debug)]
pub(crate) struct Unmarked {
    pub copy: NodeId,
    pub kept: NodeId,
    /// The name of `kept` when the copy was made: it may have lost it since.
    pub place: Place,
}

/// Two versions of one thing, for `lockstep conflicts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The plain name's path, relative to the volume's root.
    pub path: PathBuf,
    /// The path of the copy.
    pub copy: PathBuf,
    /// The copy's node.
    pub node: NodeId,
    /// The host whose version had the plain name when the copy was made.
    pub kept_by: String,
    /// The host whose version the copy is.
    pub copy_of: String,
    /// Whether the plain name's version is this machine's.
    pub kept_is_mine: bool,
    /// Whether the copy is this machine's.
    pub copy_is_mine: bool,
    /// When the copy was made, by the clock of the machine that made it.
    pub at: Timespec,
}

/// A conflict that is not settled yet, by its nodes.
struct Open {
    /// What stands under the plain name now.
    plain: NodeId,
    copy: NodeId,
    mark: Mark,
}

impl Volume {
    /// All conflicts, by path.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let state = self.read_state();
        let mut found: Vec<Conflict> =
            open(&state).iter().filter_map(|conflict| told(&state, conflict)).collect();
        found.sort_by(|a, b| (&a.path, &a.copy).cmp(&(&b.path, &b.copy)));
        found
    }

    /// Marks `copy` as the version that did not get the name `place`, which `kept` has.
    pub(crate) fn mark_copy(
        &self,
        state: &mut State,
        copy: NodeId,
        (kept, kept_by): (NodeId, Slot),
        place: &Place,
    ) {
        let copy_of = state.replica.slot();
        let place = (place.dir, place.name.clone());
        let mark = Mark { kept, kept_by, copy_of, place, at: self.now() };
        let value = postcard::to_stdvec(&mark).expect("marks always encode");
        self.set_mark(state, copy, Some(value));
    }

    fn set_mark(&self, state: &mut State, copy: NodeId, value: Option<Vec<u8>>) {
        let Some(ctime) = state.replica.tree.node(copy).map(|n| n.times.ctime) else { return };
        state.replica.local(Op::SetXattr { node: copy, name: MARK.to_vec(), value, ctime });
    }
}

/// All conflicts that are not settled.
fn open(state: &State) -> Vec<Open> {
    let marked = state.replica.tree.iter().filter_map(|(id, node)| Some((id, mark_of(node)?)));
    marked.filter_map(|(copy, mark)| opened(state, copy, mark)).collect()
}

fn opened(state: &State, copy: NodeId, mark: Mark) -> Option<Open> {
    let tree = &state.replica.tree;
    let stands = |id: NodeId| tree.node(id).is_some_and(|node| !node.links.is_empty());
    let plain = match stands(mark.kept) {
        true => mark.kept,
        false => tree.lookup(mark.place.0, mark.place.1.as_bytes())?,
    };
    let two = stands(copy) && plain != copy && !tree.alike(plain, copy);
    two.then_some(Open { plain, copy, mark })
}

fn mark_of(node: &Node) -> Option<Mark> {
    let value = node.xattrs.get(MARK)?.1.as_ref()?;
    postcard::from_bytes(value).ok()
}

fn told(state: &State, Open { plain, copy, mark }: &Open) -> Option<Conflict> {
    let (tree, own) = (&state.replica.tree, state.replica.slot());
    Some(Conflict {
        path: tree.path(*plain)?,
        copy: tree.path(*copy)?,
        node: *copy,
        kept_by: tree.host(mark.kept_by).to_owned(),
        copy_of: tree.host(mark.copy_of).to_owned(),
        kept_is_mine: mark.kept_by == own,
        copy_is_mine: mark.copy_of == own,
        at: mark.at,
    })
}
