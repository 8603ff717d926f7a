//! What peers ask of this volume.

use super::Pump;
use super::peer::Peer;
use bytes::Bytes;
use lockstep_core::{ContentRef, Manifest, Met, NodeId, NodeRange, Part, PeerId, limits};
use lockstep_disk::{DiskFile, verify_chunk};
use lockstep_net::{Ack, Batch, Beat, Hello, Link, PROTOCOL, Refusal, Result};
use lockstep_vfs::{Incoming, ServeError, Served};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait of a batch's answer for the batch to be applied.
const APPLY_WAIT: Duration = Duration::from_secs(3);

impl Pump {
    /// What a session with `peer` is opened with.
    pub fn my_hello(&self, peer: PeerId) -> Result<Hello> {
        let peer = self.peer(peer)?;
        self.volume.commit().map_err(|error| Refusal::Internal(error.to_string()))?;
        Ok(Hello {
            protocol: PROTOCOL,
            slot: self.spec.slot,
            host: self.spec.host.clone(),
            last: self.volume.last(),
            applied: self.volume.cursor(peer.slot),
            incarnation: self.volume.incarnation(),
            wants_state: self.volume.wants_state(peer.slot),
        })
    }

    /// A peer opens a session.
    pub fn hello(&self, id: PeerId, theirs: Hello) -> Result<Hello> {
        let peer = self.peer(id)?;
        if theirs.slot != peer.slot {
            let why = "the peer says it is another replica than the one that joined";
            return Err(Refusal::Invalid(why.into()));
        }
        self.meet(&peer, &theirs);
        self.my_hello(id)
    }

    fn meet(&self, peer: &Peer, theirs: &Hello) -> Met {
        let met = self.volume.meet(peer.slot, theirs.applied);
        if met == Met::Overtaken {
            tracing::warn!(
                volume = %self.spec.id,
                "the peer has changes of this replica that it has not itself: its state was lost \
                 or is an old copy, and the peer is asked for everything"
            );
        }
        met
    }

    /// A session is up.
    pub fn session_up(&self, link: Arc<Link>) {
        let Ok(peer) = self.peer(link.peer()) else {
            link.close("this peer is not known to the volume");
            return;
        };
        let met = self.meet(&peer, link.their_hello());
        if met == Met::Overtaken && !link.our_hello().wants_state {
            link.close("the session starts anew, asking for everything");
            return;
        }
        peer.session_up(link);
        self.volume.set_online(true);
        self.volume.queue_wanted();
        self.volume.wake_log();
    }

    /// A session has ended.
    pub fn session_down(&self, id: PeerId, session: u64, _reason: &str) {
        if let Ok(peer) = self.peer(id)
            && peer.session_down(session)
        {
            self.volume.set_online(self.is_connected());
        }
    }

    /// A batch of the peer's changes. Its answer says how far they are applied.
    pub fn notify(&self, id: PeerId, batch: Batch) -> Result<Ack> {
        let peer = self.peer(id)?;
        let changes = batch
            .notifications
            .into_iter()
            .map(|n| Incoming { change: n.change, inline: n.inline.map(|bytes| bytes.to_vec()) });
        peer.deliver(changes.collect(), APPLY_WAIT);
        Ok(Ack {
            applied: self.volume.applied(peer.slot),
            durable: peer.durable(),
            complete: peer.complete() >= peer.durable(),
        })
    }

    /// What is in ranges of node ids here.
    pub fn summarize(&self, id: PeerId, ranges: &[NodeRange]) -> Result<Vec<Part>> {
        let begins = ranges.contains(&NodeRange::ALL);
        let digests = self.peer(id)?.digests(begins, || self.volume.digests());
        Ok(ranges.iter().map(|range| digests.part(*range)).collect())
    }

    /// The chunks of a content.
    pub fn manifest(&self, _id: PeerId, node: NodeId, content: ContentRef) -> Result<Manifest> {
        self.volume.manifest(node, content).map_err(refused)
    }

    /// Bytes of a content.
    pub fn read(
        &self,
        _id: PeerId,
        node: NodeId,
        content: ContentRef,
        offset: u64,
        len: u64,
        sink: &mut dyn FnMut(Bytes) -> bool,
    ) -> Result<()> {
        if let Some(bytes) = self.volume.inline(node, content) {
            let start = bytes.len().min(offset as usize);
            let end = bytes.len().min(start.saturating_add(len as usize));
            sink(Bytes::from(bytes).slice(start..end));
            return Ok(());
        }
        let Served { file, settled } = self.volume.serve(node, content).map_err(refused)?;
        if !settled {
            return self.read_verified(node, content, &*file, (offset, len), sink);
        }
        let mut at = offset;
        let end = offset.saturating_add(len).min(content.size_bytes);
        while at < end {
            let mut part = vec![0; limits::STREAM_MESSAGE_BYTES.min((end - at) as usize)];
            let read = file.read_at(&mut part, at).map_err(|error| refused(error.into()))?;
            if read == 0 {
                return Err(Refusal::Gone { shown: None });
            }
            part.truncate(read);
            at += read as u64;
            if !sink(part.into()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Bytes of a content whose file is being written: chunk by chunk, as long as they are those
    /// that were announced.
    fn read_verified(
        &self,
        node: NodeId,
        content: ContentRef,
        file: &dyn DiskFile,
        (offset, len): (u64, u64),
        sink: &mut dyn FnMut(Bytes) -> bool,
    ) -> Result<()> {
        let manifest = self.volume.manifest(node, content).map_err(refused)?;
        let end = offset.saturating_add(len);
        let mut at = 0;
        for chunk in manifest.chunks {
            let (start, until) = (at, at + u64::from(chunk.len_bytes));
            at = until;
            if until <= offset || start >= end {
                continue;
            }
            let mut bytes = vec![0; chunk.len_bytes as usize];
            let read = file.read_at(&mut bytes, start).map_err(|error| refused(error.into()))?;
            if read < bytes.len() || !verify_chunk(&chunk, &bytes) {
                return Err(Refusal::Gone { shown: None });
            }
            let wanted = Bytes::from(bytes)
                .slice(offset.saturating_sub(start) as usize..(end.min(until) - start) as usize);
            for part in wanted.chunks(limits::STREAM_MESSAGE_BYTES) {
                if !sink(wanted.slice_ref(part)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What this side's heartbeat says. It calls durable only what is here with all its content.
    pub fn my_beat(&self, id: PeerId) -> Result<Beat> {
        let peer = self.peer(id)?;
        Ok(Beat {
            applied: self.volume.applied(peer.slot),
            durable: peer.complete(),
            problem: self.disk_problems().into_iter().next().unwrap_or_default(),
            // Asked last: what was made without knowing of `durable` ends there.
            last: self.volume.last(),
        })
    }

    /// The peer's heartbeat.
    pub fn beat(&self, id: PeerId, theirs: Beat) -> Result<Beat> {
        let peer = self.peer(id)?;
        peer.set_problem(&theirs.problem);
        let durable = theirs.durable.min(theirs.applied);
        self.volume.acked(peer.slot, theirs.applied, durable, true);
        self.volume.heard(peer.slot, durable, theirs.last);
        self.my_beat(id)
    }
}

fn refused(error: ServeError) -> Refusal {
    match error {
        ServeError::Gone { shown } => Refusal::Gone { shown },
        ServeError::Read(_) => Refusal::Internal(error.to_string()),
    }
}
