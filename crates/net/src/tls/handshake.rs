//! One handshake, on either side, with its outcome in words.

use super::{client_config, peer_of_spki};
use crate::Identity;
use crate::lane::Alpn;
use crate::limits::{CONNECT_DEADLINE, HANDSHAKE_DEADLINE};
use lockstep_core::PeerId;
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{
    AlertDescription, CertificateError, CommonState, Error, NamedGroup, PeerIncompatible,
    ServerConfig,
};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};

/// A connection whose other end has proved its key.
pub(crate) struct Secured {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
    pub(crate) alpn: Alpn,
    /// The key exchange group, by its name in the TLS registry.
    pub(crate) kex: &'static str,
}

/// Why a connection that reached us was turned away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error(
        "refused a connection that offered no X25519MLKEM768 key exchange: only post-quantum peers are accepted; update the other side's Lockstep"
    )]
    Classical,
    #[error("refused a connection that offered no TLS 1.3: update the other side's Lockstep")]
    OldTls,
    #[error(
        "refused a connection that named no lane of protocol 1: update the older side's Lockstep"
    )]
    UnknownLane,
    #[error("dropped a connection that did not finish its handshake in 5 s")]
    TooSlow,
    #[error("dropped a connection that does not speak TLS as Lockstep does: {0}")]
    Foreign(io::Error),
}

/// Why we could not reach a peer at one address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error(
        "cannot connect to {address}: {source}; is Lockstep running there (`lockstep start`) and the port reachable?"
    )]
    Connect { address: SocketAddr, source: io::Error },
    #[error("no answer from {address} in 5 s; is the machine on and the port reachable?")]
    TooSlow { address: SocketAddr },
    #[error(
        "who answers at {address} has another key than the peer expected there: its address or identity changed; ask it for a new invite"
    )]
    WrongKey { address: SocketAddr },
    #[error(
        "refused {address}: it offers no X25519MLKEM768 key exchange (classical cryptography only) or is not a Lockstep peer; update the Lockstep there"
    )]
    Classical { address: SocketAddr },
    #[error(
        "{address} speaks another version of the Lockstep protocol: run the same version on both sides"
    )]
    OtherProtocol { address: SocketAddr },
    #[error(
        "{address} does not speak TLS as Lockstep does: {source}; is it really a Lockstep peer's port?"
    )]
    Foreign { address: SocketAddr, source: io::Error },
}

/// The acceptor's side.
pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    tcp: TcpStream,
    address: SocketAddr,
) -> Result<Secured, AcceptError> {
    tcp.set_nodelay(true).map_err(AcceptError::Foreign)?;
    let stream = timeout(HANDSHAKE_DEADLINE, handshake(config, tcp))
        .await
        .map_err(|_| AcceptError::TooSlow)??;
    let (peer, alpn, kex) = outcome(stream.get_ref().1).ok_or(AcceptError::UnknownLane)?;
    Ok(Secured { stream: stream.into(), peer, address, alpn, kex })
}

/// Looks at what the client offers first, so that its refusal can name the reason. The handshake
/// then runs (and fails) in any case: that is what sends the client its alert.
async fn handshake(
    config: Arc<ServerConfig>,
    tcp: TcpStream,
) -> Result<tokio_rustls::server::TlsStream<TcpStream>, AcceptError> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), tcp)
        .await
        .map_err(|error| accept_error(error, true))?;
    let post_quantum = start
        .client_hello()
        .named_groups()
        .is_some_and(|groups| groups.contains(&NamedGroup::X25519MLKEM768));
    start.into_stream(config).await.map_err(|error| accept_error(error, post_quantum))
}

/// The dialler's side: `peer` at `address`, or an error.
pub(crate) async fn dial(
    identity: &Identity,
    peer: PeerId,
    address: SocketAddr,
    alpn: Alpn,
) -> Result<Secured, DialError> {
    let tcp = timeout(CONNECT_DEADLINE, TcpStream::connect(address))
        .await
        .map_err(|_| DialError::TooSlow { address })?
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|source| DialError::Connect { address, source })?;
    let connector = TlsConnector::from(Arc::new(client_config(identity, peer, alpn)));
    let name = ServerName::IpAddress(address.ip().into());
    let stream = timeout(HANDSHAKE_DEADLINE, connector.connect(name, tcp))
        .await
        .map_err(|_| DialError::TooSlow { address })?
        .map_err(|error| dial_error(address, error))?;
    match outcome(stream.get_ref().1) {
        Some((peer, agreed, kex)) if agreed == alpn => {
            Ok(Secured { stream: stream.into(), peer, address, alpn, kex })
        }
        _ => Err(DialError::OtherProtocol { address }),
    }
}

fn outcome(tls: &CommonState) -> Option<(PeerId, Alpn, &'static str)> {
    let peer = peer_of_spki(tls.peer_certificates()?.first()?)?;
    let alpn = Alpn::parse(tls.alpn_protocol()?)?;
    let kex = tls.negotiated_key_exchange_group()?.name().as_str()?;
    Some((peer, alpn, kex))
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref::<Error>()
}

fn accept_error(error: io::Error, post_quantum: bool) -> AcceptError {
    match tls_error(&error) {
        Some(Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        )) => AcceptError::OldTls,
        _ if !post_quantum => AcceptError::Classical,
        Some(Error::NoApplicationProtocol) => AcceptError::UnknownLane,
        _ => AcceptError::Foreign(error),
    }
}

fn dial_error(address: SocketAddr, source: io::Error) -> DialError {
    match tls_error(&source) {
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            DialError::WrongKey { address }
        }
        Some(Error::AlertReceived(
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity,
        )) => DialError::Classical { address },
        Some(Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon)) => {
            DialError::Classical { address }
        }
        Some(Error::AlertReceived(
            AlertDescription::NoApplicationProtocol | AlertDescription::ProtocolVersion,
        )) => DialError::OtherProtocol { address },
        _ => DialError::Foreign { address, source },
    }
}
