//! Checking the volume against its disk: when asked, and slowly all the time.
//!
//! The slow check works one hundredth of the time: after each piece of work it rests ninety-nine
//! times as long as that took.

use super::Pump;
use lockstep_vfs::Verified;
use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Rest for each unit of work.
const REST_FACTOR: u32 = 99;
/// Shorter rests are taken together.
const REST_MIN: Duration = Duration::from_millis(50);
/// The first check starts this long after the volume was opened, at the latest.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(60);

/// How the checks went, for `status`.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Checks that got to their end.
    pub passes: u64,
    /// When the last one did, in seconds since 1970.
    pub last_unix_secs: Option<u64>,
    /// What it found.
    pub last: Verified,
}

impl Checks {
    /// What is wrong, if anything, in one line.
    pub fn problem(&self) -> Option<String> {
        let first = self.last.differences.first()?;
        let count = self.last.differences.len() as u64 + self.last.left_out;
        Some(format!(
            "{count} differences between the disk and what was written, the first: {} {}: \
             run `lockstep verify` to see all",
            first.path.display(),
            first.mismatch.text()
        ))
    }
}

impl Pump {
    /// Compares the whole volume with its disk, now.
    pub fn verify(&self) -> Verified {
        self.volume.announce_all();
        let verified = self.volume.verify(&|_| !self.is_closing());
        self.checked(&verified);
        verified
    }

    /// How the checks went.
    pub fn checks(&self) -> Checks {
        self.checks.lock().clone()
    }

    /// Checks again and again, without being felt.
    pub(super) fn verify_slowly(&self) {
        let mut pause = self.spec.verify_pause.min(FIRST_AFTER_MAX);
        while self.rest(pause) {
            let owed = Cell::new(Duration::ZERO);
            let verified = self.volume.verify(&|took| {
                owed.set(owed.get() + took * REST_FACTOR);
                owed.get() < REST_MIN || self.rest(owed.take())
            });
            self.checked(&verified);
            pause = self.spec.verify_pause.max(owed.take());
        }
    }

    fn checked(&self, verified: &Verified) {
        if !verified.complete {
            return;
        }
        let mut checks = self.checks.lock();
        if !verified.differences.is_empty() && checks.last.differences != verified.differences {
            let count = verified.differences.len();
            tracing::warn!(volume = %self.spec.id, count, "the disk differs from what was written");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        checks.passes += 1;
        checks.last_unix_secs = Some(now.as_secs());
        checks.last = verified.clone();
    }

    /// Rests for `pause`; false when the pump closes.
    fn rest(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.is_closing() || left.is_zero() {
                return !self.is_closing();
            }
            self.verifier.wait(left);
        }
    }
}
