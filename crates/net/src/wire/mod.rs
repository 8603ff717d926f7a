//! The wire: generated messages, and the way from and to verified types. Decoding never trusts:
//! what comes out has passed the checks that `core`'s types promise.

mod codec;
mod decode;
mod encode;
mod exchange;
mod kept;
mod session;
mod summary;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use codec::Bounded;
pub(crate) use codec::Codec;
pub(crate) use decode::{content, node, notification, shown, volume};
pub(crate) use encode::{
    content as encode_content, encode_version, notification as encode_notification,
};
pub(crate) use kept::{decode_contents, decode_kept, encode_contents, encode_kept};
pub(crate) use session::{decode_batch, encode_barrier, encode_batch, volume_bytes};
pub(crate) use summary::{decode_parts, decode_ranges, encode_parts, encode_ranges};

/// What `build.rs` generates from `proto/lockstep/v1/lockstep.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
pub(crate) mod proto {
    tonic::include_proto!("lockstep.v1");
}

/// Why received bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct WireError {
    /// Which part.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl WireError {
    pub(crate) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        WireError { field, reason: reason.into() }
    }
}

impl From<WireError> for crate::Refusal {
    fn from(error: WireError) -> Self {
        crate::Refusal::Invalid(format!(
            "the peer sent something this version does not accept ({error}): run the same version on both sides"
        ))
    }
}
