//! What the rest of the daemon offers to its peers.

use crate::link::Link;
use crate::message::{
    Ack, BarrierReply, BarrierRequest, Batch, Beat, Hello, PairGrant, PairRequest,
};
use crate::refusal::Result;
use bytes::Bytes;
use lockstep_core::{ContentRef, Manifest, NodeId, NodeRange, Part, PeerId, VolumeId};
use std::sync::Arc;

/// What a peer may ask of us, and what we tell about ourselves.
///
/// All methods are synchronous and may block; they run on tokio's blocking pool. `my_hello`,
/// `my_beat`, `beat` and `authorize` must answer promptly: a daemon that cannot say within two
/// seconds that it lives counts as gone.
///
/// Per session, in this order: one `hello`, `session_up`, then any number of `notify`, `summarize`, `keeps`,
/// `manifest`, `read`, `barrier`, `beat`, then `session_down`. A session that fails half-way may have had its
/// `hello` and nothing else, and a `hello` may come while an older session is still up. Sessions with the same peer about the same volume never overlap: the
/// old one's `session_down` has returned before the new one's `session_up` is called, and no
/// `notify` of a session runs when its `session_down` is called (unless it hung for ten seconds).
pub trait PeerService: Send + Sync + 'static {
    /// Whether `peer` is a member of `volume`. Asked for every call: revoking works at once.
    fn authorize(&self, peer: PeerId, volume: VolumeId) -> bool;
    /// A stranger redeems an invite.
    fn pair(&self, peer: PeerId, request: PairRequest) -> Result<PairGrant>;
    /// What we open a session with that we dialled.
    fn my_hello(&self, peer: PeerId, volume: VolumeId) -> Result<Hello>;
    /// The peer opens a session; the answer is our own opening.
    fn hello(&self, peer: PeerId, volume: VolumeId, theirs: Hello) -> Result<Hello>;
    /// A batch of the peer's changes, strictly in the order of `batch.seq` within a session.
    fn notify(&self, peer: PeerId, volume: VolumeId, batch: Batch) -> Result<Ack>;
    /// What is in ranges of node ids here, one part for each of at most
    /// [`lockstep_core::compare::ASKED_MAX`].
    fn summarize(&self, peer: PeerId, volume: VolumeId, ranges: &[NodeRange]) -> Result<Vec<Part>>;
    /// Which of the contents, at most [`lockstep_core::limits::KEPT_ASKED_MAX`], the peer may rely
    /// on: they are on the disk here for good and are not being given up. One answer for each.
    fn keeps(
        &self,
        peer: PeerId,
        volume: VolumeId,
        contents: &[(NodeId, ContentRef)],
    ) -> Result<Vec<bool>>;
    /// The chunks of a content.
    fn manifest(
        &self,
        peer: PeerId,
        volume: VolumeId,
        node: NodeId,
        content: ContentRef,
    ) -> Result<Manifest>;
    /// `len` bytes of a content from `offset` (never beyond its size), pushed into `sink` in
    /// order, in pieces of any size; `sink` answers `false` when the receiver is gone.
    #[allow(clippy::too_many_arguments)]
    fn read(
        &self,
        peer: PeerId,
        volume: VolumeId,
        node: NodeId,
        content: ContentRef,
        offset: u64,
        len: u64,
        sink: &mut dyn FnMut(Bytes) -> bool,
    ) -> Result<()>;
    /// Waits until the peer's log up to a point is durable and complete here.
    fn barrier(
        &self,
        peer: PeerId,
        volume: VolumeId,
        request: BarrierRequest,
    ) -> Result<BarrierReply>;
    /// What our own heartbeat says just now.
    fn my_beat(&self, peer: PeerId, volume: VolumeId) -> Result<Beat>;
    /// The peer's heartbeat; the answer is ours.
    fn beat(&self, peer: PeerId, volume: VolumeId, theirs: Beat) -> Result<Beat>;
    /// A session is up: both directions usable. Must not wait for the peer: its answers come
    /// only after this has returned on both sides.
    fn session_up(&self, link: Arc<Link>);
    /// A session that was up has ended.
    fn session_down(&self, peer: PeerId, volume: VolumeId, session: u64, reason: &str);
}
