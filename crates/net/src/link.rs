//! The calling side of a session: what the daemon asks of one peer about one volume.

mod content_stream;

pub use content_stream::ContentStream;

use crate::http2::Caller;
use crate::lane::{Lane, Purpose};
use crate::limits::{
    BARRIER_SLACK, BARRIER_WAIT_MAX, BARRIERS_MAX, CHUNK_AVERAGE_MIN_BYTES, KEEPS_DEADLINE,
    MANIFEST_BYTES_MAX, MESSAGE_BYTES_MAX, NOTIFY_DEADLINE, OPENING_CALL_DEADLINE,
    STREAM_IDLE_DEADLINE, SUMMARY_DEADLINE,
};
use crate::message::{Ack, BarrierReply, BarrierRequest, Batch, Beat, Hello};
use crate::session::{Opening, Session};
use crate::wire::{self, WireError, proto};
use crate::{Refusal, Result};
use lockstep_core::limits::{BATCH_NOTIFICATIONS_MAX, CHUNK_MAX_BYTES};
use lockstep_core::{ContentRef, Manifest, NodeId, NodeRange, Part, PeerId, VolumeId};
use prost::Message;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Response, Status};

/// One live session with one peer about one volume.
///
/// Calls may run at the same time. Each has a deadline; after the session has ended each answers
/// [`Refusal::Unreachable`].
#[derive(Debug)]
pub struct Link {
    session: Arc<Session>,
    opening: Opening,
    callers: [Caller; 3],
    barriers: Semaphore,
}

impl Link {
    pub(crate) fn new(session: Arc<Session>, opening: Opening, callers: [Caller; 3]) -> Link {
        Link { session, opening, callers, barriers: Semaphore::new(BARRIERS_MAX) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.session.peer
    }

    /// What the session is about.
    pub fn volume(&self) -> VolumeId {
        self.session.volume
    }

    /// The session's number: the same on both sides, never used twice.
    pub fn session(&self) -> u64 {
        self.session.id
    }

    /// How the peer opened the session.
    pub fn their_hello(&self) -> &Hello {
        &self.opening.theirs
    }

    /// How we opened it.
    pub fn our_hello(&self) -> &Hello {
        &self.opening.ours
    }

    /// How the peer is reached, for people: `tcp 127.0.0.1:1234`.
    pub fn path(&self) -> String {
        self.session.path.clone()
    }

    /// The key exchange that protects the session, by its name in the TLS registry.
    pub fn kex(&self) -> &str {
        self.session.kex
    }

    /// Bytes received and sent in this session so far, inside TLS.
    pub fn traffic_bytes(&self) -> (u64, u64) {
        self.session.activity().traffic_bytes()
    }

    /// Whether the session has not ended yet.
    pub fn is_alive(&self) -> bool {
        !self.session.is_closed()
    }

    /// Ends the session; whoever dials starts a new one.
    pub fn close(&self, reason: &str) {
        self.session.close(reason);
    }

    /// Waits until the session has ended, and answers why.
    pub async fn closed(&self) -> Arc<str> {
        self.session.closed().await
    }

    /// Sends a batch and waits until it is durable there. Up to
    /// [`lockstep_core::limits::BATCHES_IN_FLIGHT_MAX`] may be under way. Dropping the future does
    /// not unsend the batch. A batch that is too large, or stays without an answer, ends the
    /// session: its number would leave a gap.
    pub async fn notify(&self, batch: Batch) -> Result<Ack> {
        let request = wire::encode_batch(self.volume(), &batch);
        let bytes = request.encoded_len();
        if batch.notifications.len() > BATCH_NOTIFICATIONS_MAX || bytes > MESSAGE_BYTES_MAX {
            let text = format!(
                "a batch of {} notifications and {bytes} bytes is larger than the protocol allows",
                batch.notifications.len()
            );
            self.close(&text);
            return Err(Refusal::Invalid(text));
        }
        let (session, mut caller) = (self.session.clone(), self.caller(Purpose::Control));
        let call = tokio::spawn(async move {
            let answer = within(NOTIFY_DEADLINE, &session, caller.batch_notify(request)).await;
            if let Err(Refusal::Unreachable(reason)) = &answer {
                session.close(reason);
            }
            answer
        });
        let answer = call.await.map_err(|_| ended(&self.session))??;
        Ok(Ack::try_from(answer)?)
    }

    /// What is in ranges of node ids at the peer: one part for each of at most
    /// [`lockstep_core::compare::ASKED_MAX`] ranges.
    pub async fn summarize(&self, ranges: &[NodeRange]) -> Result<Vec<Part>> {
        let request = proto::SummarizeRequest {
            volume: wire::volume_bytes(self.volume()),
            ranges: wire::encode_ranges(ranges),
        };
        let mut caller = self.caller(Purpose::Control);
        let call = caller.summarize(request);
        let answer = within(SUMMARY_DEADLINE, &self.session, call).await?;
        Ok(wire::decode_parts(answer)?)
    }

    /// Which of at most [`lockstep_core::limits::KEPT_ASKED_MAX`] contents the peer has on its disk
    /// for good and is not giving up.
    pub async fn keeps(&self, contents: &[(NodeId, ContentRef)]) -> Result<Vec<bool>> {
        let request = proto::KeepsRequest {
            volume: wire::volume_bytes(self.volume()),
            contents: wire::encode_contents(contents),
        };
        let mut caller = self.caller(Purpose::Read);
        let answer = within(KEEPS_DEADLINE, &self.session, caller.keeps(request)).await?;
        Ok(wire::decode_kept(&answer.kept, contents.len())?)
    }

    /// The chunks of a content, checked for size but not yet against the content's hash.
    pub async fn manifest(&self, node: NodeId, content: ContentRef) -> Result<Manifest> {
        let request = proto::ManifestRequest {
            volume: wire::volume_bytes(self.volume()),
            node: node.0,
            content: Some(wire::encode_content(content)),
        };
        let mut caller = self.caller(Purpose::Read);
        let call = caller.get_manifest(request);
        let mut parts = within(STREAM_IDLE_DEADLINE, &self.session, call).await?;
        let mut bytes = Vec::new();
        let chunks_max = content.size_bytes / CHUNK_AVERAGE_MIN_BYTES + 1;
        let bytes_max = MANIFEST_BYTES_MAX.min(chunks_max * 36);
        while let Some(part) = self.next_part(&mut parts).await? {
            if (bytes.len() + part.data.len()) as u64 > bytes_max {
                return Err(WireError::new("manifest", "has more chunks than make sense").into());
            }
            bytes.extend_from_slice(&part.data);
        }
        decode_manifest(&bytes, content)
    }

    /// The bytes of a content from `offset`, `len` of them or up to its end.
    pub async fn read(
        &self,
        lane: Lane,
        node: NodeId,
        content: ContentRef,
        offset: u64,
        len: u64,
    ) -> Result<ContentStream> {
        let length = len.min(content.size_bytes.saturating_sub(offset));
        let request = proto::ReadRequest {
            volume: wire::volume_bytes(self.volume()),
            node: node.0,
            content: Some(wire::encode_content(content)),
            offset: offset.min(content.size_bytes),
            length,
        };
        let mut caller = self.caller(lane.into());
        let stream = within(STREAM_IDLE_DEADLINE, &self.session, caller.read(request)).await?;
        Ok(ContentStream::new(stream, self.session.clone(), length))
    }

    /// Waits until everything of ours up to `request.upto` is durable and complete there.
    pub async fn barrier(&self, request: BarrierRequest) -> Result<BarrierReply> {
        let _turn = self.barriers.acquire().await;
        let deadline = Duration::from_millis(request.timeout_ms).min(BARRIER_WAIT_MAX);
        let wire = wire::encode_barrier(self.volume(), request);
        let mut caller = self.caller(Purpose::Control);
        let call = caller.barrier(wire);
        let reply = within(deadline + BARRIER_SLACK, &self.session, call).await?;
        Ok(BarrierReply::try_from(reply)?)
    }

    pub(crate) async fn heartbeat(&self, ours: Beat) -> Result<Beat> {
        let request = proto::HeartbeatRequest {
            volume: wire::volume_bytes(self.volume()),
            beat: Some(ours.into()),
        };
        let answer = self.caller(Purpose::Control).heartbeat(request).await?;
        Ok(Beat::try_from(answer.into_inner().beat)?)
    }

    pub(crate) fn own(&self) -> &Arc<Session> {
        &self.session
    }

    fn caller(&self, purpose: Purpose) -> Caller {
        self.callers[purpose.index()].clone()
    }

    async fn next_part<M>(&self, parts: &mut tonic::Streaming<M>) -> Result<Option<M>> {
        match timeout(STREAM_IDLE_DEADLINE, parts.message()).await {
            Ok(part) => part.map_err(|status| failed(&self.session, status)),
            Err(_) => Err(too_slow(STREAM_IDLE_DEADLINE)),
        }
    }
}

/// Says Hello on a control lane that is not yet a link's.
pub(crate) async fn say_hello(caller: &Caller, session: &Session, ours: Hello) -> Result<Hello> {
    let request = proto::HelloRequest {
        volume: wire::volume_bytes(session.volume),
        session: session.id,
        hello: Some(ours.into()),
    };
    let mut caller = caller.clone();
    let answer = within(OPENING_CALL_DEADLINE, session, caller.hello(request)).await?;
    Ok(Hello::try_from(answer.hello)?)
}

/// One call with its deadline, its failure told in our words.
async fn within<T>(
    deadline: Duration,
    session: &Session,
    call: impl Future<Output = std::result::Result<Response<T>, Status>>,
) -> Result<T> {
    match timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed(session, status)),
        Err(_) => Err(too_slow(deadline)),
    }
}

/// What a failed call means: once the session has ended, that is the reason.
fn failed(session: &Session, status: Status) -> Refusal {
    match Refusal::from(status) {
        Refusal::Unreachable(_) if session.is_closed() => ended(session),
        refusal => refusal,
    }
}

fn ended(session: &Session) -> Refusal {
    Refusal::Unreachable(match session.end_reason() {
        Some(reason) => format!("the session with the peer has ended: {reason}"),
        None => "the session with the peer has ended".into(),
    })
}

fn too_slow(deadline: Duration) -> Refusal {
    Refusal::Unreachable(format!("the peer did not answer within {} s", deadline.as_secs()))
}

pub(crate) fn decode_manifest(bytes: &[u8], content: ContentRef) -> Result<Manifest> {
    let wrong = |reason| Refusal::from(WireError::new("manifest", reason));
    let manifest = Manifest::decode(bytes).ok_or_else(|| wrong("is cut short"))?;
    if manifest.chunks.iter().any(|c| c.len_bytes == 0 || c.len_bytes > CHUNK_MAX_BYTES) {
        return Err(wrong("has a chunk of impossible size"));
    }
    if manifest.size_bytes() != content.size_bytes {
        return Err(wrong("does not add up to the content's size"));
    }
    Ok(manifest)
}
