//! The recent part of the own change log, and how far each peer has it.

use crate::change::Change;
use crate::ids::{Sequence, Slot};
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Changes kept in memory; older ones are read from disk.
const RECENT_CHANGES_MAX: usize = 16_384;

/// Numbered changes, oldest first, without gaps.
#[derive(Debug)]
pub struct Log {
    recent: VecDeque<Change>,
    /// Number before the first of `recent`.
    before: Sequence,
    acked: BTreeMap<Slot, Acked>,
    /// Acknowledgements of earlier runs, by peers that are not known yet.
    remembered: BTreeMap<Slot, Acked>,
    /// What peers said of themselves in this session.
    heard: BTreeMap<Slot, Heard>,
}

/// What a peer said at one moment, at the earliest.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// It had this log up to here, with all content.
    complete: Sequence,
    /// The last change in its own log.
    last: Sequence,
}

/// How far a peer has this log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// Applied there and safe from a crash of its daemon.
    pub applied: Sequence,
    /// On its disk for good.
    pub durable: Sequence,
    /// Up to here all content is on its disk too.
    pub complete: Sequence,
}

impl Log {
    /// An empty window after change `before`.
    pub fn starting_after(before: Sequence) -> Self {
        let (recent, acked) = (VecDeque::new(), BTreeMap::new());
        Log { recent, before, acked, remembered: BTreeMap::new(), heard: BTreeMap::new() }
    }

    /// Adds changes that were written down. Those from before a [`Log::jump`] are not offered.
    pub fn append(&mut self, changes: impl IntoIterator<Item = Change>) {
        let last = self.last();
        self.recent.extend(changes.into_iter().filter(|change| change.seq > last));
        while self.recent.len() > RECENT_CHANGES_MAX {
            self.before = self.recent.pop_front().map_or(self.before, |c| c.seq);
        }
    }

    /// Last change offered to peers.
    pub fn last(&self) -> Sequence {
        self.recent.back().map_or(self.before, |c| c.seq)
    }

    /// Up to `max` changes after `cursor`; `None` if they are no longer in memory.
    pub fn after(&self, cursor: Sequence, max: usize) -> Option<Vec<Change>> {
        let skip = cursor.0.checked_sub(self.before.0)? as usize;
        Some(self.recent.iter().skip(skip).take(max).cloned().collect())
    }

    /// The log goes on after `number`; nothing before it is offered any more.
    pub fn jump(&mut self, number: Sequence) {
        self.recent.clear();
        self.before = number;
    }

    /// A peer opens a session with the log up to `applied`, which may be less than it had: its
    /// state may have been put back.
    pub fn meet(&mut self, peer: Slot, applied: Sequence) {
        self.heard.remove(&peer);
        let acked = self.acked.entry(peer).or_default();
        acked.applied = applied;
        acked.durable = acked.durable.min(applied);
        acked.complete = acked.complete.min(applied);
    }

    /// A peer is known: nothing it lacks is trimmed.
    pub fn add_peer(&mut self, peer: Slot) {
        let remembered = self.remembered.remove(&peer).unwrap_or_default();
        self.acked.entry(peer).or_insert(remembered);
    }

    /// What peers had acknowledged in earlier runs, for when they are known again.
    pub fn remember(&mut self, acked: BTreeMap<Slot, Acked>) {
        self.remembered = acked;
    }

    /// What all peers have acknowledged.
    pub fn all_acked(&self) -> &BTreeMap<Slot, Acked> {
        &self.acked
    }

    /// Number of peers known.
    pub fn peers(&self) -> usize {
        self.acked.len()
    }

    /// Records a peer's acknowledgement; cursors only move forward.
    pub fn ack(&mut self, peer: Slot, applied: Sequence, durable: Sequence, complete: bool) {
        if planted::has(Bug::SkipAck) {
            return;
        }
        let acked = self.acked.entry(peer).or_default();
        acked.applied = acked.applied.max(applied);
        acked.durable = acked.durable.max(durable);
        if complete {
            acked.complete = acked.complete.max(durable);
        }
    }

    /// A peer says that it has this log through `complete`, with all content, and that `last` is
    /// the last change in its own: what it made without knowing of `complete` ends there.
    pub fn hear(&mut self, peer: Slot, complete: Sequence, last: Sequence) {
        let heard = self.heard.entry(peer).or_default();
        heard.complete = heard.complete.max(complete);
        heard.last = heard.last.max(last);
    }

    /// What `peer` said of itself last: up to where it has this log with all content, and the last
    /// change in its own.
    pub fn heard(&self, peer: Slot) -> Option<(Sequence, Sequence)> {
        self.heard.get(&peer).map(|heard| (heard.complete, heard.last))
    }

    /// Where the changes end that `peer` may have made without knowing of `seq`; `None` while it
    /// has not said that it has `seq`.
    pub fn unaware_through(&self, peer: Slot, seq: Sequence) -> Option<Sequence> {
        self.heard.get(&peer).filter(|heard| heard.complete >= seq).map(|heard| heard.last)
    }

    /// How far `peer` has this log.
    pub fn acked(&self, peer: Slot) -> Acked {
        self.acked.get(&peer).copied().unwrap_or_default()
    }

    /// Last change that every peer has for good: the log may be trimmed through it. `None` without
    /// peers.
    pub fn trimmable(&self) -> Option<Sequence> {
        self.acked.values().map(|acked| acked.durable).min()
    }

    /// Lamport time of the change numbered `seq`, if it is still in memory.
    pub fn lamport_at(&self, seq: Sequence) -> Option<u64> {
        let index = seq.0.checked_sub(self.before.0 + 1)? as usize;
        self.recent.get(index).map(|change| change.version.lamport)
    }

    /// The change every peer has, content included: what was removed before it needs no copy.
    pub fn complete_everywhere(&self) -> Option<Sequence> {
        self.acked.values().map(|acked| acked.complete).min()
    }
}
