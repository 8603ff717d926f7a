//! Who we are: one Ed25519 key per home directory. The public half is the [`PeerId`].

use crate::private_file::{self, ReadError};
use crate::{entropy, tls};
use data_encoding::HEXLOWER;
use lockstep_core::PeerId;
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First word of a key file.
const FILE_HEADER: &str = "lockstep-key-1 ";
/// PKCS #8 (RFC 8410) around a 32-byte Ed25519 seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// This peer's secret key.
#[derive(Clone)]
pub struct Identity {
    key: Arc<dyn SigningKey>,
    peer: PeerId,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Group or others may read the file.
    #[error(
        "the key file {path} can be read by others (mode {mode:04o}): if nobody saw it, run `chmod 600 {path}`; otherwise remove it and pair again"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no key.
    #[error(
        "the key file {path} is damaged: restore it from a backup, or remove it to get a new identity and pair again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot use the key file {path}: {source}; check the directory's owner and free space")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Identity {
    /// Reads the key in `path`, or draws one and writes it there (mode 0600).
    pub fn load_or_create(path: &Path) -> Result<Identity, IdentityError> {
        if let Some(identity) = Self::load(path)? {
            return Ok(identity);
        }
        let seed = entropy::bytes::<32>();
        let text = format!("{FILE_HEADER}{}\n", HEXLOWER.encode(&seed));
        match private_file::create(path, text.as_bytes()) {
            Ok(()) => Ok(Self::from_seed(&seed)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(path)?.ok_or_else(|| Self::io(path, error))
            }
            Err(error) => Err(Self::io(path, error)),
        }
    }

    /// The public key: what other peers know us by.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn signing_key(&self) -> Arc<dyn SigningKey> {
        self.key.clone()
    }

    pub(crate) fn from_seed(seed: &[u8; 32]) -> Identity {
        let der = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], seed].concat());
        let key = any_eddsa_type(&der).expect("any 32 bytes are an Ed25519 seed");
        let spki = key.public_key().expect("an Ed25519 key knows its public half");
        let peer = tls::peer_of_spki(spki.as_ref()).expect("an Ed25519 SPKI");
        Identity { key, peer }
    }

    fn load(path: &Path) -> Result<Option<Identity>, IdentityError> {
        let bytes = match private_file::read(path) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => bytes,
            Err(ReadError::Exposed { mode }) => {
                return Err(IdentityError::Exposed { path: path.into(), mode });
            }
            Err(ReadError::Io(error)) => return Err(Self::io(path, error)),
        };
        Self::parse(&bytes).map(Some).ok_or_else(|| IdentityError::Damaged { path: path.into() })
    }

    /// What a key file holds.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Identity> {
        let hex = std::str::from_utf8(bytes).ok()?.strip_prefix(FILE_HEADER)?;
        let seed = HEXLOWER.decode(hex.trim_end().as_bytes()).ok()?;
        Some(Self::from_seed(&<[u8; 32]>::try_from(seed).ok()?))
    }

    fn io(path: &Path, source: io::Error) -> IdentityError {
        IdentityError::Io { path: path.into(), source }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.peer)
    }
}
