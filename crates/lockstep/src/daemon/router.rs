//! What peers ask, passed to the volume that it is about; and the one question that strangers may
//! ask, which is to join with an invite.

use super::now_unix_secs;
use super::volumes::Volumes;
use crate::errors::Failure;
use crate::home::Home;
use crate::pump::Pump;
use bytes::Bytes;
use lockstep_core::{ContentRef, Manifest, NodeId, NodeRange, Part, PeerId, VolumeId};
use lockstep_net::{
    Ack, BarrierReply, BarrierRequest, Batch, Beat, Hello, InviteBook, Link, PairGrant,
    PairRequest, PeerService, Refusal, Result,
};
use std::sync::Arc;

/// The daemon as its peers see it.
pub struct Router {
    home: Home,
    host: String,
    me: PeerId,
    volumes: Arc<Volumes>,
    invites: Arc<InviteBook>,
}

impl Router {
    /// Routes to `volumes`, and lets in who redeems one of `invites`.
    pub fn new(
        home: Home,
        host: String,
        me: PeerId,
        volumes: Arc<Volumes>,
        invites: Arc<InviteBook>,
    ) -> Self {
        Router { home, host, me, volumes, invites }
    }

    fn pump(&self, volume: VolumeId) -> Result<Arc<Pump>> {
        let hosted = self.volumes.get(volume).ok_or(Refusal::UnknownVolume)?;
        hosted.pump().ok_or_else(|| {
            Refusal::Busy(
                "the peer has not opened the volume: `lockstep status` there says why".into(),
            )
        })
    }
}

impl PeerService for Router {
    fn authorize(&self, peer: PeerId, volume: VolumeId) -> bool {
        self.volumes.get(volume).is_some_and(|hosted| hosted.is_member(peer))
    }

    fn pair(&self, peer: PeerId, request: PairRequest) -> Result<PairGrant> {
        let volume = self.volumes.get(request.volume).ok_or(Refusal::UnknownVolume)?;
        self.pump(request.volume)?;
        if peer == self.me {
            let why = "this is the home that shares the volume: join with another --home";
            return Err(Refusal::Invalid(why.into()));
        }
        let refused = |failure: Failure| Refusal::Unauthorized(failure.one_line());
        self.invites.redeem(request.volume, &request.secret, now_unix_secs()).map_err(
            |refusal| {
                tracing::warn!(volume = %request.volume, %refusal, "an invite was refused");
                Refusal::Unauthorized(refusal.to_string())
            },
        )?;
        volume.has_room_for(Some(peer)).map_err(refused)?;
        let your_slot = volume
            .admit(&self.home, peer, &request.host)
            .map_err(|failure| Refusal::Internal(failure.one_line()))?;
        let record = volume.record();
        Ok(PairGrant {
            volume_name: record.name,
            your_slot,
            my_slot: record.slot,
            host: self.host.clone(),
        })
    }

    fn my_hello(&self, peer: PeerId, volume: VolumeId) -> Result<Hello> {
        self.pump(volume)?.my_hello(peer)
    }

    fn hello(&self, peer: PeerId, volume: VolumeId, theirs: Hello) -> Result<Hello> {
        self.pump(volume)?.hello(peer, theirs)
    }

    fn notify(&self, peer: PeerId, volume: VolumeId, batch: Batch) -> Result<Ack> {
        self.pump(volume)?.notify(peer, batch)
    }

    fn summarize(&self, peer: PeerId, volume: VolumeId, ranges: &[NodeRange]) -> Result<Vec<Part>> {
        self.pump(volume)?.summarize(peer, ranges)
    }

    fn keeps(
        &self,
        _: PeerId,
        volume: VolumeId,
        contents: &[(NodeId, ContentRef)],
    ) -> Result<Vec<bool>> {
        Ok(self.pump(volume)?.volume().keeps(contents))
    }

    fn manifest(
        &self,
        peer: PeerId,
        volume: VolumeId,
        node: NodeId,
        content: ContentRef,
    ) -> Result<Manifest> {
        self.pump(volume)?.manifest(peer, node, content)
    }

    fn read(
        &self,
        peer: PeerId,
        volume: VolumeId,
        node: NodeId,
        content: ContentRef,
        offset: u64,
        len: u64,
        sink: &mut dyn FnMut(Bytes) -> bool,
    ) -> Result<()> {
        self.pump(volume)?.read(peer, node, content, offset, len, sink)
    }

    fn barrier(
        &self,
        peer: PeerId,
        volume: VolumeId,
        request: BarrierRequest,
    ) -> Result<BarrierReply> {
        self.pump(volume)?.barrier(peer, request)
    }

    fn my_beat(&self, peer: PeerId, volume: VolumeId) -> Result<Beat> {
        self.pump(volume)?.my_beat(peer)
    }

    fn beat(&self, peer: PeerId, volume: VolumeId, theirs: Beat) -> Result<Beat> {
        self.pump(volume)?.beat(peer, theirs)
    }

    fn session_up(&self, link: Arc<Link>) {
        match self.pump(link.volume()) {
            Ok(pump) => pump.session_up(link),
            Err(_) => link.close("the volume was closed"),
        }
    }

    fn session_down(&self, peer: PeerId, volume: VolumeId, session: u64, reason: &str) {
        if let Some(hosted) = self.volumes.get(volume) {
            hosted.expect_peer();
        }
        if let Ok(pump) = self.pump(volume) {
            pump.session_down(peer, session, reason);
        }
    }
}
