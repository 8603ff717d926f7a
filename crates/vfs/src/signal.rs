//! A wake-up that is never lost: raised any number of times, seen once.

use lockstep_core::NodeId;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Tells one waiting thread that there is something to do.
#[derive(Default, Debug)]
pub struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Wakes the waiter, now or at its next wait.
    pub fn raise(&self) {
        let mut raised = self.raised.lock();
        if !*raised {
            *raised = true;
            self.changed.notify_all();
        }
    }

    /// Waits until raised, at most `timeout`, and lowers it.
    pub fn wait(&self, timeout: Duration) {
        let mut raised = self.raised.lock();
        if !*raised {
            self.changed.wait_for(&mut raised, timeout);
        }
        *raised = false;
    }
}

/// Files whose content is being replaced: opens of them wait until the kernel knows.
#[derive(Default, Debug)]
pub(crate) struct Replacing {
    /// How many replacements of each are not finished.
    nodes: Mutex<BTreeMap<NodeId, usize>>,
    changed: Condvar,
}

impl Replacing {
    pub(crate) fn start(&self, node: NodeId) {
        *self.nodes.lock().entry(node).or_default() += 1;
    }

    pub(crate) fn finish(&self, node: NodeId) {
        let mut nodes = self.nodes.lock();
        if let Some(count) = nodes.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(&node);
            }
        }
        self.changed.notify_all();
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.nodes.lock().contains_key(&node)
    }

    /// A reader closed a file: whoever waits for readers looks again.
    pub(crate) fn reader_left(&self) {
        self.changed.notify_all();
    }

    pub(crate) fn wait_change(&self, timeout: Duration) {
        self.changed.wait_for(&mut self.nodes.lock(), timeout);
    }

    /// False if it is still being replaced at `deadline`.
    pub(crate) fn wait_finished(&self, node: NodeId, deadline: Instant) -> bool {
        let mut nodes = self.nodes.lock();
        while nodes.contains_key(&node) {
            if self.changed.wait_until(&mut nodes, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}
