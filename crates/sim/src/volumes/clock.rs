//! Virtual time: it passes only when the world, or a call that waits, lets it.

use crate::rng::Rng;
use lockstep_vfs::Clock;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When every run begins: some day in 2026.
const START: Duration = Duration::from_secs(1_780_000_000);
/// What reading the time takes: no two moments are one.
const TICK: Duration = Duration::from_nanos(100);

/// The clock of all hosts, and where runs of daemons get their random numbers.
pub struct SimClock(Mutex<Inner>);

struct Inner {
    running: Duration,
    rng: Rng,
}

impl SimClock {
    pub fn new(rng: Rng) -> Self {
        SimClock(Mutex::new(Inner { running: Duration::ZERO, rng }))
    }

    pub fn advance(&self, by: Duration) {
        self.inner().running += by;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn wall(&self) -> Duration {
        START + self.running()
    }

    fn running(&self) -> Duration {
        let mut inner = self.inner();
        inner.running += TICK;
        inner.running
    }

    fn random(&self) -> u64 {
        self.inner().rng.bits()
    }

    /// Nothing else happens meanwhile: who waits for others waits to the end.
    fn pause(&self, timeout: Duration, _wait: &mut dyn FnMut(Duration)) {
        self.advance(timeout);
    }
}
