//! Pushing invalidations into the kernel, so that it may cache names and attributes for a day.
//!
//! Notifications are written by threads of their own, never by the caller, because they can wait:
//! for a directory's lock (`inval_entry`: a create or rename in that directory may hold it while
//! it waits for a lease) and for reads under way (`inval_node` with pages: the pages are locked
//! until we answer). One such wait must not hold up the others; but to wake a thread costs more
//! than most notifications. So one thread works, and while there is more to do another watches it:
//! when nothing gets done for [`STUCK`], the watcher goes on with the rest, and the next one watches,
//! up to [`THREADS_MAX`]. Work on one node is never split between two.
//!
//! Of a directory, names go before the listing: `inval_entry` takes the directory's lock, so when
//! it returns every lookup and listing that was answered from the older state has been taken up,
//! and dropping the listing then drops those too. `inval_entry` itself drops no listing when the
//! name is not cached.

mod device;
mod queue;

pub use device::{Device, FuseDevice, Outcome};

use super::introduced::Introduced;
use lockstep_core::NodeId;
use lockstep_vfs::KernelCache;
use parking_lot::{Condvar, Mutex, MutexGuard};
use queue::{Batch, Done, Queue, Ticketed, Work};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Most threads that may wait inside the kernel at once.
pub const THREADS_MAX: usize = 8;

/// A thread that has got nothing done for this long waits inside the kernel.
const STUCK: Duration = Duration::from_millis(2);

/// A name that is never cached, to wait for a directory's lock and nothing else.
const NO_NAME: &[u8] = b".";

/// The kernel's caches of one mount. Dropping it ends its threads once the queue is empty.
pub struct KernelNotifier {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Where the watcher waits; nobody signals it before the end.
    watching: Condvar,
    device: Box<dyn Device>,
    introduced: Arc<Introduced>,
}

struct State {
    queue: Queue,
    idle: usize,
    threads: usize,
    /// Threads that are telling the kernel something.
    working: usize,
    /// Pieces of work that are done.
    done: u64,
    /// Whether a thread was called that has not come yet.
    called: bool,
    /// Whether a thread watches those that work.
    watched: bool,
    closed: bool,
}

impl KernelNotifier {
    /// A notifier for a fresh mount (nothing is cached yet, so the epoch can be tried out).
    pub fn new(device: Box<dyn Device>, introduced: Arc<Introduced>) -> Self {
        let epochs_known = device.bump_epoch() == Outcome::Dropped;
        tracing::debug!(epochs_known, "kernel notifications");
        let queue = Queue::new(epochs_known);
        let state = Mutex::new(State {
            queue,
            idle: 0,
            threads: 0,
            working: 0,
            done: 0,
            called: false,
            watched: false,
            closed: false,
        });
        let (wake, watching) = (Condvar::new(), Condvar::new());
        KernelNotifier { shared: Arc::new(Shared { state, wake, watching, device, introduced }) }
    }

    fn queue(&self, add: impl FnOnce(&mut Queue)) {
        let mut state = self.shared.state.lock();
        add(&mut state.queue);
        self.shared.clone().rouse(&mut state);
    }
}

impl KernelCache for KernelNotifier {
    fn invalidate_node(&self, node: NodeId) {
        self.queue(|queue| queue.node(node, true));
    }

    fn invalidate_attr(&self, node: NodeId) {
        self.queue(|queue| queue.node(node, false));
    }

    fn invalidate_entry(&self, parent: NodeId, name: &[u8]) {
        self.queue(|queue| queue.name(parent, name));
    }

    fn after(&self, done: Done) {
        self.queue(|queue| queue.barrier(done));
    }
}

impl Shared {
    /// Calls an idle thread, or makes one, if there is work and nobody to see to it; with all busy,
    /// one of them comes round.
    fn rouse(self: Arc<Self>, state: &mut State) {
        if state.called || !state.queue.has_work() || state.working > 0 && state.watched {
            return;
        }
        if state.idle > 0 {
            state.called = true;
            self.wake.notify_one();
        } else if state.threads < THREADS_MAX {
            state.called = true;
            state.threads += 1;
            let shared = self.clone();
            let spawned = thread::Builder::new()
                .name("fuse-notify".into())
                .spawn(move || while shared.step() {});
            if let Err(error) = spawned {
                tracing::warn!(%error, "no further thread for kernel notifications");
                state.threads -= 1;
                state.called = false;
            }
        }
    }

    /// Does one thing, or waits for one; false when the thread should end.
    fn step(self: &Arc<Self>) -> bool {
        let mut state = self.state.lock();
        state.called = false;
        state.queue.requeue_due(Instant::now());
        if let Some(done) = state.queue.ready() {
            self.clone().rouse(&mut state);
            drop(state);
            done();
            return true;
        }
        if state.working == 0 || self.are_stuck(&mut state) {
            if let Some(next) = state.queue.take() {
                self.work(state, &next);
                return true;
            }
        } else if state.queue.has_work() && !state.watched {
            return true;
        }
        if state.closed {
            return false;
        }
        state.idle += 1;
        match state.queue.wake_at() {
            Some(due) => drop(self.wake.wait_until(&mut state, due)),
            None => self.wake.wait(&mut state),
        }
        state.idle -= 1;
        true
    }

    fn work(self: &Arc<Self>, mut state: MutexGuard<'_, State>, next: &Ticketed) {
        state.working += 1;
        self.clone().rouse(&mut state);
        drop(state);
        let unknown = self.deliver(&next.batch);
        let mut state = self.state.lock();
        state.working -= 1;
        state.done += 1;
        if let Some((node, work)) = unknown {
            state.queue.again(Instant::now(), node, work);
        }
        state.queue.finish(next);
    }

    /// Watches those that work, unless another does or there is nothing else to do. Whether they
    /// get nothing done.
    fn are_stuck(&self, state: &mut MutexGuard<'_, State>) -> bool {
        if state.watched || !state.queue.has_work() {
            return false;
        }
        let done = state.done;
        state.watched = true;
        self.watching.wait_for(state, STUCK);
        state.watched = false;
        state.done == done && state.working > 0
    }

    /// Tells the kernel; gives back the node whose inode may be about to appear with an older
    /// answer.
    fn deliver<'a>(&self, batch: &'a Batch) -> Option<(NodeId, &'a Work)> {
        let Batch::Node(node, work) = batch else {
            self.device.bump_epoch();
            return None;
        };
        for name in &work.names {
            self.device.inval_entry(*node, name);
        }
        if work.listing && work.names.is_empty() {
            self.device.inval_entry(*node, NO_NAME);
        }
        let outcome = self.device.inval_node(*node, work.pages || work.listing);
        tracing::trace!(%node, names = work.names.len(), ?outcome, "invalidated");
        (outcome == Outcome::Unknown && self.introduced.lately(*node)).then_some((*node, work))
    }
}

impl Drop for KernelNotifier {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_all();
        self.shared.watching.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    #[derive(Debug, PartialEq, Eq)]
    enum Told {
        Node(NodeId, bool),
        Entry(NodeId, Vec<u8>),
    }

    /// Notes what it is told; telling it of `stuck` waits until the test lets go.
    struct Notebook {
        told: Sender<Told>,
        stuck: NodeId,
        gate: Mutex<Receiver<()>>,
        outcome: Outcome,
    }

    impl Device for Notebook {
        fn inval_node(&self, node: NodeId, pages: bool) -> Outcome {
            if node == self.stuck {
                let _ = self.gate.lock().recv();
            }
            self.told.send(Told::Node(node, pages)).unwrap();
            self.outcome
        }
        fn inval_entry(&self, parent: NodeId, name: &[u8]) -> Outcome {
            self.told.send(Told::Entry(parent, name.to_vec())).unwrap();
            self.outcome
        }
        fn bump_epoch(&self) -> Outcome {
            Outcome::Dropped
        }
    }

    fn notifier(outcome: Outcome) -> (KernelNotifier, Receiver<Told>, Sender<()>, Arc<Introduced>) {
        let (told, seen) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let gate = Mutex::new(gate);
        let device = Notebook { told, stuck: NodeId(66), gate, outcome };
        let introduced = Arc::new(Introduced::new());
        (KernelNotifier::new(Box::new(device), introduced.clone()), seen, open, introduced)
    }

    #[test]
    fn names_go_before_the_listing_that_may_hold_them() {
        let (cache, seen, _open, _) = notifier(Outcome::Dropped);
        cache.invalidate_entry(NodeId(5), b"x");
        assert_eq!(seen.recv_timeout(SOON), Ok(Told::Entry(NodeId(5), b"x".to_vec())));
        assert_eq!(seen.recv_timeout(SOON), Ok(Told::Node(NodeId(5), true)));
    }

    #[test]
    fn a_stuck_notification_holds_up_barriers_but_no_other_node() {
        let (cache, seen, open, _) = notifier(Outcome::Dropped);
        let (done, reached) = mpsc::channel();
        cache.invalidate_node(NodeId(66));
        cache.after(Box::new(move || done.send(()).unwrap()));
        cache.invalidate_attr(NodeId(7));
        assert_eq!(seen.recv_timeout(SOON), Ok(Told::Node(NodeId(7), false)));
        assert!(reached.try_recv().is_err());
        open.send(()).unwrap();
        assert_eq!(seen.recv_timeout(SOON), Ok(Told::Node(NodeId(66), true)));
        assert_eq!(reached.recv_timeout(SOON), Ok(()));
    }

    #[test]
    fn an_inode_that_is_about_to_appear_is_invalidated_again() {
        let (cache, seen, _open, introduced) = notifier(Outcome::Unknown);
        introduced.mark(NodeId(8));
        cache.invalidate_node(NodeId(8));
        for _ in 0..2 {
            assert_eq!(seen.recv_timeout(SOON), Ok(Told::Node(NodeId(8), true)));
        }
    }

    #[test]
    fn dropping_the_notifier_still_delivers_what_was_queued() {
        let (cache, seen, open, _) = notifier(Outcome::Dropped);
        cache.invalidate_node(NodeId(66));
        cache.invalidate_attr(NodeId(7));
        drop((cache, open));
        let mut nodes: Vec<_> = seen.iter().collect();
        nodes.sort_by_key(|told| format!("{told:?}"));
        assert_eq!(nodes.len(), 2);
    }
}
