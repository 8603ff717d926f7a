//! Offering the log to a peer: in order, in batches, several in flight; whatever was not
//! acknowledged when a session ends is offered again in the next.

use super::Pump;
use super::peer::Peer;
use lockstep_core::{Change, limits};
use lockstep_net::{Ack, Batch, Link, Notification, Refusal};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

const IDLE: Duration = Duration::from_secs(1);
const LOOK_FOR_ANSWERS: Duration = Duration::from_millis(5);
/// Times in one session that the peer is told what came of the state it told.
const STATE_ANSWERS_MAX: usize = 8;

/// One session's sending side.
pub(super) struct Shipment<'a> {
    pub(super) pump: &'a Pump,
    pub(super) peer: &'a Peer,
    pub(super) link: Arc<Link>,
    batches: u64,
    in_flight: VecDeque<JoinHandle<Result<Ack, Refusal>>>,
}

impl Pump {
    /// Ships to `peer` for as long as the pump runs.
    pub(super) fn ship(&self, peer: &Peer) {
        let mut shipped = 0;
        while !self.is_closing() && !peer.is_retired() {
            let Some(link) = peer.wait_link(IDLE) else { continue };
            if link.session() == shipped {
                self.volume.wait_log(Duration::from_millis(20));
                continue;
            }
            shipped = link.session();
            let shipment =
                Shipment { pump: self, peer, link, batches: 0, in_flight: VecDeque::new() };
            shipment.run();
        }
    }
}

impl Shipment<'_> {
    fn run(mut self) {
        let theirs = self.link.their_hello().clone();
        let by_log = !theirs.wants_state && self.pump.volume.log_reaches(theirs.applied);
        let start = match by_log {
            true => Some(theirs.applied.seq),
            false => self.tell_state(theirs.wants_state),
        };
        let Some(mut cursor) = start else { return };
        let mut answers = 0;
        while self.goes_on() {
            if answers < STATE_ANSWERS_MAX && self.pump.volume.answers(self.peer.slot) {
                answers += 1;
                let Some(end) = self.tell_state(false) else { return };
                cursor = end;
            }
            self.collect_answers(limits::BATCHES_IN_FLIGHT_MAX - 1);
            match self.pump.volume.log_after(cursor, limits::BATCH_NOTIFICATIONS_MAX) {
                Ok(changes) if changes.is_empty() => self.rest(),
                Ok(changes) => {
                    cursor = changes.last().map_or(cursor, |change| change.seq);
                    if !self.send(&changes) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the change log cannot be read");
                    self.link.close("the change log cannot be read");
                }
            }
        }
    }

    pub(super) fn goes_on(&self) -> bool {
        self.link.is_alive() && !self.pump.is_closing() && !self.peer.is_retired()
    }

    fn rest(&mut self) {
        let pause = if self.in_flight.is_empty() { IDLE } else { LOOK_FOR_ANSWERS };
        self.pump.volume.wait_log(pause);
        self.collect_answers(usize::MAX);
    }

    /// Sends changes as one batch, or more if they are too much for one message.
    pub(super) fn send(&mut self, changes: &[Change]) -> bool {
        let mut rest: Vec<Notification> = changes
            .iter()
            .map(|change| {
                let inline = change.op.content().and_then(|content| {
                    self.pump.volume.inline(change.op.node(), content).map(bytes::Bytes::from)
                });
                Notification { change: change.clone(), inline }
            })
            .collect();
        while !rest.is_empty() {
            let fits = Batch::fitting(&rest).clamp(1, rest.len());
            let later = rest.split_off(fits);
            self.launch(std::mem::replace(&mut rest, later));
        }
        self.goes_on()
    }

    fn launch(&mut self, notifications: Vec<Notification>) {
        self.collect_answers(limits::BATCHES_IN_FLIGHT_MAX - 1);
        self.batches += 1;
        let count = notifications.len() as u64;
        let counters = &self.pump.counters;
        counters.batches_sent.fetch_add(1, Ordering::Relaxed);
        counters.changes_sent.fetch_add(count, Ordering::Relaxed);
        counters.batch_peak.fetch_max(count, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let batch =
            Batch { seq: self.batches, timestamp_ms: now.as_millis() as u64, notifications };
        if let Some(last) = batch.notifications.last() {
            self.peer.set_sent(last.change.seq);
        }
        let link = Arc::clone(&self.link);
        self.in_flight.push_back(self.pump.runtime.spawn(async move { link.notify(batch).await }));
        counters.in_flight_peak.fetch_max(self.in_flight.len() as u64, Ordering::Relaxed);
    }

    /// Takes the answers that have come, and waits for the oldest while more than `allowed` are
    /// still out.
    fn collect_answers(&mut self, allowed: usize) {
        while let Some(oldest) = self.in_flight.front() {
            if !oldest.is_finished() && self.in_flight.len() <= allowed {
                return;
            }
            let Some(oldest) = self.in_flight.pop_front() else { return };
            match self.pump.runtime.block_on(oldest) {
                Ok(Ok(ack)) => self.acked(&ack),
                Ok(Err(refusal)) => {
                    tracing::info!(%refusal, "the peer did not take a batch: starting anew");
                    self.link.close("a batch was not taken");
                    self.in_flight.clear();
                }
                Err(error) => {
                    tracing::error!(%error, "a batch was lost");
                    self.link.close("a batch was lost");
                    self.in_flight.clear();
                }
            }
        }
    }

    fn acked(&self, ack: &Ack) {
        let Ack { applied, durable, complete } = *ack;
        self.pump.volume.acked(self.peer.slot, applied, durable.min(applied), complete);
    }
}
