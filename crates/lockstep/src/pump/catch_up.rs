//! Telling a peer the state instead of the log: first what differs is found out, by summaries that
//! cost nothing where both are equal, then only that is sent.

use super::ship::Shipment;
use lockstep_core::{Change, Comparison, DigestIndex, NodeId, Sequence, limits};
use lockstep_vfs::Told;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where a peer differs: nodes here that it lacks or has otherwise, and nodes only it has.
type Difference = (BTreeSet<NodeId>, Vec<NodeId>);

impl Shipment<'_> {
    /// Brings the peer up to date by state, which may have been lost there. Answers where the log goes on; `None` if the session
    /// ended before.
    pub(super) fn tell_state(&mut self, to_lost: bool) -> Option<Sequence> {
        // Of two that both lost their state, the one in the lower slot begins.
        let first = to_lost && self.pump.spec.slot < self.peer.slot;
        while !first && self.pump.volume.listens_first(self.peer.slot) {
            if !self.goes_on() {
                return None;
            }
            self.pump.volume.wait_log(LOOK_AGAIN);
        }
        let (index, mut plan) = self.pump.volume.begin_exchange(self.peer.slot);
        let (differing, only_there) = self.compare(&index)?;
        tracing::info!(
            volume = %self.pump.spec.id,
            nodes = differing.len(),
            only_there = only_there.len(),
            "the log does not reach the peer: it is told what differs"
        );
        let volume = &self.pump.volume;
        volume.plan_exchange(&mut plan, &differing, &only_there, to_lost);
        self.pump.counters.state_exchanges.fetch_add(1, Ordering::Relaxed);
        self.send(std::slice::from_ref(&plan.begin)).then_some(())?;
        let mut told = Told::nothing_of(&plan, to_lost);
        for nodes in plan.nodes.chunks(limits::BATCH_NOTIFICATIONS_MAX) {
            self.pump.volume.tell_nodes(nodes, &index, &mut told);
            let changes = std::mem::take(&mut told.changes);
            self.send_state(&changes)?;
        }
        for nodes in plan.gone.chunks(limits::BATCH_NOTIFICATIONS_MAX) {
            let changes = self.pump.volume.tell_gone(nodes);
            self.send_state(&changes)?;
        }
        self.send(std::slice::from_ref(&plan.end)).then_some(plan.end.seq)
    }

    fn send_state(&mut self, changes: &[Change]) -> Option<()> {
        let count = changes.len() as u64;
        self.pump.counters.state_changes_sent.fetch_add(count, Ordering::Relaxed);
        for part in changes.chunks(limits::BATCH_NOTIFICATIONS_MAX) {
            self.send(part).then_some(())?;
        }
        Some(())
    }

    fn compare(&self, index: &DigestIndex) -> Option<Difference> {
        let mut comparison = Comparison::new(index);
        while self.goes_on() {
            let asked = comparison.ask();
            if asked.is_empty() {
                return Some((comparison.differing, comparison.only_there));
            }
            let answer = self.pump.runtime.block_on(self.link.summarize(&asked));
            let fits = answer.map_err(|refusal| refusal.to_string()).and_then(|parts| {
                comparison.answer(&asked, &parts).map_err(|misfit| misfit.to_string())
            });
            if let Err(why) = fits {
                tracing::warn!(%why, "the peer's state cannot be compared: starting anew");
                self.link.close("the states could not be compared");
            }
        }
        None
    }
}
