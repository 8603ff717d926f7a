//! Files whose content is being replaced, and the moment at which an open one turns to the new.
//!
//! What a read is short of the kernel fills with zeros, up to the length it knows, unless it takes
//! the shorter length from the answer; and it does not take it if it was told, while the read was on
//! its way, that what it knows is stale. So of an open file it is told first, while the old content
//! still stands: that waits for the reads on their way. If it has asked for nothing since, the file
//! turns, and there is nothing to tell it any more. Else it is told again.

use crate::volume::Volume;
use lockstep_core::NodeId;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Files whose content is being replaced: opens of them wait until the kernel knows.
#[derive(Default, Debug)]
pub(crate) struct Replacing {
    nodes: Mutex<BTreeMap<NodeId, Replacement>>,
    /// How many `nodes` are, to be looked at without the lock.
    count: AtomicUsize,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct Replacement {
    /// How many replacements are not finished.
    unfinished: usize,
    /// How often the kernel has asked for what may be replaced.
    asked: u64,
    /// Whether reads wait.
    shut: bool,
}

impl Replacing {
    pub(crate) fn start(&self, node: NodeId) {
        let mut nodes = self.nodes.lock();
        nodes.entry(node).or_default().unfinished += 1;
        self.count.store(nodes.len(), Ordering::Release);
    }

    pub(crate) fn finish(&self, node: NodeId) {
        let mut nodes = self.nodes.lock();
        if let Some(replacement) = nodes.get_mut(&node) {
            replacement.unfinished -= 1;
            if replacement.unfinished == 0 {
                nodes.remove(&node);
            }
        }
        self.count.store(nodes.len(), Ordering::Release);
        self.changed.notify_all();
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.nodes.lock().contains_key(&node)
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

    /// The kernel asks for attributes, and is told those of the content that stands.
    pub(crate) fn answers(&self, node: NodeId) {
        if self.count.load(Ordering::Acquire) > 0
            && let Some(replacement) = self.nodes.lock().get_mut(&node)
        {
            replacement.asked += 1;
        }
    }

    /// The kernel reads: waits while the file turns.
    pub(crate) fn reads(&self, node: NodeId) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut nodes = self.nodes.lock();
        while nodes.get(&node).is_some_and(|replacement| replacement.shut) {
            self.changed.wait(&mut nodes);
        }
        if let Some(replacement) = nodes.get_mut(&node) {
            replacement.asked += 1;
        }
    }

    fn asked(&self, node: NodeId) -> u64 {
        self.nodes.lock().get(&node).map_or(0, |replacement| replacement.asked)
    }

    /// Reads wait from now on, if the kernel has asked for nothing since it had `asked`.
    fn shut(&self, node: NodeId, asked: u64) -> bool {
        let mut nodes = self.nodes.lock();
        let Some(replacement) = nodes.get_mut(&node) else { return false };
        let quiet = replacement.asked == asked;
        replacement.shut |= quiet;
        quiet
    }

    fn open_up(&self, node: NodeId) {
        if let Some(replacement) = self.nodes.lock().get_mut(&node) {
            replacement.shut = false;
        }
        self.changed.notify_all();
    }
}

/// The kernel knows nothing of an open file, and its reads wait, until this is dropped.
pub(crate) struct Quiet {
    replacing: Arc<Replacing>,
    node: NodeId,
    asked: u64,
}

impl Quiet {
    /// Whether the kernel has not asked for attributes either. The caller holds the state.
    pub(crate) fn holds(&self) -> bool {
        self.replacing.asked(self.node) == self.asked
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.replacing.open_up(self.node);
    }
}

impl Volume {
    /// Has the kernel forget what it knows of `node`, which is being replaced, until it asks for
    /// nothing any more. `None` if it still does at `deadline`, or if there is no kernel.
    pub(crate) fn quiet(&self, node: NodeId, deadline: Instant) -> Option<Quiet> {
        let cache = self.cache()?;
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            let (replacing, asked) = (self.replacing.clone(), self.replacing.asked(node));
            let (tell, told) = mpsc::channel();
            cache.invalidate_node(node);
            cache.after(Box::new(move || {
                let quiet = replacing.shut(node, asked);
                if tell.send(quiet).is_err() && quiet {
                    replacing.open_up(node);
                }
            }));
            match told.recv_timeout(left) {
                Ok(true) => return Some(Quiet { replacing: self.replacing.clone(), node, asked }),
                Ok(false) => {}
                Err(_) => {
                    drop(told);
                    self.replacing.open_up(node);
                    return None;
                }
            }
        }
    }
}
