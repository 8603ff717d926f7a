//! Batches are delivered in the order of their numbers, one at a time, although each travels on
//! an HTTP/2 stream of its own and may arrive before its predecessor.

use crate::{Refusal, Result};
use lockstep_core::limits::BATCHES_IN_FLIGHT_MAX;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct BatchOrder {
    progress: watch::Sender<Progress>,
    waiting: Mutex<BTreeSet<u64>>,
    gap_deadline: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    next: u64,
    running: bool,
    closed: bool,
}

/// The right to deliver one batch; the next one's turn comes when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<BatchOrder>);

/// A batch that waits for its turn.
struct Waiting<'a>(&'a BatchOrder, u64);

impl BatchOrder {
    /// From batch 1; a batch waits at most `gap_deadline` for the ones before it.
    pub(crate) fn new(gap_deadline: Duration) -> Self {
        let progress = watch::Sender::new(Progress { next: 1, running: false, closed: false });
        BatchOrder { progress, waiting: Mutex::default(), gap_deadline }
    }

    /// Waits until every batch before `seq` has been delivered.
    pub(crate) async fn turn(self: &Arc<Self>, seq: u64) -> Result<Turn> {
        let _waiting = self.enqueue(seq)?;
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|p| p.closed || (p.next == seq && !p.running));
        timeout(self.gap_deadline, reached)
            .await
            .map_err(|_| Refusal::Invalid(format!("a batch before number {seq} never came")))?
            .map_err(|_| ended())?;
        let start = |p: &mut Progress| {
            let mine = !p.closed && p.next == seq && !p.running;
            p.running |= mine;
            mine
        };
        if self.progress.send_if_modified(start) { Ok(Turn(self.clone())) } else { Err(ended()) }
    }

    /// Starts no more turns, and waits for the one under way.
    pub(crate) async fn close(&self) {
        self.progress.send_modify(|p| p.closed = true);
        let mut progress = self.progress.subscribe();
        // The sender lives in `self`: waiting cannot fail.
        let _ = progress.wait_for(|p| !p.running).await;
    }

    fn enqueue(&self, seq: u64) -> Result<Waiting<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.progress.borrow().next;
        if seq < next || waiting.contains(&seq) {
            return Err(Refusal::Invalid(format!(
                "batch number {seq} was sent twice in one session"
            )));
        }
        if seq - next >= BATCHES_IN_FLIGHT_MAX as u64 {
            return Err(Refusal::Invalid(format!(
                "batch number {seq} is too far ahead: {next} is expected and at most {BATCHES_IN_FLIGHT_MAX} may be under way"
            )));
        }
        waiting.insert(seq);
        Ok(Waiting(self, seq))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.progress.send_modify(|p| {
            p.next += 1;
            p.running = false;
        });
    }
}

fn ended() -> Refusal {
    Refusal::Unreachable("the session has ended".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_that_arrive_backwards_are_delivered_forwards() {
        let order = Arc::new(BatchOrder::new(Duration::from_secs(60)));
        let delivered = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (1..=16)
            .rev()
            .map(|seq| {
                let (order, delivered) = (order.clone(), delivered.clone());
                tokio::spawn(async move {
                    let _turn = order.turn(seq).await.unwrap();
                    delivered.lock().unwrap().push(seq);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*delivered.lock().unwrap(), (1..=16).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_batch_sent_twice_or_too_far_ahead_is_refused() {
        let order = Arc::new(BatchOrder::new(Duration::from_secs(60)));
        drop(order.turn(1).await.unwrap());
        assert!(matches!(order.turn(1).await, Err(Refusal::Invalid(_))));
        assert!(matches!(order.turn(0).await, Err(Refusal::Invalid(_))));
        assert!(matches!(order.turn(18).await, Err(Refusal::Invalid(_))));
    }

    #[tokio::test]
    async fn a_gap_that_never_closes_is_refused() {
        let order = Arc::new(BatchOrder::new(Duration::from_millis(1)));
        assert!(matches!(order.turn(2).await, Err(Refusal::Invalid(_))));
    }

    #[tokio::test]
    async fn closing_waits_for_the_batch_under_way_and_starts_no_other() {
        let order = Arc::new(BatchOrder::new(Duration::from_secs(60)));
        let turn = order.turn(1).await.unwrap();
        let second = tokio::spawn({
            let order = order.clone();
            async move { order.turn(2).await.map(drop) }
        });
        let close = tokio::spawn({
            let order = order.clone();
            async move { order.close().await }
        });
        assert!(matches!(second.await.unwrap(), Err(Refusal::Unreachable(_))));
        assert!(!close.is_finished());
        drop(turn);
        close.await.unwrap();
    }
}
