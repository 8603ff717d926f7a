//! Two real daemons of this binary on loopback, with real mounts, driven through the real command line.

pub mod command;
#[path = "../../../../fuzz/mutated.rs"]
pub mod dice;
pub mod environment;
pub mod git;
pub mod line;
pub mod mapping;
pub mod pair;
pub mod peer;
pub mod power;
pub mod repository;
pub mod scratch;
pub mod tree;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Polls `holds` until it does; panics naming `what` when `deadline` has passed.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !holds() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The deadline for anything that takes milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Sets the flag when it goes, also by a panic: what the other threads of a test watch.
pub struct SetOnDrop<'f>(pub &'f AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connected [`pair::Pair`], or an early return from the test where there is no FUSE.
macro_rules! connected {
    () => {
        crate::support::connected!(crate::support::pair::Layout::default())
    };
    ($layout:expr) => {
        match crate::support::pair::Pair::connected($layout) {
            Some(pair) => pair,
            None => return,
        }
    };
}
pub(crate) use connected;
