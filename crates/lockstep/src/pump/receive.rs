//! Applying a peer's batches, strictly in order.

use super::Pump;
use super::peer::Peer;
use lockstep_vfs::{ApplyError, Incoming};
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(1);
/// Pause before what the disk refused is tried again.
const DISK_RETRY: Duration = Duration::from_millis(500);
const CONTENT_WAIT: Duration = Duration::from_millis(50);

impl Pump {
    /// Applies what `peer` sends for as long as the pump runs.
    pub(super) fn receive(&self, peer: &Peer) {
        while !self.is_closing() && !peer.is_retired() {
            let Some(batch) = peer.next_batch(IDLE) else { continue };
            self.volume.reads_log_of(peer.slot, batch.incarnation);
            match self.volume.apply(peer.slot, &batch.changes) {
                Ok(()) => {
                    self.set_problem(None);
                    peer.finish(batch.session);
                }
                Err(error) => self.not_applied(peer, &batch.changes, &error),
            }
        }
    }

    fn not_applied(&self, peer: &Peer, batch: &[Incoming], error: &ApplyError) {
        match error {
            ApplyError::Waiting(node) => {
                tracing::debug!(%node, "a replacement waits for its content");
                self.volume.transfers.wait_progress(CONTENT_WAIT);
            }
            ApplyError::Gap { .. } => {
                tracing::warn!(%error, "the peer skipped changes: starting anew");
                if let Some(link) = peer.link() {
                    link.close("changes are missing");
                }
                peer.wait_link(DISK_RETRY);
            }
            ApplyError::Disk(cause) => {
                tracing::debug!(changes = batch.len(), "changes wait for the disk");
                self.set_problem(Some(disk_problem(&self.spec.backing, cause)));
                std::thread::sleep(DISK_RETRY);
            }
        }
    }
}

/// What is wrong with the disk here, and what to do.
pub(super) fn disk_problem(backing: &std::path::Path, cause: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!(
            "the disk of {} is full: changes of the peer wait until there is space",
            backing.display()
        ),
        _ => format!("the disk of {} refuses changes of the peer: {cause}", backing.display()),
    }
}
