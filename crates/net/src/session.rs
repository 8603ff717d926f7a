//! One session: what its lanes, its calls and its end share, on either side.

use crate::activity::{Activity, Observed};
use crate::batch_order::BatchOrder;
use crate::limits::{BARRIERS_MAX, BATCH_GAP_DEADLINE, READY_DEADLINE, STREAMS_SERVED_MAX};
use crate::message::Hello;
use crate::tls::Secured;
use crate::{Refusal, Result};
use lockstep_core::{PeerId, VolumeId};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsStream;

/// A lane's connection.
pub(crate) type LaneStream = Observed<TlsStream<TcpStream>>;

/// What belongs to one session and not to one lane.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: PeerId,
    pub(crate) volume: VolumeId,
    /// Drawn by the dialler, the same on both sides.
    pub(crate) id: u64,
    /// We dialled it; otherwise the peer did.
    pub(crate) dialled: bool,
    pub(crate) path: String,
    pub(crate) kex: &'static str,
    pub(crate) order: Arc<BatchOrder>,
    /// Streams served at a time, per lane.
    pub(crate) streams: [Arc<Semaphore>; 3],
    /// Barriers served at a time.
    pub(crate) barriers: Arc<Semaphore>,
    activity: Arc<Activity>,
    opening: watch::Sender<Option<Opening>>,
    ready: watch::Sender<bool>,
    closed: watch::Sender<Option<Arc<str>>>,
}

/// The two openings, once the peer's Hello has been answered.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) theirs: Hello,
    pub(crate) ours: Hello,
}

impl Session {
    /// A session whose control lane is `first`.
    pub(crate) fn new(first: &Secured, volume: VolumeId, id: u64, dialled: bool) -> Session {
        Session {
            peer: first.peer,
            volume,
            id,
            dialled,
            path: format!("tcp {}", first.address),
            kex: first.kex,
            order: Arc::new(BatchOrder::new(BATCH_GAP_DEADLINE)),
            streams: std::array::from_fn(|_| Arc::new(Semaphore::new(STREAMS_SERVED_MAX))),
            barriers: Arc::new(Semaphore::new(BARRIERS_MAX)),
            activity: Arc::new(Activity::new()),
            opening: watch::Sender::new(None),
            ready: watch::Sender::new(false),
            closed: watch::Sender::new(None),
        }
    }

    pub(crate) fn observe(&self, stream: TlsStream<TcpStream>) -> LaneStream {
        Observed { stream, activity: self.activity.clone() }
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Notes that the peer's Hello has been answered; only the first counts.
    pub(crate) fn opened(&self, opening: Opening) {
        self.opening.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(opening);
            }
            first
        });
    }

    pub(crate) fn has_opened(&self) -> bool {
        self.opening.borrow().is_some()
    }

    /// Waits for the peer's Hello; `None` if the session ends before.
    pub(crate) async fn opening(&self) -> Option<Opening> {
        let mut opening = self.opening.subscribe();
        tokio::select! {
            opened = opening.wait_for(Option::is_some) => opened.ok()?.clone(),
            _ = self.closed() => None,
        }
    }

    /// Lets the peer's calls through: `session_up` has returned.
    pub(crate) fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Waits until the peer's calls may be served.
    pub(crate) async fn ready(&self) -> Result<()> {
        if *self.ready.borrow() && !self.is_closed() {
            return Ok(());
        }
        let mut ready = self.ready.subscribe();
        let up = async {
            tokio::select! {
                _ = ready.wait_for(|ready| *ready) => {}
                _ = self.closed() => {}
            }
        };
        let up = timeout(READY_DEADLINE, up).await;
        if self.is_closed() {
            return Err(Refusal::Unreachable("the session has ended".into()));
        }
        up.map_err(|_| Refusal::Busy("the session is still starting: try again".into()))
    }

    /// Ends the session; the first reason stands.
    pub(crate) fn close(&self, reason: &str) {
        self.closed.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(reason.into());
            }
            first
        });
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    pub(crate) fn end_reason(&self) -> Option<Arc<str>> {
        self.closed.borrow().clone()
    }

    /// Waits for the end, and answers why.
    pub(crate) async fn closed(&self) -> Arc<str> {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender lives in `self`.
            Err(_) => Arc::default(),
        }
    }
}
