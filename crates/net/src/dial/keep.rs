//! Keeping one session up for ever with each peer that is wanted.

use super::Dialler;
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, SETTLED_AFTER};
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
use tokio::time::{Instant, sleep};

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
        let mut backoff = Backoff::new();
        loop {
            // Whoever dialled it: while a session is up there is nothing to do.
            self.slot.wait_down().await;
            if self.attempt().await {
                let up = Instant::now();
                self.slot.wait_down().await;
                if up.elapsed() >= SETTLED_AFTER {
                    backoff = Backoff::new();
                }
            }
            tokio::select! {
                _ = sleep(backoff.pause()) => {}
                _ = self.slot.wait_up() => {}
                changed = self.addrs.changed() => match changed {
                    Ok(()) => backoff = Backoff::new(),
                    Err(_) => return,
                },
            }
        }
    }

    /// Whether a session came up, ours or the peer's.
    async fn attempt(&mut self) -> bool {
        let addrs = self.addrs.borrow_and_update().clone();
        let attempt = tokio::select! {
            attempt = self.dialler.attempt(self.wanted.0, self.wanted.1, &addrs) => attempt,
            _ = self.slot.wait_up() => {
                self.problem.send_replace(None);
                return true;
            }
        };
        let established = match attempt {
            Ok(complete) => self.dialler.establish(complete).await,
            Err(refusal) => Err(refusal),
        };
        match established {
            Ok(link) => {
                self.problem.send_replace(None);
                link.is_alive()
            }
            Err(refusal) => {
                self.report(refusal);
                false
            }
        }
    }

    /// Says what is wrong when it is not what was wrong before.
    fn report(&self, refusal: Refusal) {
        tracing::debug!(peer = ?self.wanted.0, %refusal, "a peer was not reached");
        let news = self.problem.send_if_modified(|known| {
            let news = known.as_ref() != Some(&refusal);
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
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Backoff(BACKOFF_MIN)
    }

    fn pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        let spread = 0.75 + 0.5 * (entropy::number() >> 11) as f64 / (1u64 << 53) as f64;
        pause.mul_f64(spread)
    }
}
