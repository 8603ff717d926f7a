//! Entrances for `fuzz/`: decoders of what peers send, from bytes to verified types.

use crate::wire::{self, Bounded, proto};
use prost::Message;

/// A batch of changes.
pub fn batch(bytes: &[u8]) {
    if proto::BatchNotifyRequest::check(bytes).is_ok()
        && let Ok(request) = proto::BatchNotifyRequest::decode(bytes)
    {
        let _ = wire::decode_batch(request);
    }
}

/// A question about ranges of the state, and an answer to one.
pub fn summary(bytes: &[u8]) {
    let _ = wire::decode_ranges(&bytes::Bytes::copy_from_slice(bytes));
    if let Ok(answer) = proto::SummarizeResponse::decode(bytes) {
        let _ = wire::decode_parts(answer);
    }
}
