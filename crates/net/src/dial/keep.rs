//! Keeping one session up for ever with each peer that is wanted.

use super::Dialler;
use crate::limits::{BACKOFF_LATELY_MAX, BACKOFF_MAX, BACKOFF_MIN, LATELY, SETTLED_AFTER};
use crate::peers::PeerSlot;
use crate::{Refusal, entropy};
use lockstep_core::{PeerId, VolumeId};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// A peer and volume to keep a session with.
pub(crate) type Wanted = (PeerId, VolumeId);

/// Everyone who is being dialled.
#[derive(Default)]
pub(crate) struct Rediallers {
    tasks: Mutex<HashMap<Wanted, Redialler>>,
}

/// One of them.
struct Redialler {
    addrs: watch::Sender<Vec<SocketAddr>>,
    problem: watch::Receiver<Option<Refusal>>,
    task: AbortHandle,
}

impl Rediallers {
    /// Starts dialling, or dials elsewhere from now on.
    pub(crate) fn dial(
        &self,
        runtime: &Handle,
        dialler: &Arc<Dialler>,
        wanted: Wanted,
        addrs: Vec<SocketAddr>,
    ) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tasks.get(&wanted) {
            known.addrs.send_if_modified(|old| {
                let changed = *old != addrs;
                *old = addrs;
                changed
            });
            return;
        }
        let (addrs, new_addrs) = watch::channel(addrs);
        let (tell, problem) = watch::channel(None);
        let keeper = Keeper {
            slot: dialler.peers.slot(wanted.0, wanted.1),
            dialler: dialler.clone(),
            wanted,
            addrs: new_addrs,
            problem: tell,
        };
        let task = runtime.spawn(keeper.run()).abort_handle();
        tasks.insert(wanted, Redialler { addrs, problem, task });
    }

    pub(crate) fn undial(&self, wanted: Wanted) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gone) = tasks.remove(&wanted) {
            gone.task.abort();
        }
    }

    pub(crate) fn problem(&self, wanted: Wanted) -> Option<Refusal> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.get(&wanted)?.problem.borrow().clone()
    }

    pub(crate) fn stop(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain().for_each(|(_, gone)| gone.task.abort());
    }
}

/// One peer's dialler.
struct Keeper {
    slot: Arc<PeerSlot>,
    dialler: Arc<Dialler>,
    wanted: Wanted,
    addrs: watch::Receiver<Vec<SocketAddr>>,
    problem: watch::Sender<Option<Refusal>>,
}

impl Keeper {
    async fn run(mut self) {
        let (mut backoff, mut next) = (Backoff::new(), Instant::now());
        loop {
            // Whoever dialled it: while a session is up there is nothing to do.
            let before = Instant::now();
            self.slot.wait_down().await;
            if before.elapsed() >= SETTLED_AFTER {
                backoff = Backoff::new();
            }
            tokio::select! {
                _ = sleep_until(next) => {}
                _ = self.slot.wait_up() => continue,
                changed = self.addrs.changed() => match changed {
                    Ok(()) => backoff = Backoff::new(),
                    Err(_) => return,
                },
            }
            // From the beginning of an attempt: one that nobody answers is pause enough.
            next = Instant::now() + backoff.pause();
            self.attempt().await;
        }
    }

    /// Until a session is up, ours or the peer's, or has failed to come up.
    async fn attempt(&mut self) {
        let addrs = self.addrs.borrow_and_update().clone();
        let attempt = tokio::select! {
            attempt = self.dialler.attempt(self.wanted.0, self.wanted.1, &addrs) => attempt,
            _ = self.slot.wait_up() => {
                self.problem.send_replace(None);
                return;
            }
        };
        let established = match attempt {
            Ok(complete) => self.dialler.establish(complete).await,
            Err(refusal) => Err(refusal),
        };
        match established {
            Ok(_) => drop(self.problem.send_replace(None)),
            Err(refusal) => self.report(refusal),
        }
    }

    /// Says what is wrong when it is not of the kind that was wrong before.
    fn report(&self, refusal: Refusal) {
        tracing::debug!(peer = ?self.wanted.0, %refusal, "a peer was not reached");
        let news = self.problem.send_if_modified(|known| {
            let kind = |refusal: &Refusal| std::mem::discriminant(refusal);
            let news = known.as_ref().map(kind) != Some(kind(&refusal));
            *known = Some(refusal.clone());
            news
        });
        if news {
            match &refusal {
                Refusal::Unauthorized(text) => tracing::warn!("a peer refuses us: {text}"),
                _ => tracing::info!("a peer cannot be reached; trying again (`lockstep status`)"),
            }
        }
    }
}

/// Growing pauses between attempts, spread so that many peers do not come at once.
struct Backoff {
    next: Duration,
    since: Instant,
}

impl Backoff {
    fn new() -> Self {
        Backoff { next: BACKOFF_MIN, since: Instant::now() }
    }

    fn pause(&mut self) -> Duration {
        let longest = if self.since.elapsed() < LATELY { BACKOFF_LATELY_MAX } else { BACKOFF_MAX };
        let pause = self.next.min(longest);
        self.next = (pause * 2).min(longest);
        let spread = 0.75 + 0.5 * (entropy::number() >> 11) as f64 / (1u64 << 53) as f64;
        pause.mul_f64(spread)
    }
}
