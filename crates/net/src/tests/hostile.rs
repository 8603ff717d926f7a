//! Connections that are not what they should be: each costs itself, and nothing else.

use super::fake::*;
use crate::lane::{Alpn, Purpose};
use crate::{Refusal, tls};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn certified(seed: u8) -> Arc<CertifiedKey> {
    let key = identity(seed).signing_key();
    let spki = key.public_key().unwrap().to_vec();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key))
}

/// A provider with the key exchanges of before the quantum computer.
fn classical() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

/// Our own client in everything but the key exchange and the version.
fn old_client(peer: &Peer, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let verifier = tls::pinned_key(peer.id());
    let mut config = ClientConfig::builder_with_provider(Arc::new(classical()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(90))));
    config.alpn_protocols = vec![Alpn::Forward(Purpose::Control).name().into()];
    config
}

async fn handshake(config: ClientConfig, address: SocketAddr) -> (String, SocketAddr) {
    let tcp = TcpStream::connect(address).await.unwrap();
    let local = tcp.local_addr().unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let outcome = soon(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await;
    (outcome.expect_err("must be refused").to_string(), local)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classical_client_is_refused_and_both_sides_say_so() {
    let a = Peer::new(80);
    let address = a.listen().await;
    let (error, local) = handshake(old_client(&a, &TLS13), address).await;
    assert!(error.contains("HandshakeFailure"), "{error}");
    logged(&["WARN", "offered no X25519MLKEM768"]).await;
    logged(&["DEBUG", "offered no X25519MLKEM768", &local.to_string()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_1_2_client_is_refused() {
    let a = Peer::new(81);
    let address = a.listen().await;
    let mut config = old_client(&a, &TLS12);
    config.alpn_protocols.clear();
    let (error, local) = handshake(config, address).await;
    assert!(error.contains("ProtocolVersion") || error.contains("HandshakeFailure"), "{error}");
    logged(&["DEBUG", "offered no TLS 1.3", &local.to_string()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_offers_only_classical_key_exchange_is_not_dialled() {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(classical()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(tls::any_key())
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(82))));
    config.alpn_protocols = Alpn::ALL.iter().map(|alpn| alpn.name().into()).collect();
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = TlsAcceptor::from(Arc::new(config.clone())).accept(tcp).await;
        }
    });
    let error = tls::dial(&identity(83), identity(82).peer_id(), address, Alpn::Pair).await;
    let text = error.err().expect("must be refused").to_string();
    assert!(text.contains("X25519MLKEM768") && text.contains(&address.to_string()), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_refused_with_a_sentence_and_the_others_are_served() {
    let (a, b, address) = connected(84).await;
    let stranger = Peer::new(86);
    stranger.net.dial(a.id(), VOLUME, vec![address]);
    soon(async {
        while stranger.net.dial_problem(a.id(), VOLUME).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let Some(Refusal::Unauthorized(text)) = stranger.net.dial_problem(a.id(), VOLUME) else {
        panic!("{:?}", stranger.net.dial_problem(a.id(), VOLUME));
    };
    assert!(text.contains("not a member") && text.contains("lockstep join"), "{text}");
    logged(&["WARN", "key is not a member", "lockstep invite"]).await;
    assert_eq!(a.fake.seen.borrow().hellos.len(), 1, "the stranger's Hello came through");
    b.fake.link(1).await.notify(super::calls::batch(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_one_volume_is_a_stranger_to_another() {
    let (a, b, address) = connected(87).await;
    let other = lockstep_core::VolumeId([0xbb; 16]);
    b.net.dial(a.id(), other, vec![address]);
    soon(async {
        while b.net.dial_problem(a.id(), other).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(b.net.dial_problem(a.id(), other), Some(Refusal::Unauthorized(_))));
    assert!(b.fake.link(1).await.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_key_than_expected_is_refused_by_the_dialler() {
    let (a, b) = (Peer::new(89), Peer::new(90));
    a.knows(&b);
    let address = a.listen().await;
    let expected = identity(91).peer_id();
    b.net.dial(expected, VOLUME, vec![address]);
    soon(async {
        while b.net.dial_problem(expected, VOLUME).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let Some(Refusal::Unauthorized(text)) = b.net.dial_problem(expected, VOLUME) else {
        panic!("{:?}", b.net.dial_problem(expected, VOLUME));
    };
    assert!(text.contains("another key"), "{text}");
    assert!(a.fake.seen.borrow().hellos.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_does_no_harm() {
    let (a, b, address) = connected(92).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0x16, 3, 1, 0xff, 0xff], b""] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // It may answer with an alert or a reset; it must not hold the connection.
        let _ = soon(tcp.read_to_end(&mut answer)).await;
    }
    b.fake.link(1).await.notify(super::calls::batch(1)).await.unwrap();
    assert_eq!(a.fake.seen.borrow().batches, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_inside_a_lane_ends_that_lane_only() {
    let (a, b, address) = connected(94).await;
    for alpn in Alpn::ALL {
        let member = identity(95);
        let mut lane = tls::dial(&member, a.id(), address, alpn).await.unwrap();
        let mut greeting = VOLUME.0.to_vec();
        greeting.extend_from_slice(&[0x5a; 2000]);
        let _ = lane.stream.write_all(&greeting).await;
        let mut answer = Vec::new();
        let _ = soon(lane.stream.read_to_end(&mut answer)).await;
    }
    b.fake.link(1).await.notify(super::calls::batch(1)).await.unwrap();
    assert!(a.fake.link(1).await.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_dropped_and_leave_room_again() {
    let (a, b) = (Peer::new(96), Peer::new(97));
    a.knows(&b);
    b.knows(&a);
    let address = a.listen().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // The ones beyond the cap are closed at once, the others after the handshake's deadline.
    for tcp in &mut silent {
        let mut answer = Vec::new();
        let _ = soon(tcp.read_to_end(&mut answer)).await;
    }
    logged(&["WARN", "too many connections at once"]).await;
    b.net.dial(a.id(), VOLUME, vec![address]);
    b.fake.link(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_on_the_wrong_lane_is_refused() {
    use crate::wire::{proto, volume_bytes};
    let (a, _b, address) = connected(98).await;
    // A member's key, but the session its read lane names is not forming: nothing is served.
    let mut lane =
        tls::dial(&identity(99), a.id(), address, Alpn::Forward(Purpose::Read)).await.unwrap();
    let greeting = crate::greeting::Greeting { volume: VOLUME, session: 1 };
    greeting.write(&mut lane.stream).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(lane.stream.read_to_end(&mut answer)).await;
    // The pairing lane serves nothing but Pair.
    let lane = tls::dial(&identity(99), a.id(), address, Alpn::Pair).await.unwrap();
    let (mut caller, connection) = crate::http2::call_on(lane.stream).await.unwrap();
    tokio::spawn(connection);
    let barrier = proto::BarrierRequest { volume: volume_bytes(VOLUME), upto: 1, timeout_ms: 0 };
    let refused = Refusal::from(soon(caller.barrier(barrier)).await.unwrap_err());
    assert!(matches!(refused, Refusal::Unauthorized(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_make_us_decode_a_large_message() {
    use crate::wire::{proto, volume_bytes};
    let a = Peer::new(100);
    let address = a.listen().await;
    let lane = tls::dial(&identity(101), a.id(), address, Alpn::Pair).await.unwrap();
    let (mut caller, connection) = crate::http2::call_on(lane.stream).await.unwrap();
    tokio::spawn(connection);
    let batch = proto::BatchNotifyRequest {
        notifications: vec![proto::NotifyRequest::default(); 100_000],
        seq: 1,
        timestamp: 1,
        volume: volume_bytes(VOLUME),
    };
    let refused = soon(caller.batch_notify(batch)).await.unwrap_err();
    assert!(refused.message().contains("length too large"), "{refused:?}");
}
