//! Serving streams of bytes: produced on the blocking pool, a few messages ahead of the
//! connection, so that neither a slow receiver nor a large file costs memory.

use super::{Rpc, Scope, not_a_member, permit};
use crate::lane::Purpose;
use crate::limits::STREAM_AHEAD_MESSAGES;
use crate::session::Session;
use crate::wire::{self, proto};
use crate::{PeerService, Refusal, Result};
use bytes::Bytes;
use lockstep_core::limits::STREAM_MESSAGE_BYTES;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages of a stream on their way out.
pub(crate) type Pieces<M> = ReceiverStream<std::result::Result<M, Status>>;

/// Lanes that carry streams.
const STREAMS: [Purpose; 2] = [Purpose::Read, Purpose::Bulk];

impl Rpc {
    pub(super) async fn serve_read(
        &self,
        request: proto::ReadRequest,
    ) -> Result<Pieces<proto::ReadResponse>> {
        let session = self.session(&request.volume, &STREAMS)?;
        let node = wire::node(request.node)?;
        let content = wire::content(request.content.as_ref())?;
        let (offset, len) = (request.offset, request.length);
        if offset.checked_add(len).is_none_or(|end| end > content.size_bytes) {
            return Err(Refusal::Invalid("a read reaches beyond the end of its content".into()));
        }
        self.produce(
            session,
            |data| proto::ReadResponse { data },
            move |service, session, sink| {
                service.read(session.peer, session.volume, node, content, offset, len, sink)
            },
        )
        .await
    }

    pub(super) async fn serve_manifest(
        &self,
        request: proto::ManifestRequest,
    ) -> Result<Pieces<proto::ManifestPart>> {
        let session = self.session(&request.volume, &STREAMS)?;
        let node = wire::node(request.node)?;
        let content = wire::content(request.content.as_ref())?;
        self.produce(
            session,
            |data| proto::ManifestPart { data },
            move |service, session, sink| {
                let (peer, volume) = (session.peer, session.volume);
                let manifest = service.manifest(peer, volume, node, content)?;
                sink(Bytes::from(manifest.encode()));
                Ok(())
            },
        )
        .await
    }

    async fn produce<M: Send + 'static>(
        &self,
        session: Arc<Session>,
        message: fn(Bytes) -> M,
        source: impl FnOnce(&dyn PeerService, &Session, &mut dyn FnMut(Bytes) -> bool) -> Result<()>
        + Send
        + 'static,
    ) -> Result<Pieces<M>> {
        session.ready().await?;
        let permit = self.stream_permit(&session).await?;
        let service = self.service.clone();
        let (out, pieces) = mpsc::channel(STREAM_AHEAD_MESSAGES);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if !service.authorize(session.peer, session.volume) {
                session.close("the peer is no longer a member of the volume");
                let _ = out.blocking_send(Err(not_a_member().into()));
                return;
            }
            let mut sink = |data| send_pieces(&out, &session, message, data);
            if let Err(refusal) = source(&*service, &session, &mut sink) {
                let _ = out.blocking_send(Err(refusal.into()));
            }
        });
        Ok(ReceiverStream::new(pieces))
    }

    async fn stream_permit(&self, session: &Session) -> Result<OwnedSemaphorePermit> {
        let Scope::Lane { purpose, .. } = &self.scope else {
            return Err(not_a_member());
        };
        permit(&session.streams[purpose.index()]).await
    }
}

/// Cuts `data` into messages; `false` when nobody takes them any more.
fn send_pieces<M>(
    out: &mpsc::Sender<std::result::Result<M, Status>>,
    session: &Session,
    message: fn(Bytes) -> M,
    mut data: Bytes,
) -> bool {
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(STREAM_MESSAGE_BYTES));
        if session.is_closed() || out.blocking_send(Ok(message(piece))).is_err() {
            return false;
        }
    }
    true
}
