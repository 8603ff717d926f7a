//! Reaching a peer: one attempt, from the first address to a complete session.

mod keep;

pub(crate) use keep::Rediallers;

use crate::greeting::Greeting;
use crate::http2::{self, Caller};
use crate::lane::{Alpn, Purpose};
use crate::limits::{
    ADDRESS_STAGGER, ASSEMBLY_DEADLINE, MESSAGE_BYTES_MAX, OPENING_CALL_DEADLINE, UNANSWERED_AFTER,
};
use crate::link::{self, Link};
use crate::message::{PairGrant, PairRequest};
use crate::peers::{Dialing, Peers};
use crate::rpc::{Rpc, Scope, blocking};
use crate::session::{Opening, Session};
use crate::tls::{self, DialError, Secured};
use crate::wire::proto;
use crate::{Identity, PeerService, Refusal, Result, entropy};
use lockstep_core::{PeerId, VolumeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

/// Who dials, and for whom it serves the lanes on which the peer calls back.
pub(crate) struct Dialler {
    pub(crate) identity: Identity,
    pub(crate) service: Arc<dyn PeerService>,
    pub(crate) peers: Arc<Peers>,
}

impl From<DialError> for Refusal {
    fn from(error: DialError) -> Refusal {
        let text = error.to_string();
        match error {
            DialError::WrongKey { .. } => Refusal::Unauthorized(text),
            _ => Refusal::Unreachable(text),
        }
    }
}

impl Dialler {
    /// Redeems an invite at the peer that issued it.
    pub(crate) async fn pair(
        &self,
        peer: PeerId,
        addrs: &[SocketAddr],
        request: PairRequest,
    ) -> Result<PairGrant> {
        let lane = self.reach(peer, addrs, Alpn::Pair).await?;
        let (mut caller, connection) = http2::call_on(lane.stream).await.map_err(broken)?;
        let mut connection = JoinSet::from_iter([connection]);
        let call = caller.pair(proto::PairRequest::from(request));
        let answer = timeout(OPENING_CALL_DEADLINE, call).await;
        connection.abort_all();
        let granted = answer.map_err(|_| slow())?.map_err(Refusal::from)?;
        Ok(PairGrant::try_from(granted.into_inner())?)
    }

    /// One attempt at a session: complete, but not up yet.
    pub(crate) async fn attempt(
        &self,
        peer: PeerId,
        volume: VolumeId,
        addrs: &[SocketAddr],
    ) -> Result<Complete> {
        let control = self.reach(peer, addrs, Alpn::Forward(Purpose::Control)).await?;
        // Only from here on: an address that never answers must not keep the peer's own attempts out.
        let dialing = self.peers.slot(peer, volume).dialing();
        let session = Arc::new(Session::new(&control, volume, entropy::number(), true));
        let abandoned = Abandoned(Some(session.clone()));
        let link = Arc::new(self.assemble(&session, control).await?);
        Ok(Complete { link, abandoned, _dialing: dialing })
    }

    /// Brings a complete session up. In a task of its own: once begun, it is not cut off half-way.
    pub(crate) async fn establish(&self, mut complete: Complete) -> Result<Arc<Link>> {
        let (peers, up) = (self.peers.clone(), complete.link.clone());
        let established = tokio::spawn(async move { peers.establish(up).await }).await;
        established.map_err(|_| Refusal::Internal("the session failed to start".into()))?;
        complete.abandoned.0 = None;
        Ok(complete.link)
    }

    async fn assemble(&self, session: &Arc<Session>, control: Secured) -> Result<Link> {
        let address = control.address;
        let control = self.call(session, control).await?;
        let (service, peer, volume) = (self.service.clone(), session.peer, session.volume);
        let ours = blocking(move || service.my_hello(peer, volume)).await?;
        let said = ours.clone();
        link::say_hello(&control, session, ours).await?;
        let forward = |purpose| async move {
            let lane = self.lane(session, address, Alpn::Forward(purpose)).await?;
            self.call(session, lane).await
        };
        let back = |purpose| async move {
            let lane = self.lane(session, address, Alpn::Back(purpose)).await?;
            self.serve(session, lane, purpose).await
        };
        let (read, bulk, (), (), ()) = tokio::try_join!(
            forward(Purpose::Read),
            forward(Purpose::Bulk),
            back(Purpose::Control),
            back(Purpose::Read),
            back(Purpose::Bulk),
        )?;
        let opening = timeout(ASSEMBLY_DEADLINE, session.opening()).await.map_err(|_| slow())?;
        let ended = || Refusal::Unreachable("the peer gave the session up".into());
        let opening = Opening { ours: said, ..opening.ok_or_else(ended)? };
        Ok(Link::new(session.clone(), opening, [control, read, bulk]))
    }

    async fn lane(&self, session: &Session, address: SocketAddr, alpn: Alpn) -> Result<Secured> {
        Ok(tls::dial(&self.identity, session.peer, address, alpn).await?)
    }

    async fn call(&self, session: &Arc<Session>, mut lane: Secured) -> Result<Caller> {
        greet(session, &mut lane).await?;
        let stream = session.observe(lane.stream);
        let (caller, connection) = http2::call_on(stream).await.map_err(broken)?;
        http2::keep_lane(session.clone(), lane.alpn.name(), connection);
        Ok(caller)
    }

    async fn serve(
        &self,
        session: &Arc<Session>,
        mut lane: Secured,
        purpose: Purpose,
    ) -> Result<()> {
        greet(session, &mut lane).await?;
        let scope = Scope::Lane { session: session.clone(), purpose, peers: self.peers.clone() };
        let rpc = Rpc { peer: lane.peer, service: self.service.clone(), scope };
        let connection = http2::serve_on(session.observe(lane.stream), rpc, MESSAGE_BYTES_MAX);
        http2::keep_lane(session.clone(), lane.alpn.name(), connection);
        Ok(())
    }

    /// The first address that answers with the right key. All are tried again and again until each
    /// has refused, or has not answered in time.
    async fn reach(&self, peer: PeerId, addrs: &[SocketAddr], alpn: Alpn) -> Result<Secured> {
        let mut attempts = JoinSet::new();
        let mut refusals = BTreeMap::new();
        let mut again = interval(UNANSWERED_AFTER);
        while addrs.iter().any(|address| !refusals.contains_key(address)) {
            tokio::select! {
                _ = again.tick() => {
                    for (nth, address) in addrs.iter().copied().enumerate() {
                        let identity = self.identity.clone();
                        attempts.spawn(async move {
                            sleep(ADDRESS_STAGGER * nth as u32).await;
                            (address, tls::dial(&identity, peer, address, alpn).await)
                        });
                    }
                }
                Some(attempt) = attempts.join_next() => match attempt {
                    Ok((_, Ok(lane))) => return Ok(lane),
                    Ok((address, Err(error))) => {
                        refusals.entry(address).or_insert(Refusal::from(error));
                    }
                    Err(_) => return Err(Refusal::Internal("dialling failed".into())),
                },
            }
        }
        Err(all_failed(refusals.into_values().collect()))
    }
}

/// A session with all its lanes; closed if it is dropped before it is up.
pub(crate) struct Complete {
    link: Arc<Link>,
    abandoned: Abandoned,
    _dialing: Dialing,
}

/// Closes the session of an attempt that is given up.
struct Abandoned(Option<Arc<Session>>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.close("the attempt was given up");
        }
    }
}

async fn greet(session: &Session, lane: &mut Secured) -> Result<()> {
    let greeting = Greeting { volume: session.volume, session: session.id };
    greeting.write(&mut lane.stream).await.map_err(broken)
}

fn all_failed(mut refusals: Vec<Refusal>) -> Refusal {
    if refusals.len() == 1 {
        return refusals.remove(0);
    }
    if refusals.is_empty() {
        let text = "no address of the peer is known: ask it for a new invite";
        return Refusal::Unreachable(text.into());
    }
    let texts: Vec<_> = refusals.iter().map(Refusal::to_string).collect();
    Refusal::Unreachable(format!("no address of the peer works: {}", texts.join("; ")))
}

fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unreachable(format!("the connection to the peer broke: {error}"))
}

fn slow() -> Refusal {
    Refusal::Unreachable("the peer did not answer in time".into())
}
