//! Why a peer said no, in one closed list that survives the trip over gRPC: the status code tells
//! foreign tools, the status details tell us exactly.

use crate::limits::TEXT_BYTES_MAX;
use crate::wire::proto::{RefusalDetail, refusal_detail::Kind};
use crate::wire::{encode_content, encode_version};
use lockstep_core::{Sequence, Shown};
use prost::Message;
use tonic::{Code, Status};

/// What calls between peers answer.
pub type Result<T> = std::result::Result<T, Refusal>;

/// Why a peer, or the way to it, refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key may not do this; the text says what to do about it.
    #[error("{0}")]
    Unauthorized(String),
    /// The peer has no such volume.
    #[error("the peer does not have this volume: ask it for an invite to one it shares")]
    UnknownVolume,
    /// The content was superseded or is not available there.
    #[error("the peer no longer has this version of the content: ask again for the newest one")]
    Gone {
        /// The version that it shows of the file instead, if it shows one.
        shown: Option<Shown>,
    },
    /// A change does not continue the author's log.
    #[error("changes arrived out of order: number {} is expected next", expected.0)]
    OutOfOrder {
        /// What must come next.
        expected: Sequence,
    },
    /// Not now; worth trying again soon.
    #[error("{0}")]
    Busy(String),
    /// The receiver's disk is full.
    #[error("{0}")]
    DiskFull(String),
    /// The request breaks the protocol or a limit.
    #[error("{0}")]
    Invalid(String),
    /// Something failed inside the peer.
    #[error("{0}")]
    Internal(String),
    /// No answer: no route, no connection, or not in time.
    #[error("{0}")]
    Unreachable(String),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let (code, kind) = refusal.codes();
        let expected = match &refusal {
            Refusal::OutOfOrder { expected } => expected.0,
            _ => 0,
        };
        let message = readable(&refusal.to_string());
        let shown = match &refusal {
            Refusal::Gone { shown } => *shown,
            _ => None,
        };
        let detail = RefusalDetail {
            kind: kind.into(),
            message: message.clone(),
            expected,
            shown: shown.map(|shown| encode_content(shown.content)),
            shown_version: shown.map(|shown| encode_version(shown.version)),
        };
        Status::with_details(code, message, detail.encode_to_vec().into())
    }
}

impl Refusal {
    fn codes(&self) -> (Code, Kind) {
        match self {
            Refusal::Unauthorized(_) => (Code::Unauthenticated, Kind::Unauthorized),
            Refusal::UnknownVolume => (Code::NotFound, Kind::UnknownVolume),
            Refusal::Gone { .. } => (Code::FailedPrecondition, Kind::Gone),
            Refusal::OutOfOrder { .. } => (Code::OutOfRange, Kind::OutOfOrder),
            Refusal::Busy(_) => (Code::ResourceExhausted, Kind::Busy),
            Refusal::DiskFull(_) => (Code::ResourceExhausted, Kind::DiskFull),
            Refusal::Invalid(_) => (Code::InvalidArgument, Kind::Invalid),
            Refusal::Internal(_) => (Code::Internal, Kind::Internal),
            Refusal::Unreachable(_) => (Code::Unavailable, Kind::Unreachable),
        }
    }

    pub(crate) fn from_detail(detail: RefusalDetail) -> Refusal {
        let text = readable(&detail.message);
        match Kind::try_from(detail.kind) {
            Ok(Kind::Unauthorized) => Refusal::Unauthorized(text),
            Ok(Kind::UnknownVolume) => Refusal::UnknownVolume,
            Ok(Kind::Gone) => Refusal::Gone { shown: crate::wire::shown(&detail) },
            Ok(Kind::OutOfOrder) => Refusal::OutOfOrder { expected: Sequence(detail.expected) },
            Ok(Kind::Busy) => Refusal::Busy(text),
            Ok(Kind::DiskFull) => Refusal::DiskFull(text),
            Ok(Kind::Invalid) => Refusal::Invalid(text),
            Ok(Kind::Unreachable) => Refusal::Unreachable(text),
            Ok(Kind::Internal) | Err(_) => Refusal::Internal(text),
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        if !status.details().is_empty()
            && let Ok(detail) = RefusalDetail::decode(status.details())
        {
            return Refusal::from_detail(detail);
        }
        let text = readable(status.message());
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Refusal::Unauthorized(text),
            Code::NotFound => Refusal::UnknownVolume,
            Code::ResourceExhausted => Refusal::Busy(text),
            Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists => {
                Refusal::Invalid(text)
            }
            // Without our details these come from the connection, not from the peer's mind.
            Code::Ok
            | Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Aborted
            | Code::DeadlineExceeded => {
                Refusal::Unreachable(format!("the connection to the peer broke: {text}"))
            }
            Code::FailedPrecondition | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                Refusal::Internal(text)
            }
        }
    }
}

/// A peer's text made safe to print: no control characters, bounded length.
pub(crate) fn readable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_core::{ContentHash, ContentRef, Slot, Version};

    fn every_refusal() -> Vec<Refusal> {
        let content = ContentRef { size_bytes: 7, hash: ContentHash([7; 32]) };
        let version = Version { lamport: 3, slot: Slot(2) };
        vec![
            Refusal::Unauthorized("no".into()),
            Refusal::UnknownVolume,
            Refusal::Gone { shown: None },
            Refusal::Gone { shown: Some(Shown { content, version }) },
            Refusal::OutOfOrder { expected: Sequence(42) },
            Refusal::Busy("later".into()),
            Refusal::DiskFull("full".into()),
            Refusal::Invalid("bad ü".into()),
            Refusal::Internal("broken".into()),
            Refusal::Unreachable("away".into()),
        ]
    }

    #[test]
    fn every_refusal_survives_the_trip() {
        for refusal in every_refusal() {
            let status = Status::from(refusal.clone());
            assert_eq!(Refusal::from(status), refusal);
        }
    }

    #[test]
    fn a_status_without_details_still_means_something() {
        for code in 0..=16 {
            let _ = Refusal::from(Status::new(Code::from(code), "x"));
        }
        assert!(matches!(Refusal::from(Status::unavailable("x")), Refusal::Unreachable(_)));
    }

    #[test]
    fn a_peers_text_cannot_move_the_cursor_nor_fill_the_screen() {
        let text = readable(&format!("\u{1b}[2J\n{}", "é".repeat(4000)));
        assert!(!text.contains('\u{1b}') && text.len() <= TEXT_BYTES_MAX);
    }
}
