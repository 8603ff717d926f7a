//! Accepted lanes become sessions: the dialler opens six, control first; when all are there and
//! both have said Hello, the session is up.

use crate::greeting::Greeting;
use crate::http2::{self, Caller};
use crate::lane::{Alpn, Purpose};
use crate::limits::{ASSEMBLY_DEADLINE, MESSAGE_BYTES_MAX};
use crate::link::{self, Link};
use crate::peers::Peers;
use crate::rpc::{Rpc, Scope};
use crate::session::Session;
use crate::tls::Secured;
use crate::{PeerService, Refusal, Result};
use lockstep_core::{PeerId, VolumeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::time::timeout;

/// Sessions of which not all lanes are there yet.
pub(crate) struct Assemblies {
    peers: Arc<Peers>,
    service: Arc<dyn PeerService>,
    forming: Mutex<HashMap<(PeerId, VolumeId), Arc<Assembly>>>,
}

/// One of them.
struct Assembly {
    session: Arc<Session>,
    lanes: watch::Sender<Lanes>,
}

/// The lanes that are there.
#[derive(Clone, Default)]
struct Lanes {
    forward: [bool; 3],
    back: [bool; 3],
    callers: [Option<Caller>; 3],
}

impl Assemblies {
    pub(crate) fn new(peers: Arc<Peers>, service: Arc<dyn PeerService>) -> Self {
        Assemblies { peers, service, forming: Mutex::default() }
    }

    /// Takes in a lane whose key is a member of the volume it names.
    pub(crate) async fn attach(self: &Arc<Self>, lane: Secured, greeting: Greeting) {
        match lane.alpn {
            Alpn::Forward(Purpose::Control) => self.start(lane, greeting),
            Alpn::Forward(purpose) => {
                let Some(assembly) = self.find(&lane, greeting) else { return };
                if assembly.claim(|lanes| &mut lanes.forward[purpose.index()]) {
                    self.serve(&assembly, lane, purpose);
                }
            }
            Alpn::Back(purpose) => {
                let Some(assembly) = self.find(&lane, greeting) else { return };
                if assembly.claim(|lanes| &mut lanes.back[purpose.index()]) {
                    assembly.call(lane, purpose).await;
                }
            }
            Alpn::Pair => {}
        }
    }

    /// The control lane starts a session, in place of one still forming.
    fn start(self: &Arc<Self>, lane: Secured, greeting: Greeting) {
        let session = Session::new(&lane, greeting.volume, greeting.session, false);
        let lanes = Lanes { forward: [true, false, false], ..Lanes::default() };
        let assembly =
            Arc::new(Assembly { session: Arc::new(session), lanes: watch::Sender::new(lanes) });
        let key = (lane.peer, greeting.volume);
        let mut forming = self.forming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = forming.insert(key, assembly.clone()) {
            old.session.close("the peer started over");
        }
        drop(forming);
        self.serve(&assembly, lane, Purpose::Control);
        tokio::spawn(self.clone().complete(assembly));
    }

    fn serve(&self, assembly: &Assembly, lane: Secured, purpose: Purpose) {
        let session = assembly.session.clone();
        let peers = self.peers.clone();
        let scope = Scope::Lane { session: session.clone(), purpose, peers };
        let rpc = Rpc { peer: lane.peer, service: self.service.clone(), scope };
        let stream = session.observe(lane.stream);
        http2::keep_lane(
            session,
            lane.alpn.name(),
            http2::serve_on(stream, rpc, MESSAGE_BYTES_MAX),
        );
    }

    fn find(&self, lane: &Secured, greeting: Greeting) -> Option<Arc<Assembly>> {
        let forming = self.forming.lock().unwrap_or_else(PoisonError::into_inner);
        let found = forming.get(&(lane.peer, greeting.volume)).cloned();
        let found = found.filter(|assembly| assembly.session.id == greeting.session);
        if found.is_none() {
            tracing::debug!(
                lane = lane.alpn.name(),
                "a lane came for a session that is not forming"
            );
        }
        found
    }

    async fn complete(self: Arc<Self>, assembly: Arc<Assembly>) {
        let session = &assembly.session;
        let link = match timeout(ASSEMBLY_DEADLINE, assembly.link()).await {
            Ok(link) => link,
            Err(_) => Err(Refusal::Unreachable("not all lanes came in time".into())),
        };
        self.forget(session);
        match link {
            Ok(link) => self.peers.establish(Arc::new(link)).await,
            Err(refusal) => {
                tracing::debug!(peer = ?session.peer, %refusal, "a session was not completed");
                session.close(&refusal.to_string());
            }
        }
    }

    fn forget(&self, session: &Session) {
        let mut forming = self.forming.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (session.peer, session.volume);
        if forming.get(&key).is_some_and(|assembly| assembly.session.id == session.id) {
            forming.remove(&key);
        }
    }
}

impl Assembly {
    /// Marks a lane as there; `false` if it was already.
    fn claim(&self, lane: impl FnOnce(&mut Lanes) -> &mut bool) -> bool {
        self.lanes.send_if_modified(|lanes| !std::mem::replace(lane(lanes), true))
    }

    async fn call(&self, lane: Secured, purpose: Purpose) {
        let name = lane.alpn.name();
        match http2::call_on(self.session.observe(lane.stream)).await {
            Ok((caller, connection)) => {
                http2::keep_lane(self.session.clone(), name, connection);
                self.lanes.send_modify(|lanes| lanes.callers[purpose.index()] = Some(caller));
            }
            Err(error) => self.session.close(&format!("the connection broke ({name}: {error})")),
        }
    }

    /// Waits for everything, then says Hello back.
    async fn link(&self) -> Result<Link> {
        let gone = || Refusal::Unreachable("the peer gave up".into());
        let opening = self.session.opening().await.ok_or_else(gone)?;
        let callers = self.callers().await.ok_or_else(gone)?;
        let control = &callers[Purpose::Control.index()];
        link::say_hello(control, &self.session, opening.ours.clone()).await?;
        Ok(Link::new(self.session.clone(), opening, callers))
    }

    async fn callers(&self) -> Option<[Caller; 3]> {
        let mut lanes = self.lanes.subscribe();
        let all =
            |lanes: &Lanes| lanes.forward == [true; 3] && lanes.callers.iter().all(Option::is_some);
        let lanes = tokio::select! {
            lanes = lanes.wait_for(all) => lanes.ok()?.clone(),
            _ = self.session.closed() => return None,
        };
        let [Some(control), Some(read), Some(bulk)] = lanes.callers else { return None };
        Some([control, read, bulk])
    }
}
