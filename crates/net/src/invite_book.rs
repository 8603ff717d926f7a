//! The invites we gave out. Only hashes of the secrets are kept, so that a copy of the file joins
//! nothing; used and expired ones are remembered for a month, so that a refusal can say which.

use crate::private_file::{self, ReadError};
use crate::{Refusal, entropy};
use lockstep_core::VolumeId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FORMAT: u8 = 1;
/// How long a used or expired invite is remembered.
const REMEMBERED_SECS: u64 = 30 * 24 * 3600;
/// Invites kept, of any state; the oldest is forgotten first.
const RECORDS_MAX: usize = 4096;

/// Invites given out, in a file that only the owner can read.
#[derive(Debug)]
pub struct InviteBook {
    path: PathBuf,
    records: Mutex<Vec<Record>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    hash: [u8; 32],
    expires_unix_secs: u64,
    used: bool,
}

/// Why the book cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InviteBookError {
    /// Group or others may read the file.
    #[error(
        "the invite book {path} can be read by others (mode {mode:04o}): run `chmod 600 {path}`"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not a book, or one of a newer version.
    #[error(
        "the invite book {path} is damaged or from a newer version: remove it (open invites become void) and issue new ones"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error(
        "cannot use the invite book {path}: {source}; check the directory's owner and free space"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an invite does not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteRefusal {
    /// Never issued here for this volume, or long forgotten.
    #[error("this invite is not known here: ask for a new one (`lockstep invite VOLUME`)")]
    Unknown,
    /// Somebody joined with it.
    #[error(
        "this invite was used already (each works once): ask for a new one (`lockstep invite VOLUME`)"
    )]
    Used,
    /// Too late.
    #[error("this invite has expired: ask for a new one (`lockstep invite VOLUME`)")]
    Expired,
    /// It was good, but its use could not be written down: it stays unused.
    #[error(
        "the inviting side cannot record the invite as used ({0}): make room there, then try again"
    )]
    Unrecorded(String),
}

impl From<InviteRefusal> for Refusal {
    fn from(refusal: InviteRefusal) -> Refusal {
        let text = refusal.to_string();
        match refusal {
            InviteRefusal::Unrecorded(_) => Refusal::Internal(text),
            _ => Refusal::Unauthorized(text),
        }
    }
}

impl InviteBook {
    /// Reads the book in `path`; one that does not exist is empty.
    pub fn open(path: &Path) -> Result<InviteBook, InviteBookError> {
        let records = match private_file::read(path) {
            Ok(None) => Vec::new(),
            Ok(Some(bytes)) => {
                decode(&bytes).ok_or_else(|| InviteBookError::Damaged { path: path.into() })?
            }
            Err(ReadError::Exposed { mode }) => {
                return Err(InviteBookError::Exposed { path: path.into(), mode });
            }
            Err(ReadError::Io(source)) => {
                return Err(InviteBookError::Io { path: path.into(), source });
            }
        };
        Ok(InviteBook { path: path.into(), records: Mutex::new(records) })
    }

    /// Draws a secret that lets one peer join `volume` until `ttl` after `now_unix_secs`.
    pub fn issue(
        &self,
        volume: VolumeId,
        now_unix_secs: u64,
        ttl: Duration,
    ) -> Result<[u8; 16], InviteBookError> {
        let secret = entropy::bytes::<16>();
        let expires_unix_secs = now_unix_secs.saturating_add(ttl.as_secs());
        let record = Record { hash: digest(volume, &secret), expires_unix_secs, used: false };
        self.update(|records| {
            records.retain(|r| now_unix_secs < r.expires_unix_secs.saturating_add(REMEMBERED_SECS));
            let excess = (records.len() + 1).saturating_sub(RECORDS_MAX);
            records.drain(..excess);
            records.push(record);
            true
        })
        .map_err(|source| InviteBookError::Io { path: self.path.clone(), source })?;
        Ok(secret)
    }

    /// Uses up the invite, durably, or says why it does not let in. Of two at once, one wins.
    pub fn redeem(
        &self,
        volume: VolumeId,
        secret: &[u8; 16],
        now_unix_secs: u64,
    ) -> Result<(), InviteRefusal> {
        let hash = digest(volume, secret);
        let mut verdict = Err(InviteRefusal::Unknown);
        let recorded = self.update(|records| {
            if let Some(record) = records.iter_mut().find(|r| r.hash == hash) {
                verdict = record.redeem(now_unix_secs);
            }
            verdict.is_ok()
        });
        match (verdict, recorded) {
            (Ok(()), Err(error)) => Err(InviteRefusal::Unrecorded(error.to_string())),
            (verdict, _) => verdict,
        }
    }

    /// Changes the records and the file, both or neither; `change` says whether it changed any.
    fn update(&self, change: impl FnOnce(&mut Vec<Record>) -> bool) -> io::Result<()> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = records.clone();
        if !change(&mut next) {
            return Ok(());
        }
        private_file::replace(&self.path, &encode(&next))?;
        *records = next;
        Ok(())
    }
}

impl Record {
    fn redeem(&mut self, now_unix_secs: u64) -> Result<(), InviteRefusal> {
        if self.used {
            return Err(InviteRefusal::Used);
        }
        if now_unix_secs >= self.expires_unix_secs {
            return Err(InviteRefusal::Expired);
        }
        self.used = true;
        Ok(())
    }
}

fn digest(volume: VolumeId, secret: &[u8; 16]) -> [u8; 32] {
    blake3::derive_key("lockstep invite secret v1", &[&volume.0[..], secret].concat())
}

fn encode(records: &[Record]) -> Vec<u8> {
    let body = postcard::to_stdvec(records).expect("plain records always encode");
    [&[FORMAT][..], blake3::hash(&body).as_bytes(), &body].concat()
}

/// A book with one invite.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn sample() -> Vec<u8> {
    encode(&[Record { hash: [1; 32], expires_unix_secs: 9, used: false }])
}

pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Record>> {
    let (sum, body) = bytes.strip_prefix(&[FORMAT])?.split_first_chunk::<32>()?;
    if blake3::hash(body) != *sum {
        return None;
    }
    postcard::from_bytes(body).ok()
}
