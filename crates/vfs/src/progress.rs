//! How far this replica has its peers' changes, and how far they have its own.

use crate::volume::Volume;
use lockstep_core::tree::Node;
use lockstep_core::{NodeId, Sequence, Slot, Version};
use std::collections::BTreeMap;

/// Files whose content is still to come, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Outstanding(BTreeMap<NodeId, Version>);

impl Volume {
    /// Records how far `peer` has the own log.
    pub fn acked(&self, peer: Slot, applied: Sequence, durable: Sequence, complete: bool) {
        self.write_state().replica.log.ack(peer, applied, durable, complete);
    }

    /// `peer` says that it has the own log through `complete`, with all content, and that `last` is
    /// the last change in its own log.
    pub fn heard(&self, peer: Slot, complete: Sequence, last: Sequence) {
        self.write_state().replica.log.hear(peer, complete, last);
    }

    /// How far `peer` has the own log.
    pub fn acked_by(&self, peer: Slot) -> lockstep_core::log::Acked {
        self.read_state().replica.log.acked(peer)
    }

    /// Bytes of content announced in changes that `peer` has not applied yet; of the recent ones.
    pub fn unacked_bytes(&self, peer: Slot) -> u64 {
        let state = self.read_state();
        let after = state.replica.log.acked(peer).applied;
        let changes = state.replica.log.after(after, usize::MAX).unwrap_or_default();
        changes.iter().filter_map(|c| c.op.content()).map(|c| c.size_bytes).sum()
    }

    /// Files whose content is still to come.
    pub fn outstanding(&self) -> Outstanding {
        let state = self.read_state();
        Outstanding(state.lacking().map(|(node, _, version)| (node, version)).collect())
    }

    /// Takes out of `outstanding` what has come or is no longer wanted. Answers what is left:
    /// files and bytes.
    pub fn settle_outstanding(&self, outstanding: &mut Outstanding) -> (u64, u64) {
        let state = self.read_state();
        let mut bytes = 0;
        outstanding.0.retain(|id, version| {
            let file = state.replica.tree.node(*id).filter(|n| !n.is_unlinked());
            let wanted = file.and_then(Node::file).and_then(|f| f.wanted());
            let still = wanted.filter(|(_, now)| now == version && state.wanted.contains(id));
            bytes += still.map_or(0, |(content, _)| content.size_bytes);
            still.is_some()
        });
        (outstanding.0.len() as u64, bytes)
    }

    /// Whether all content is here and no effect waits for the disk.
    pub fn is_complete(&self) -> bool {
        let state = self.read_state();
        state.lacking().next().is_none() && state.effects.is_empty()
    }

    /// Paths of the files whose content is to come here and that a peer, asked last, did not have;
    /// since when, in seconds since 1970.
    pub fn without_bytes(&self) -> Vec<(std::path::PathBuf, u64)> {
        let state = self.read_state();
        let gone = |(id, _, version)| {
            let since = state.gone_since(id, version)?;
            Some((state.replica.tree.path(id)?, since))
        };
        state.lacking().filter_map(gone).collect()
    }

    /// Nothing will be announced or waited for any more.
    pub fn stop(&self) {
        self.closing.store(true, std::sync::atomic::Ordering::Relaxed);
        self.work.raise();
        self.log_grown.raise();
        self.transfers.wake_all();
    }
}
