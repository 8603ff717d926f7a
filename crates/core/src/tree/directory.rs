//! The entries of one directory, by name and in a stable reading order.

use crate::ids::NodeId;
use crate::name::EntryName;
use std::collections::{BTreeMap, HashMap};

/// Names of a directory as they are shown, each with a cursor that never changes while the name
/// stands: a reader that continues after a cursor sees every lasting name exactly once.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    by_name: HashMap<EntryName, (NodeId, u64)>,
    by_cursor: BTreeMap<u64, EntryName>,
    next_cursor: u64,
    /// How many entries are directories: each adds one to this directory's link count.
    pub(super) subdirs: u32,
}

impl Directory {
    /// The node behind `name`.
    pub fn get(&self, name: &[u8]) -> Option<NodeId> {
        self.by_name.get(name).map(|(node, _)| *node)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Entries after `cursor` (0: from the start) in a stable order: (cursor, name, node).
    pub fn after(&self, cursor: u64) -> impl Iterator<Item = (u64, &EntryName, NodeId)> {
        self.by_cursor.range(cursor + 1..).map(|(cursor, name)| {
            let (node, _) = self.by_name[name];
            (*cursor, name, node)
        })
    }

    pub(super) fn insert(&mut self, name: EntryName, node: NodeId) {
        self.next_cursor += 1;
        self.by_cursor.insert(self.next_cursor, name.clone());
        if let Some((_, old)) = self.by_name.insert(name, (node, self.next_cursor)) {
            self.by_cursor.remove(&old);
        }
    }

    /// Another node takes the place of the one behind `name`.
    pub(super) fn replace(&mut self, name: &EntryName, node: NodeId) {
        if let Some((stands, _)) = self.by_name.get_mut(name) {
            *stands = node;
        }
    }

    pub(super) fn remove(&mut self, name: &EntryName) {
        if let Some((_, cursor)) = self.by_name.remove(name) {
            self.by_cursor.remove(&cursor);
        }
    }
}
