//! When a written file's content is announced.
//!
//! The first change of a quiet file leaves at once. Repeats shortly after are announced once, the
//! deadline moving with each: by [`CONTENT_DEBOUNCE_MIN_MS`], or for a file whose announcement is
//! expensive by ten times its cost, up to [`CONTENT_DEBOUNCE_MS`]. It never moves further than ten
//! such pauses ([`CONTENT_DEBOUNCE_MAX_MS`]): a file rewritten all the time must not starve.

use crate::ids::NodeId;
use crate::limits::{
    CONTENT_DEBOUNCE_MAX_MS, CONTENT_DEBOUNCE_MIN_MS, CONTENT_DEBOUNCE_MS, CONTENT_OPEN_ANNOUNCE_MS,
};
use std::collections::BTreeMap;

/// Which files have unannounced writes, and when each is due. Times are milliseconds of any
/// monotonic clock.
#[derive(Debug, Default)]
pub struct Announcements {
    dirty: BTreeMap<NodeId, Dirty>,
    last: BTreeMap<NodeId, Last>,
    /// How many of them there may be before those of long ago are forgotten.
    last_max: usize,
}

/// When a file was last announced, and how long that took.
#[derive(Clone, Copy, Debug)]
struct Last {
    at_ms: u64,
    cost_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Dirty {
    since_ms: u64,
    due_ms: u64,
    closed: bool,
}

impl Announcements {
    /// Bytes of `node` were written through an open file. While it stays open it is announced
    /// every second, or, if that is expensive, so seldom that at most a tenth of the time goes
    /// into it.
    pub fn wrote(&mut self, node: NodeId, now_ms: u64) {
        let cost_ms = self.last.get(&node).map_or(0, |last| last.cost_ms);
        let due_ms = now_ms + CONTENT_OPEN_ANNOUNCE_MS.max(10 * cost_ms);
        let fresh = Dirty { since_ms: now_ms, due_ms, closed: false };
        let dirty = self.dirty.entry(node).or_insert(fresh);
        if dirty.closed {
            *dirty = Dirty { since_ms: dirty.since_ms, ..fresh };
        }
    }

    /// The last writer of `node` closed it. Whether it is due at once.
    pub fn closed(&mut self, node: NodeId, now_ms: u64) -> bool {
        let pause_ms = self.last.get(&node).map_or(0, |last| {
            let pause_ms = pause_ms(last.cost_ms);
            if now_ms >= last.at_ms + pause_ms { 0 } else { pause_ms }
        });
        let Some(dirty) = self.dirty.get_mut(&node) else { return false };
        dirty.closed = true;
        let latest = dirty.since_ms + pause_ms * PAUSES_MAX;
        dirty.due_ms = (now_ms + pause_ms).min(latest);
        dirty.due_ms <= now_ms
    }

    /// `node` is to be announced now (`fsync`, or a peer's change waits for it).
    pub fn hasten(&mut self, node: NodeId, now_ms: u64) {
        if let Some(dirty) = self.dirty.get_mut(&node) {
            dirty.due_ms = dirty.due_ms.min(now_ms);
        }
    }

    /// Everything is to be announced now.
    pub fn hasten_all(&mut self, now_ms: u64) {
        for dirty in self.dirty.values_mut() {
            dirty.due_ms = dirty.due_ms.min(now_ms);
        }
    }

    /// Whether `node` is due.
    pub fn is_due(&self, node: NodeId, now_ms: u64) -> bool {
        self.dirty.get(&node).is_some_and(|dirty| dirty.due_ms <= now_ms)
    }

    /// Files that are due; they stay until [`Announcements::announced`].
    pub fn due(&self, now_ms: u64) -> Vec<NodeId> {
        self.dirty.iter().filter(|(_, d)| d.due_ms <= now_ms).map(|(node, _)| *node).collect()
    }

    /// All writes of `node` so far were announced, which took `cost_ms`.
    pub fn announced(&mut self, node: NodeId, now_ms: u64, cost_ms: u64) {
        self.dirty.remove(&node);
        self.last.insert(node, Last { at_ms: now_ms, cost_ms });
        if self.last.len() > self.last_max.max(LAST_MIN) {
            self.last.retain(|_, last| now_ms < last.at_ms + CONTENT_DEBOUNCE_MAX_MS);
            self.last_max = 2 * self.last.len();
        }
    }

    /// `node` could not be announced: tries again after `pause_ms`.
    pub fn postpone(&mut self, node: NodeId, now_ms: u64, pause_ms: u64) {
        if let Some(dirty) = self.dirty.get_mut(&node) {
            dirty.due_ms = now_ms + pause_ms;
        }
    }

    /// `node` is gone.
    pub fn forget(&mut self, node: NodeId) {
        self.dirty.remove(&node);
        self.last.remove(&node);
    }

    /// When the next file is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.dirty.values().map(|d| d.due_ms).min()
    }

    /// Files with unannounced writes.
    pub fn len(&self) -> usize {
        self.dirty.len()
    }

    /// Whether everything is announced.
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
    }
}

/// So many files announced last are always remembered.
const LAST_MIN: usize = 4096;
/// Pauses by which repeats may put an announcement off.
const PAUSES_MAX: u64 = CONTENT_DEBOUNCE_MAX_MS / CONTENT_DEBOUNCE_MS;

/// How long a repeat of an announcement that took `cost_ms` waits for company.
fn pause_ms(cost_ms: u64) -> u64 {
    (10 * cost_ms).clamp(CONTENT_DEBOUNCE_MIN_MS, CONTENT_DEBOUNCE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    const NODE: NodeId = NodeId(7);

    #[test]
    fn the_first_close_of_a_quiet_file_is_due_at_once() {
        let mut a = Announcements::default();
        a.wrote(NODE, 0);
        assert!(a.due(0).is_empty());
        assert!(a.closed(NODE, 5));
        assert_eq!(a.due(5), [NODE]);
    }

    #[test]
    fn a_file_rewritten_all_the_time_is_announced_within_two_seconds() {
        let mut a = Announcements::default();
        a.wrote(NODE, 0);
        a.closed(NODE, 0);
        a.announced(NODE, 0, 1_000);
        let mut announced_at = None;
        for now in (150..4000).step_by(150) {
            a.wrote(NODE, now);
            a.closed(NODE, now);
            if !a.due(now).is_empty() {
                announced_at = Some(now);
                break;
            }
        }
        assert!(
            announced_at.is_some_and(|at| at <= 150 + CONTENT_DEBOUNCE_MAX_MS),
            "{announced_at:?}"
        );
    }

    #[test]
    fn a_small_file_overwritten_again_is_announced_within_twenty_milliseconds() {
        let mut a = Announcements::default();
        a.wrote(NODE, 0);
        a.closed(NODE, 0);
        a.announced(NODE, 0, 0);
        a.wrote(NODE, 3);
        assert!(!a.closed(NODE, 3));
        assert_eq!(a.due(3 + CONTENT_DEBOUNCE_MIN_MS), [NODE]);
    }

    #[test]
    fn a_file_held_open_is_announced_every_second() {
        let mut a = Announcements::default();
        a.wrote(NODE, 0);
        a.wrote(NODE, 900);
        assert!(a.due(999).is_empty());
        assert_eq!(a.due(1000), [NODE]);
    }
}
