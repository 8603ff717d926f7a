//! Waiting until both sides have everything: the mechanism of `lockstep wait`.

use super::Pump;
use super::peer::Peer;
use lockstep_core::{PeerId, Sequence};
use lockstep_net::{BarrierReply, BarrierRequest, Result};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// One request to the peer; a longer wait asks again.
const ASK: Duration = Duration::from_secs(5);

impl Pump {
    /// Returns when every connected peer has, durably and complete, all that was written here
    /// before the call, and all that they had written by then is here; else says what is missing.
    pub fn wait(&self, timeout: Duration) -> std::result::Result<(), String> {
        let deadline = Instant::now() + timeout;
        let mine = self.number_everything();
        for peer in self.all_peers() {
            if peer.link().is_some() {
                self.wait_for(&peer, mine, deadline)?;
            }
        }
        Ok(())
    }

    fn number_everything(&self) -> Sequence {
        self.volume.announce_all();
        if let Err(error) = self.volume.commit() {
            tracing::warn!(%error, "changes are not written down yet");
        }
        self.volume.last()
    }

    fn wait_for(
        &self,
        peer: &Peer,
        mine: Sequence,
        deadline: Instant,
    ) -> std::result::Result<(), String> {
        let mut theirs = None;
        let mut missing = format!("{} has not answered", peer.host);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(missing);
            }
            let Some(link) = peer.link() else {
                missing = format!("the connection to {} is gone", peer.host);
                peer.wait_link(left.min(ASK));
                continue;
            };
            let timeout_ms = left.min(ASK).as_millis() as u64;
            let request = BarrierRequest { upto: mine, timeout_ms };
            match self.runtime.block_on(link.barrier(request)) {
                Ok(reply) => {
                    let upto = *theirs.get_or_insert(reply.last);
                    if reply.reached {
                        return self.reach(peer, upto, deadline);
                    }
                    missing = format!("{}: {}", peer.host, reply.missing);
                }
                Err(refusal) => {
                    missing = format!("{}: {refusal}", peer.host);
                    peer.wait_link(LOOK_AGAIN);
                }
            }
        }
    }

    /// A peer asks whether its changes up to `request.upto` are here for good.
    pub fn barrier(&self, id: PeerId, request: BarrierRequest) -> Result<BarrierReply> {
        let peer = self.peer(id)?;
        let last = self.number_everything();
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let outcome = self.reach(&peer, request.upto, deadline);
        Ok(BarrierReply {
            reached: outcome.is_ok(),
            last,
            missing: outcome.err().unwrap_or_default(),
        })
    }

    /// Waits until changes of `peer` up to `upto` are applied, complete, durable and visible here.
    fn reach(
        &self,
        peer: &Peer,
        upto: Sequence,
        deadline: Instant,
    ) -> std::result::Result<(), String> {
        while self.volume.applied(peer.slot) < upto {
            if Instant::now() >= deadline {
                let missing = upto.0 - self.volume.applied(peer.slot).0;
                return Err(self.explain(format!("{missing} changes are not applied here yet")));
            }
            self.volume.transfers.wait_progress(LOOK_AGAIN);
        }
        let mut outstanding = self.volume.outstanding();
        loop {
            let (files, bytes) = self.volume.settle_outstanding(&mut outstanding);
            if files == 0 {
                break;
            }
            if Instant::now() >= deadline {
                return Err(self.explain(format!(
                    "the content of {files} files ({bytes} bytes) is not here yet{}",
                    self.had_by_nobody()
                )));
            }
            self.volume.transfers.wait_progress(LOOK_AGAIN);
        }
        self.make_applied_durable();
        if peer.durable() < upto {
            return Err(self.explain("changes are applied but not on disk for good yet".into()));
        }
        self.told_kernel(deadline)
    }

    /// Names the files that will not come by waiting.
    fn had_by_nobody(&self) -> String {
        let paths = self.volume.without_bytes();
        match paths.first() {
            None => String::new(),
            Some((first, _)) => format!(
                "; no peer has that of {} of them, {first:?} for one: write it anew or remove it",
                paths.len()
            ),
        }
    }

    fn told_kernel(&self, deadline: Instant) -> std::result::Result<(), String> {
        let (told, hears) = mpsc::sync_channel(1);
        self.volume.after_invalidations(Box::new(move || {
            // A full or closed channel means that nobody waits any more.
            let _ = told.try_send(());
        }));
        let left = deadline.saturating_duration_since(Instant::now()).max(LOOK_AGAIN);
        hears.recv_timeout(left).map_err(|_| "the mount has not taken changes in yet".to_owned())
    }

    fn explain(&self, missing: String) -> String {
        match self.disk_problems().first() {
            Some(problem) => format!("{missing} ({problem})"),
            None => missing,
        }
    }
}
