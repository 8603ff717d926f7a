//! The volume's own clockwork.

use super::Pump;
use std::time::{Duration, Instant};

/// Changes that come this shortly after others were numbered are numbered together: whoever makes
/// many of them does not wake this thread for each.
const BETWEEN: Duration = Duration::from_millis(1);
/// Longest sleep while nothing is due.
const IDLE: Duration = Duration::from_secs(1);
/// How often what was applied is made durable unasked.
const DURABLE_EVERY: Duration = Duration::from_secs(3);
/// How often the log is trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(5);

impl Pump {
    /// Announces written files when they are due. A thread of its own: naming the bytes of a large
    /// file takes time that numbering must not wait for.
    pub(super) fn announce(&self) {
        while !self.is_closing() {
            let next = self.volume.announce_due().unwrap_or(IDLE).min(IDLE);
            self.announcer.wait(next.max(Duration::from_millis(1)));
        }
    }

    /// Numbers changes when they are due, and does what is to be done now and then.
    pub(super) fn drive(&self) {
        // What earlier runs wrote down counts as durable again as soon as it is.
        if let Err(error) = self.volume.make_durable() {
            tracing::warn!(%error, "what was written down before is not durable yet");
        }
        let (mut durable_at, mut trimmed_at) = (Instant::now(), Instant::now());
        while !self.is_closing() {
            let sleep = match self.volume.commit_due() {
                Some(Duration::ZERO) => self.number(),
                Some(due) => due,
                None => IDLE,
            };
            self.volume.work.wait(sleep.min(self.next_retry()));
            self.announcer.raise();
            self.retry_due();
            if durable_at.elapsed() >= DURABLE_EVERY {
                self.make_applied_durable();
                durable_at = Instant::now();
            }
            if trimmed_at.elapsed() >= TRIM_EVERY {
                if let Err(error) = self.volume.trim() {
                    tracing::warn!(%error, "cannot trim the change log");
                }
                if let Err(error) = self.volume.tidy_trash() {
                    tracing::warn!(%error, "cannot tidy the trash");
                }
                trimmed_at = Instant::now();
            }
        }
    }

    fn number(&self) -> Duration {
        match self.volume.commit() {
            Ok(()) => {
                std::thread::sleep(BETWEEN);
                self.volume.commit_due().unwrap_or(IDLE)
            }
            Err(error) => {
                self.set_problem(Some(format!(
                    "the state of \"{}\" cannot be written ({error}): free space on the disk of {}",
                    self.spec.name,
                    self.spec.state_dir.display()
                )));
                IDLE
            }
        }
    }

    /// What peers sent and is applied here survives a power cut from now on.
    pub(super) fn make_applied_durable(&self) {
        let mut applied: Vec<_> = self
            .all_peers()
            .into_iter()
            .map(|peer| (self.volume.applied(peer.slot), peer))
            .collect();
        // Asked after that: a change applied in between may want content that is not here.
        let complete = self.volume.is_complete();
        applied.retain(|(applied, peer)| {
            *applied > peer.durable() || complete && *applied > peer.complete()
        });
        if applied.is_empty() {
            return;
        }
        match self.volume.make_durable() {
            Ok(()) => applied.iter().for_each(|(seq, peer)| peer.set_durable(*seq, complete)),
            Err(error) => tracing::warn!(%error, "applied changes are not durable yet"),
        }
    }

    fn next_retry(&self) -> Duration {
        let retries = self.retries.lock();
        let next = retries.iter().map(|(at, _)| *at).min();
        next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now())).min(IDLE)
    }

    fn retry_due(&self) {
        let now = Instant::now();
        let mut due = Vec::new();
        self.retries.lock().retain(|(at, job)| {
            let later = *at > now;
            if !later {
                due.push(job.clone());
            }
            later
        });
        for job in due {
            self.volume.requeue(&job);
        }
    }

    /// Tries `job` again after `pause`.
    pub(super) fn retry_later(&self, job: lockstep_vfs::FetchJob, pause: Duration) {
        let mut retries = self.retries.lock();
        retries.retain(|(_, other)| other.node != job.node);
        retries.push((Instant::now() + pause, job));
        drop(retries);
        self.volume.work.raise();
    }
}
