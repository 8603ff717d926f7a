//! Time and chance come from outside: a simulator has its own.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a volume takes for the time, and how it lets time pass.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, since 1970.
    fn wall(&self) -> Duration;
    /// Time since some fixed moment; it never goes back.
    fn running(&self) -> Duration;
    /// A number that no other run draws.
    fn random(&self) -> u64;
    /// Lets time pass while a call waits: `wait` returns after the time given to it, or when it is
    /// woken. No lock is held.
    fn pause(&self, timeout: Duration, wait: &mut dyn FnMut(Duration)) {
        wait(timeout);
    }
}

/// The system's clock.
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn running(&self) -> Duration {
        self.started.elapsed()
    }

    fn random(&self) -> u64 {
        RandomState::new().hash_one(self.wall())
    }
}
