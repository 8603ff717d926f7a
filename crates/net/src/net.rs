//! The network as the daemon sees it: listen, dial, pair; sessions come and go by themselves.

use crate::accept::Acceptor;
use crate::assembly::Assemblies;
use crate::dial::{Dialler, Rediallers};
use crate::message::{PairGrant, PairRequest};
use crate::peers::Peers;
use crate::{Identity, Invite, Link, PeerService, Refusal, Result};
use lockstep_core::{PeerId, VolumeId};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// All connections of one daemon. Clones are the same network.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    runtime: Handle,
    peers: Arc<Peers>,
    acceptor: Arc<Acceptor>,
    dialler: Arc<Dialler>,
    rediallers: Rediallers,
    listeners: Mutex<Vec<Listener>>,
}

struct Listener {
    asked: SocketAddr,
    bound: SocketAddr,
    task: AbortHandle,
}

impl Net {
    /// A network that reaches nobody yet. Must be called within a tokio runtime with time and I/O
    /// enabled; everything runs there.
    ///
    /// # Errors
    /// When called outside a tokio runtime.
    pub fn start(identity: Identity, service: Arc<dyn PeerService>) -> io::Result<Net> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let peers = Arc::new(Peers::new(identity.peer_id(), service.clone()));
        let assemblies = Arc::new(Assemblies::new(peers.clone(), service.clone()));
        Ok(Net(Arc::new(Inner {
            runtime,
            acceptor: Arc::new(Acceptor::new(&identity, service.clone(), assemblies)),
            dialler: Arc::new(Dialler { identity, service, peers: peers.clone() }),
            peers,
            rediallers: Rediallers::default(),
            listeners: Mutex::default(),
        })))
    }

    /// Who we are.
    pub fn peer_id(&self) -> PeerId {
        self.0.dialler.identity.peer_id()
    }

    /// Accepts peers at `address` (port 0: any free one) and answers where. Asking again for the
    /// same address answers the same.
    ///
    /// # Errors
    /// Names the address and what to do, for a port in use above all.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        if let Some(bound) = self.listening_at(address) {
            return Ok(bound);
        }
        let listener = TcpListener::bind(address).await.map_err(|e| cannot_listen(address, &e))?;
        let bound = listener.local_addr()?;
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let task = self.0.runtime.spawn(self.0.acceptor.clone().run(listener)).abort_handle();
        listeners.push(Listener { asked: address, bound, task });
        tracing::debug!(%bound, "listening");
        Ok(bound)
    }

    /// Where peers can reach us.
    pub fn listening(&self) -> Vec<SocketAddr> {
        let listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(|listener| listener.bound).collect()
    }

    /// Keeps a session with `peer` about `volume` up from now on, whatever happens in between. A
    /// second call replaces the addresses. While the peer has dialled us, its session serves.
    pub fn dial(&self, peer: PeerId, volume: VolumeId, addrs: Vec<SocketAddr>) {
        self.0.rediallers.dial(&self.0.runtime, &self.0.dialler, (peer, volume), addrs);
    }

    /// Why the last attempt to reach a dialled peer failed; `None` while it did not.
    pub fn dial_problem(&self, peer: PeerId, volume: VolumeId) -> Option<Refusal> {
        self.0.rediallers.problem((peer, volume))
    }

    /// Stops dialling, and ends the session if there is one.
    pub fn undial(&self, peer: PeerId, volume: VolumeId) {
        self.0.rediallers.undial((peer, volume));
        if let Some(link) = self.link(peer, volume) {
            link.close("the session is no longer wanted");
        }
    }

    /// The session that is up with `peer` about `volume`.
    pub fn link(&self, peer: PeerId, volume: VolumeId) -> Option<Arc<Link>> {
        self.0.peers.slot(peer, volume).live().filter(|link| link.is_alive())
    }

    /// Redeems an invite: the answer makes us a member.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] with a sentence for an invite that is used, expired or unknown,
    /// and when another key answers; [`Refusal::Unreachable`] when nobody does.
    pub async fn pair(
        &self,
        invite: &Invite,
        host: String,
        listen: Vec<SocketAddr>,
    ) -> Result<PairGrant> {
        let request = PairRequest { volume: invite.volume, secret: invite.secret, host, listen };
        self.0.dialler.pair(invite.peer, &invite.addrs, request).await
    }

    /// Stops listening and dialling, ends every session, and waits until each `session_down` has
    /// returned.
    pub async fn shutdown(&self) {
        self.0.rediallers.stop();
        {
            let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.drain(..).for_each(|listener| listener.task.abort());
        }
        self.0.peers.stop().await;
    }

    fn listening_at(&self, address: SocketAddr) -> Option<SocketAddr> {
        let listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let found = listeners.iter().find(|l| l.asked == address || l.bound == address);
        found.map(|listener| listener.bound)
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net({:?})", self.peer_id())
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> io::Error {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program uses this port: stop it, or choose another with `--listen ADDR:PORT` (port 0 picks a free one)"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: choose one of its own, or 0.0.0.0 for all"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023 with `--listen ADDR:PORT`",
        _ => "choose another address with `--listen ADDR:PORT`",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; {next}"))
}
