//! Threads for the calls that wait for another peer, so that the few workers that read
//! `/dev/fuse` never do.
//!
//! A thread is made when a job finds none idle, up to [`THREADS_MAX`]; beyond that jobs queue, and
//! when the queue is full too the worker that brought the job runs it itself: the kernel's
//! requests then wait in the kernel.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Most calls that wait at once.
pub const THREADS_MAX: usize = 64;
/// Most calls queued behind them.
pub const QUEUE_MAX: usize = 1024;
/// An idle thread ends after this.
const IDLE_MAX: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The pool; dropping it lets the queued jobs finish and its threads end.
pub struct WaitingPool {
    shared: Arc<Shared>,
    threads_max: usize,
    queue_max: usize,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    idle: usize,
    threads: usize,
    closed: bool,
}

enum Place {
    Queued,
    NewThread(Job),
    Here(Job),
}

impl WaitingPool {
    /// A pool without threads yet.
    pub fn new() -> Self {
        Self::with_limits(THREADS_MAX, QUEUE_MAX)
    }

    fn with_limits(threads_max: usize, queue_max: usize) -> Self {
        let shared = Shared { state: Mutex::default(), wake: Condvar::new() };
        WaitingPool { shared: Arc::new(shared), threads_max, queue_max }
    }

    /// Runs `job` on another thread, or here if all are busy and the queue is full.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        match self.place(Box::new(job)) {
            Place::Queued => {}
            Place::NewThread(job) => self.spawn(job),
            Place::Here(job) => job(),
        }
    }

    fn place(&self, job: Job) -> Place {
        let mut state = self.shared.state.lock();
        if state.idle > state.queue.len() {
            state.queue.push_back(job);
            self.shared.wake.notify_one();
            return Place::Queued;
        }
        if state.threads < self.threads_max {
            state.threads += 1;
            return Place::NewThread(job);
        }
        if state.queue.len() < self.queue_max {
            state.queue.push_back(job);
            return Place::Queued;
        }
        Place::Here(job)
    }

    fn spawn(&self, first: Job) {
        // The job is handed over through the queue, so that a refused thread leaves it in our hands.
        let shared = self.shared.clone();
        let slot = Arc::new(Mutex::new(Some(first)));
        let theirs = slot.clone();
        let spawned = thread::Builder::new().name("fuse-wait".into()).spawn(move || {
            let first = theirs.lock().take();
            if let Some(job) = first {
                run_guarded(job);
            }
            shared.work();
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a waiting call; running it on a worker");
            self.shared.state.lock().threads -= 1;
            let job = slot.lock().take();
            if let Some(job) = job {
                job();
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            run_guarded(job);
        }
    }

    /// The next job, or `None` when this thread should end (already uncounted).
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let waited = self.wake.wait_for(&mut state, IDLE_MAX);
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        None
    }
}

/// A panic must not shrink the pool; the reply it drops answers `EIO`.
fn run_guarded(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a waiting call panicked; it was answered with EIO");
    }
}

impl Drop for WaitingPool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn blocked_calls_do_not_hold_up_others_until_the_limit() {
        let pool = WaitingPool::with_limits(3, 8);
        let (done, results) = mpsc::channel();
        let gates: Vec<_> = (0..2)
            .map(|i| {
                let (open, gate) = mpsc::channel::<()>();
                let done = done.clone();
                pool.run(move || {
                    let _ = gate.recv();
                    done.send(i).expect("the test waits");
                });
                open
            })
            .collect();
        let third = done.clone();
        pool.run(move || third.send(9).expect("the test waits"));
        assert_eq!(results.recv_timeout(SOON), Ok(9));
        drop(gates);
        let mut rest = [(); 2].map(|()| results.recv_timeout(SOON).unwrap());
        rest.sort();
        assert_eq!(rest, [0, 1]);
    }

    #[test]
    fn a_full_pool_makes_the_caller_run_the_job() {
        let pool = WaitingPool::with_limits(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        let (done, results) = mpsc::channel();
        pool.run(move || {
            let _ = gate.recv();
        });
        let queued = done.clone();
        pool.run(move || queued.send("queued").expect("the test waits"));
        let caller = thread::current().id();
        pool.run(move || {
            assert_eq!(thread::current().id(), caller);
            done.send("here").expect("the test waits");
        });
        assert_eq!(results.recv_timeout(SOON), Ok("here"));
        drop(open);
        assert_eq!(results.recv_timeout(SOON), Ok("queued"));
    }

    #[test]
    fn a_panic_does_not_cost_a_thread() {
        let pool = WaitingPool::with_limits(1, 8);
        let (done, results) = mpsc::channel();
        pool.run(|| panic!("on purpose"));
        pool.run(move || done.send(()).expect("the test waits"));
        assert_eq!(results.recv_timeout(SOON), Ok(()));
    }
}
