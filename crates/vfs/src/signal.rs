//! A wake-up that is never lost: raised any number of times, seen once.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

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
