//! Who wrote what: every state a file's bytes ever had, and the versions that nobody gave up.

use lockstep_core::{ContentRef, NodeId};
use lockstep_disk::describe_bytes;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hasher};

/// A content, by a hash of its bytes. Every content that is written is unlike all others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ContentId(u64);

impl ContentId {
    pub fn of(bytes: &[u8]) -> ContentId {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        ContentId(hasher.finish())
    }
}

/// A finished version of a file.
#[derive(Clone, Debug)]
pub struct Version {
    /// The host where it was written.
    pub who: usize,
    /// The file it was written to, where that is known.
    pub node: Option<NodeId>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Ledger {
    /// Bytes that some file had between two calls.
    known: BTreeSet<ContentId>,
    /// Versions that must not be lost.
    pub alive: BTreeMap<ContentId, Version>,
    /// What was removed below, with the last name of its file: nobody kept the bytes.
    removed_below: HashSet<ContentRef>,
    /// What was made durable by `fsync`, by host.
    pub synced: BTreeSet<(usize, ContentId)>,
}

impl Ledger {
    /// A file has these bytes, finished or not.
    pub fn seen(&mut self, bytes: &[u8]) {
        self.known.insert(ContentId::of(bytes));
    }

    /// Whether a file may show these bytes.
    pub fn is_known(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.known.contains(&ContentId::of(bytes))
    }

    /// Somebody finished these bytes.
    pub fn finished(&mut self, who: usize, node: Option<NodeId>, bytes: &[u8]) {
        self.seen(bytes);
        if !bytes.is_empty() {
            self.alive.insert(ContentId::of(bytes), Version { who, node });
        }
    }

    /// `fsync` returned for a file with these bytes.
    pub fn fsynced(&mut self, who: usize, bytes: &[u8]) {
        self.synced.insert((who, ContentId::of(bytes)));
    }

    /// Somebody who saw these bytes replaced or removed them.
    pub fn given_up(&mut self, bytes: &[u8]) {
        self.alive.remove(&ContentId::of(bytes));
    }

    /// Somebody removed a file with these bytes below, where no daemon keeps them: whoever still
    /// names the file may be left without.
    pub fn removed_below(&mut self, bytes: &[u8]) {
        self.given_up(bytes);
        self.removed_below.insert(describe_bytes(bytes).content);
    }

    /// Whether nobody need have this content.
    pub fn was_removed_below(&self, content: ContentRef) -> bool {
        self.removed_below.contains(&content)
    }

    /// Somebody replaced or removed a file whose bytes were not there: whichever they were.
    pub fn given_up_unseen(&mut self, node: NodeId) {
        self.alive.retain(|_, version| version.node != Some(node));
    }

    /// What was written at `who` and is gone with the power, unless `elsewhere` has it.
    pub fn lost_power(&mut self, who: usize, elsewhere: &BTreeSet<ContentId>) {
        let synced = &self.synced;
        self.alive.retain(|id, version| {
            version.who != who || synced.contains(&(who, *id)) || elsewhere.contains(id)
        });
    }
}
