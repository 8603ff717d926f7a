//! Which nodes were lately made known to the kernel.
//!
//! A lookup's answer can leave here *before* a change and be taken up by the kernel *after* the
//! invalidation of that change: the invalidation finds no inode (`ENOENT`) and the answer is then
//! cached for a day. Inodes the kernel already has are safe (it numbers attribute changes), so
//! only an unknown inode with a recent answer needs the invalidation again, a little later.
//!
//! A fixed table of times, one slot per hash: no lock on the path of a lookup, and a collision
//! costs one needless invalidation.

use lockstep_core::NodeId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SLOTS: usize = 4096;

/// How long an answer may be on its way from the reply to the kernel's inode table.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(5);

/// The time at which each node was last told to the kernel, forgotten by collision.
#[derive(Debug)]
pub struct Introduced {
    started: Instant,
    /// Milliseconds since `started`, plus one; 0 is never.
    slots: Vec<AtomicU64>,
}

impl Introduced {
    /// An empty table.
    pub fn new() -> Self {
        Introduced {
            started: Instant::now(),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Notes that an answer naming `node` is about to leave.
    pub fn mark(&self, node: NodeId) {
        self.slot(node).store(self.now_ms() + 1, Ordering::Release);
    }

    /// Whether such an answer may still be on its way.
    pub fn lately(&self, node: NodeId) -> bool {
        match self.slot(node).load(Ordering::Acquire) {
            0 => false,
            marked => u128::from(self.now_ms().saturating_sub(marked)) < ON_ITS_WAY_MAX.as_millis(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn slot(&self, node: NodeId) -> &AtomicU64 {
        // Fibonacci hashing: neighbouring counters land in different slots.
        let hash = node.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.slots[hash as usize % SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_core::Slot;

    #[test]
    fn only_marked_nodes_are_recent() {
        let table = Introduced::new();
        table.mark(NodeId::ROOT);
        assert!(table.lately(NodeId::ROOT));
        assert!(!table.lately(NodeId::new(Slot(1), 77)));
    }
}
