//! Whether a host's daemon is alive. It can be made to die after some more changes of its disk and
//! its state: in the middle of whatever it does then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `EIO`: what everything answers to the dead.
const EIO: i32 = 5;

/// Changes left; `u64::MAX` means that nothing is planned.
#[derive(Clone)]
pub struct Power(Arc<AtomicU64>);

impl Default for Power {
    fn default() -> Self {
        Power(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Power {
    /// The daemon dies after `changes` more.
    pub fn dies_after(&self, changes: u64) {
        self.0.store(changes, Ordering::Relaxed);
    }

    pub fn restore(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    pub fn is_dead(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    pub(super) fn is_on(&self) -> io::Result<()> {
        match self.is_dead() {
            true => Err(io::Error::from_raw_os_error(EIO)),
            false => Ok(()),
        }
    }

    /// One change is about to be made.
    pub(super) fn draw(&self) -> io::Result<()> {
        self.is_on()?;
        let left = self.0.load(Ordering::Relaxed);
        if left != u64::MAX {
            self.0.store(left - 1, Ordering::Relaxed);
        }
        self.is_on()
    }
}
