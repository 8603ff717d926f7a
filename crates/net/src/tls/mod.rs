//! TLS 1.3 with hybrid post-quantum key exchange and raw public keys (RFC 7250), nothing else:
//! there is no weaker setting to fall back to.

mod handshake;
pub(crate) mod verify;

pub(crate) use handshake::{AcceptError, DialError, Secured, accept, dial};
pub(crate) use verify::peer_of_spki;

use crate::Identity;
use crate::lane::Alpn;
use lockstep_core::PeerId;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, version::TLS13};
use std::sync::Arc;

/// The algorithms on offer: one key exchange, TLS 1.3 ciphers.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}

/// What an acceptor offers: every lane, any Ed25519 key that proves itself.
pub(crate) fn server_config(identity: &Identity) -> ServerConfig {
    let provider = Arc::new(provider());
    let verifier = verify::AnyKey::new(&provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(identity))));
    config.alpn_protocols = Alpn::ALL.iter().map(|alpn| alpn.name().into()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

/// What a dialler accepts: `peer` and nobody else, for this one lane.
pub(crate) fn client_config(identity: &Identity, peer: PeerId, alpn: Alpn) -> ClientConfig {
    let provider = Arc::new(provider());
    let verifier = verify::PinnedKey::new(&provider, peer);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(
            identity,
        ))));
    config.alpn_protocols = vec![alpn.name().into()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

fn certified(identity: &Identity) -> Arc<CertifiedKey> {
    let key = identity.signing_key();
    let spki = key.public_key().expect("an Ed25519 key knows its public half");
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], key))
}

/// The acceptor's check of keys, for tests that build another server around it.
#[cfg(test)]
pub(crate) fn any_key() -> Arc<dyn rustls::server::danger::ClientCertVerifier> {
    Arc::new(verify::AnyKey::new(&provider()))
}

/// The dialler's check of keys, for tests that build another client around it.
#[cfg(test)]
pub(crate) fn pinned_key(peer: PeerId) -> Arc<dyn rustls::client::danger::ServerCertVerifier> {
    Arc::new(verify::PinnedKey::new(&provider(), peer))
}
