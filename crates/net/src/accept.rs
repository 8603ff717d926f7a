//! Connections that reach us: the handshake, and who may go on.

use crate::assembly::Assemblies;
use crate::greeting::Greeting;
use crate::http2;
use crate::lane::Alpn;
use crate::limits::{
    HANDSHAKE_DEADLINE, STRANGER_DEADLINE, STRANGER_REQUEST_BYTES_MAX, STRANGERS_MAX,
};
use crate::quiet::Quiet;
use crate::rpc::{Rpc, Scope, blocking};
use crate::tls::{self, AcceptError, Secured};
use crate::{Identity, PeerService};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What all listeners share.
pub(crate) struct Acceptor {
    tls: Arc<rustls::ServerConfig>,
    service: Arc<dyn PeerService>,
    assemblies: Arc<Assemblies>,
    /// Room for connections that have not shown a member's key.
    strangers: Arc<Semaphore>,
    refusals: Quiet,
}

impl Acceptor {
    pub(crate) fn new(
        identity: &Identity,
        service: Arc<dyn PeerService>,
        assemblies: Arc<Assemblies>,
    ) -> Self {
        Acceptor {
            tls: Arc::new(tls::server_config(identity)),
            service,
            assemblies,
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            refusals: Quiet::default(),
        }
    }

    /// Accepts until the task is aborted.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((tcp, address)) => self.clone().admit(tcp, address),
                Err(error) => {
                    // Out of file descriptors, or a connection gone before we saw it.
                    tracing::warn!(%error, "cannot accept a connection just now");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(self: Arc<Self>, tcp: TcpStream, address: SocketAddr) {
        let Ok(permit) = self.strangers.clone().try_acquire_owned() else {
            self.refusals.warn("too many connections at once that have not shown a known key");
            return;
        };
        tokio::spawn(async move {
            match tls::accept(self.tls.clone(), tcp, address).await {
                // The permit is given back when the key has proved to be a member's, or at the end.
                Ok(lane) => self.welcome(lane, permit).await,
                Err(error) => self.refuse(address, &error),
            }
        });
    }

    async fn welcome(&self, mut lane: Secured, permit: impl Drop + Send) {
        if lane.alpn == Alpn::Pair {
            return self.serve_stranger(lane, Scope::Pairing).await;
        }
        let greeting = match timeout(HANDSHAKE_DEADLINE, Greeting::read(&mut lane.stream)).await {
            Ok(Ok(greeting)) => greeting,
            _ => {
                tracing::debug!(address = %lane.address, "a lane did not say what it is for");
                return;
            }
        };
        let (service, peer) = (self.service.clone(), lane.peer);
        let member = blocking(move || Ok(service.authorize(peer, greeting.volume))).await;
        if member == Ok(true) {
            drop(permit);
            return self.assemblies.attach(lane, greeting).await;
        }
        self.refusals.warn(
            "refused a peer whose key is not a member of the volume it asked for: if it is yours, give it an invite (`lockstep invite VOLUME`)",
        );
        tracing::debug!(?peer, address = %lane.address, "the key refused");
        if matches!(lane.alpn, Alpn::Forward(_)) {
            self.serve_stranger(lane, Scope::Stranger).await;
        }
    }

    /// Serves a key that is no member (yet), for a short time: what it may not do it is told in a
    /// sentence.
    async fn serve_stranger(&self, lane: Secured, scope: Scope) {
        let rpc = Rpc { peer: lane.peer, service: self.service.clone(), scope };
        let served = timeout(
            STRANGER_DEADLINE,
            http2::serve_on(lane.stream, rpc, STRANGER_REQUEST_BYTES_MAX),
        )
        .await;
        tracing::debug!(address = %lane.address, ?served, "a connection without a session ended");
    }

    fn refuse(&self, address: SocketAddr, error: &AcceptError) {
        tracing::debug!(%address, "{error}");
        match error {
            AcceptError::Classical | AcceptError::OldTls | AcceptError::UnknownLane => {
                self.refusals.warn(&error.to_string());
            }
            AcceptError::TooSlow | AcceptError::Foreign(_) => {}
        }
    }
}
