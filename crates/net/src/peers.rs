//! The sessions that are up: one per peer and volume, the newest.

use crate::heartbeat;
use crate::limits::{DRAIN_DEADLINE, SHUTDOWN_DEADLINE};
use crate::link::Link;
use crate::rpc::blocking;
use crate::session::Session;
use crate::{PeerService, Refusal, Result};
use lockstep_core::{PeerId, VolumeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::time::timeout;

/// Every peer and volume we have, or want, a session with.
pub(crate) struct Peers {
    me: PeerId,
    service: Arc<dyn PeerService>,
    slots: Mutex<HashMap<(PeerId, VolumeId), Arc<PeerSlot>>>,
    stopped: AtomicBool,
}

/// One peer and volume.
#[derive(Debug)]
pub(crate) struct PeerSlot {
    live: watch::Sender<Option<Arc<Link>>>,
    /// Held while the one session gives way to the next.
    establishing: tokio::sync::Mutex<()>,
    /// An attempt of ours to reach the peer is under way.
    dialing: AtomicBool,
}

impl Peers {
    pub(crate) fn new(me: PeerId, service: Arc<dyn PeerService>) -> Self {
        Peers { me, service, slots: Mutex::default(), stopped: AtomicBool::new(false) }
    }

    pub(crate) fn slot(&self, peer: PeerId, volume: VolumeId) -> Arc<PeerSlot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry((peer, volume)).or_insert_with(|| Arc::new(PeerSlot::new())).clone()
    }

    /// Whether a session the peer dialled may go on. When both sides dial each other at the same
    /// moment, the attempt of the lower key does.
    pub(crate) fn give_way(&self, session: &Session) -> Result<()> {
        let slot = self.slot(session.peer, session.volume);
        if !session.dialled && self.me < session.peer && slot.dialing.load(Ordering::SeqCst) {
            return Err(Refusal::Busy("the peer is dialling this machine just now".into()));
        }
        Ok(())
    }

    /// Brings a complete session up in place of the one before it.
    pub(crate) async fn establish(self: &Arc<Self>, link: Arc<Link>) {
        let slot = self.slot(link.peer(), link.volume());
        let _one = slot.establishing.lock().await;
        slot.end_live("a newer session with the same peer took its place").await;
        if self.stopped.load(Ordering::SeqCst) {
            link.close("Lockstep stops here");
        }
        if !link.is_alive() {
            return;
        }
        let (service, up) = (self.service.clone(), link.clone());
        let told = blocking(move || {
            service.session_up(up);
            Ok(())
        });
        if told.await.is_err() {
            link.close("the session could not be started: see the log");
        }
        tracing::info!("a session with a peer is up");
        tracing::debug!(peer = ?link.peer(), session = link.session(), path = link.path(), "up");
        slot.live.send_replace(Some(link.clone()));
        link.own().set_ready();
        tokio::spawn(heartbeat::keep_beating(link.clone(), self.service.clone()));
        tokio::spawn(self.clone().supervise(slot.clone(), link));
    }

    async fn supervise(self: Arc<Self>, slot: Arc<PeerSlot>, link: Arc<Link>) {
        let reason = link.closed().await;
        if timeout(DRAIN_DEADLINE, link.own().order.close()).await.is_err() {
            tracing::warn!("a batch of a session that ended is still being applied");
        }
        tracing::info!("a session with a peer is down");
        tracing::debug!(peer = ?link.peer(), session = link.session(), %reason, "down");
        let service = self.service.clone();
        let (peer, volume, session) = (link.peer(), link.volume(), link.session());
        let told = blocking(move || {
            service.session_down(peer, volume, session, &reason);
            Ok(())
        });
        // A panic was logged by `blocking`; the slot must be free again in any case.
        let _ = told.await;
        slot.live.send_replace(None);
    }

    /// Ends every session and waits until the daemon has been told.
    pub(crate) async fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let slots: Vec<_> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.values().cloned().collect()
        };
        let all = async {
            for slot in &slots {
                let _one = slot.establishing.lock().await;
                slot.end_live("Lockstep stops here").await;
            }
        };
        if timeout(SHUTDOWN_DEADLINE, all).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
    }
}

impl PeerSlot {
    fn new() -> Self {
        PeerSlot {
            live: watch::Sender::new(None),
            establishing: tokio::sync::Mutex::default(),
            dialing: AtomicBool::new(false),
        }
    }

    pub(crate) fn live(&self) -> Option<Arc<Link>> {
        self.live.borrow().clone()
    }

    /// Waits until a session is up.
    pub(crate) async fn wait_up(&self) {
        // The sender lives in `self`: waiting cannot fail.
        let _ = self.live.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until none is.
    pub(crate) async fn wait_down(&self) {
        let _ = self.live.subscribe().wait_for(Option::is_none).await;
    }

    /// Marks an attempt to reach the peer until the answer is dropped.
    pub(crate) fn dialing(self: &Arc<Self>) -> Dialing {
        self.dialing.store(true, Ordering::SeqCst);
        Dialing(self.clone())
    }

    async fn end_live(&self, reason: &str) {
        if let Some(link) = self.live() {
            link.close(reason);
        }
        self.wait_down().await;
    }
}

/// An attempt to reach a peer.
#[derive(Debug)]
pub(crate) struct Dialing(Arc<PeerSlot>);

impl Drop for Dialing {
    fn drop(&mut self) {
        self.0.dialing.store(false, Ordering::SeqCst);
    }
}
