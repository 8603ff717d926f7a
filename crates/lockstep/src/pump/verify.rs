//! Checking the volume against its disk and its peers: when asked, and slowly all the time.
//!
//! The slow check works one hundredth of the time: after each piece of work it rests ninety-nine
//! times as long as that took.

use super::Pump;
use super::peer::Peer;
use lockstep_core::NodeRange;
use lockstep_vfs::{Differing, Verified};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Rest for each unit of work.
const REST_FACTOR: u32 = 99;
/// Shorter rests are taken together.
const REST_MIN: Duration = Duration::from_millis(50);
/// The first check starts this long after the volume was opened, at the latest.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(60);

/// How long a comparison with a peer waits for what is on its way.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);
/// Pause between the looks of the slow check.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A comparison with one peer.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The peer's host.
    pub peer: String,
    /// What differs, or why the two could not be compared.
    pub differing: Result<Vec<Differing>, String>,
}

/// How the checks went, for `status`.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Checks that got to their end.
    pub passes: u64,
    /// When the last one did, in seconds since 1970.
    pub last_unix_secs: Option<u64>,
    /// What it found below.
    pub last: Verified,
    /// Nodes that a peer has otherwise, by the peer's host, at the last comparison.
    pub unlike: BTreeMap<String, u64>,
}

impl Checks {
    /// What is wrong, each in one line.
    pub fn problems(&self) -> Vec<String> {
        let unlike = self.unlike.iter().filter(|(_, count)| **count > 0);
        let unlike = unlike.map(|(peer, count)| {
            format!("{count} files or directories differ from {peer}: run `lockstep verify` to see")
        });
        self.problem_below().into_iter().chain(unlike).collect()
    }

    fn problem_below(&self) -> Option<String> {
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

    /// Compares the volume with every peer that is connected.
    pub fn compare(&self) -> Vec<Compared> {
        self.compare_all(&|| self.wait(ARRIVAL_MAX))
    }

    fn compare_all(&self, between: &dyn Fn() -> Result<(), String>) -> Vec<Compared> {
        let compared = |peer: &Arc<Peer>| {
            let differing = self.compare_with(peer, between);
            if let Ok(differing) = &differing {
                self.checks.lock().unlike.insert(peer.host.clone(), differing.len() as u64);
            }
            Compared { peer: peer.host.clone(), differing }
        };
        self.all_peers().iter().map(compared).collect()
    }

    fn compare_with(
        &self,
        peer: &Peer,
        between: &dyn Fn() -> Result<(), String>,
    ) -> Result<Vec<Differing>, String> {
        let link = peer.link().ok_or("it is not connected")?;
        let mut ask = |ranges: &[NodeRange]| {
            self.runtime.block_on(link.summarize(ranges)).map_err(|refusal| refusal.to_string())
        };
        self.volume.compare(&mut ask, &mut || between())
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
            let start = Instant::now();
            let rested = Cell::new(Duration::ZERO);
            self.compare_all(&|| {
                let start = Instant::now();
                let goes_on = self.rest(LOOK_AGAIN);
                rested.set(rested.get() + start.elapsed());
                if goes_on { Ok(()) } else { Err("the volume is being closed".to_owned()) }
            });
            owed.set(owed.get() + (start.elapsed() - rested.get()) * REST_FACTOR);
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
