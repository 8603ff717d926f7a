//! The serving side of the gRPC service: checks who asks, decodes, and hands over to the
//! [`PeerService`] on the blocking pool.

mod streams;

use crate::lane::Purpose;
use crate::limits::BARRIER_WAIT_MAX;
use crate::message::{BarrierRequest, Beat, Hello, PairRequest};
use crate::peers::Peers;
use crate::session::{Opening, Session};
use crate::wire::proto::{self, lockstep_server::Lockstep};
use crate::wire::{self, WireError};
use crate::{PeerService, Refusal, Result};
use lockstep_core::{PeerId, VolumeId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

/// The service on one connection.
pub(crate) struct Rpc {
    pub(crate) peer: PeerId,
    pub(crate) service: Arc<dyn PeerService>,
    pub(crate) scope: Scope,
}

/// What the connection may be used for.
pub(crate) enum Scope {
    /// The pairing lane: Pair and nothing else.
    Pairing,
    /// A key that is no member of the volume it named: nothing.
    Stranger,
    /// A lane of a session.
    Lane { session: Arc<Session>, purpose: Purpose, peers: Arc<Peers> },
}

type Answer<T> = std::result::Result<Response<T>, Status>;

impl Rpc {
    /// The session and its volume, if this call belongs on this lane.
    fn session(&self, volume: &[u8], on: &[Purpose]) -> Result<Arc<Session>> {
        let Scope::Lane { session, purpose, .. } = &self.scope else {
            return Err(not_a_member());
        };
        if wire::volume(volume)? != session.volume {
            return Err(Refusal::Invalid("a call names another volume than its session".into()));
        }
        if !on.contains(purpose) {
            return Err(Refusal::Invalid("a call came on a lane it does not belong on".into()));
        }
        Ok(session.clone())
    }

    /// Runs one call of a member, once the session is up.
    async fn member<T: Send + 'static>(
        &self,
        session: Arc<Session>,
        call: impl FnOnce(&dyn PeerService, PeerId, VolumeId) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        session.ready().await?;
        self.authorized(session, call).await
    }

    async fn authorized<T: Send + 'static>(
        &self,
        session: Arc<Session>,
        call: impl FnOnce(&dyn PeerService, PeerId, VolumeId) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let service = self.service.clone();
        blocking(move || {
            if !service.authorize(session.peer, session.volume) {
                session.close("the peer is no longer a member of the volume");
                return Err(not_a_member());
            }
            call(&*service, session.peer, session.volume)
        })
        .await
    }
}

#[tonic::async_trait]
impl Lockstep for Rpc {
    async fn pair(&self, request: Request<proto::PairRequest>) -> Answer<proto::PairGrant> {
        if !matches!(self.scope, Scope::Pairing) {
            return Err(Refusal::Invalid("Pair belongs on the pairing lane".into()).into());
        }
        let request = PairRequest::try_from(request.into_inner()).map_err(Refusal::from)?;
        let (service, peer) = (self.service.clone(), self.peer);
        let granted = blocking(move || service.pair(peer, request)).await;
        if let Err(refusal) = &granted {
            tracing::warn!("a pairing was refused: {refusal}");
            tracing::debug!(?peer, "the pairing refused was asked for by this key");
        }
        Ok(Response::new(granted?.into()))
    }

    async fn hello(&self, request: Request<proto::HelloRequest>) -> Answer<proto::HelloResponse> {
        let request = request.into_inner();
        let session = self.session(&request.volume, &[Purpose::Control])?;
        if request.session != session.id || session.has_opened() {
            let text = "a session is opened once, under the number of its greeting";
            return Err(Refusal::Invalid(text.into()).into());
        }
        let theirs = Hello::try_from(request.hello).map_err(Refusal::from)?;
        if let Scope::Lane { peers, .. } = &self.scope {
            peers.give_way(&session)?;
        }
        let told = theirs.clone();
        let answer = self
            .authorized(session.clone(), |service, peer, volume| service.hello(peer, volume, told));
        let ours = answer.await?;
        session.opened(Opening { theirs, ours: ours.clone() });
        Ok(Response::new(proto::HelloResponse { hello: Some(ours.into()) }))
    }

    async fn batch_notify(
        &self,
        request: Request<proto::BatchNotifyRequest>,
    ) -> Answer<proto::BatchNotifyResponse> {
        let request = request.into_inner();
        let session = self.session(&request.volume, &[Purpose::Control])?;
        session.ready().await?;
        let turn = session.order.turn(request.seq).await.inspect_err(|refusal| {
            session.close(&format!("the peer broke the order of batches: {refusal}"));
        })?;
        let batch = wire::decode_batch(request).map_err(Refusal::from)?;
        let ack = self
            .authorized(session, move |service, peer, volume| {
                let _turn = turn;
                service.notify(peer, volume, batch)
            })
            .await?;
        Ok(Response::new(ack.into()))
    }

    type ReadStream = streams::Pieces<proto::ReadResponse>;

    async fn read(&self, request: Request<proto::ReadRequest>) -> Answer<Self::ReadStream> {
        Ok(Response::new(self.serve_read(request.into_inner()).await?))
    }

    type GetManifestStream = streams::Pieces<proto::ManifestPart>;

    async fn get_manifest(
        &self,
        request: Request<proto::ManifestRequest>,
    ) -> Answer<Self::GetManifestStream> {
        Ok(Response::new(self.serve_manifest(request.into_inner()).await?))
    }

    async fn keeps(&self, request: Request<proto::KeepsRequest>) -> Answer<proto::KeepsResponse> {
        let request = request.into_inner();
        let session = self.session(&request.volume, &[Purpose::Read])?;
        let contents = wire::decode_contents(&request.contents).map_err(Refusal::from)?;
        let permit = permit(&session.streams[Purpose::Read.index()]).await?;
        let kept = self
            .member(session, move |service, peer, volume| {
                let _permit = permit;
                service.keeps(peer, volume, &contents)
            })
            .await?;
        Ok(Response::new(proto::KeepsResponse { kept: wire::encode_kept(&kept) }))
    }

    async fn summarize(
        &self,
        request: Request<proto::SummarizeRequest>,
    ) -> Answer<proto::SummarizeResponse> {
        let request = request.into_inner();
        let session = self.session(&request.volume, &[Purpose::Control])?;
        let ranges = wire::decode_ranges(&request.ranges).map_err(Refusal::from)?;
        let parts = self
            .member(session, move |service, peer, volume| service.summarize(peer, volume, &ranges))
            .await?;
        Ok(Response::new(wire::encode_parts(&parts)))
    }

    async fn barrier(
        &self,
        request: Request<proto::BarrierRequest>,
    ) -> Answer<proto::BarrierResponse> {
        let request = request.into_inner();
        let session = self.session(&request.volume, &[Purpose::Control])?;
        let mut request = BarrierRequest::try_from(request).map_err(Refusal::from)?;
        request.timeout_ms = request.timeout_ms.min(BARRIER_WAIT_MAX.as_millis() as u64);
        let permit = permit(&session.barriers).await?;
        let reply = self
            .member(session, move |service, peer, volume| {
                let _permit = permit;
                service.barrier(peer, volume, request)
            })
            .await?;
        Ok(Response::new(reply.into()))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Answer<proto::HeartbeatResponse> {
        let request = request.into_inner();
        let session = self.session(&request.volume, &[Purpose::Control])?;
        let theirs = Beat::try_from(request.beat).map_err(Refusal::from)?;
        let ours = self
            .member(session, |service, peer, volume| service.beat(peer, volume, theirs))
            .await?;
        Ok(Response::new(proto::HeartbeatResponse { beat: Some(ours.into()) }))
    }
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Status {
        Refusal::from(error).into()
    }
}

/// Runs a call of the daemon where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a call of a peer did not finish");
        Err(Refusal::Internal("the peer's daemon failed on this call: see its log".into()))
    })
}

async fn permit(gate: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let waited = tokio::time::timeout(Duration::from_secs(10), gate.clone().acquire_owned()).await;
    match waited {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Refusal::Busy("too many calls at once: try again".into())),
    }
}

fn not_a_member() -> Refusal {
    Refusal::Unauthorized(
        "this machine's key is not a member of the volume there: ask for an invite (`lockstep invite VOLUME` on the other side) and run `lockstep join CODE DIR` here".into(),
    )
}
