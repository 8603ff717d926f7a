//! The gRPC codec: prost, after a look at the bytes. A two-byte message of a repeated field costs
//! hundreds of bytes once decoded, so what a few megabytes may turn into is bounded *before* they
//! are decoded; limits on decoded values would come too late.

use super::proto;
use bytes::Buf;
use lockstep_core::limits::{BATCH_NOTIFICATIONS_MAX, XATTRS_PER_NODE_MAX};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Fields of one message, repeated ones counted each time, where nothing else is said.
const FIELDS_MAX: usize = 64;

/// What a message may look like before it is decoded.
pub(crate) trait Bounded {
    /// How often each of its fields, and each field of what is in them, may stand there at most.
    fn check(bytes: &[u8]) -> Result<(), Status> {
        fields(bytes, FIELDS_MAX, |_, _| Ok(()))
    }
}

macro_rules! bounded {
    ($($message:ident),* $(,)?) => { $(impl Bounded for proto::$message {})* };
}

bounded!(
    PairRequest,
    PairGrant,
    HelloRequest,
    HelloResponse,
    BatchNotifyResponse,
    ReadRequest,
    ReadResponse,
    ManifestRequest,
    ManifestPart,
    KeepsRequest,
    KeepsResponse,
    SummarizeRequest,
    SummarizeResponse,
    BarrierRequest,
    BarrierResponse,
    HeartbeatRequest,
    HeartbeatResponse,
);

impl Bounded for proto::BatchNotifyRequest {
    fn check(bytes: &[u8]) -> Result<(), Status> {
        fields(bytes, BATCH_NOTIFICATIONS_MAX + FIELDS_MAX, |field, value| match field {
            1 => fields(value, XATTRS_PER_NODE_MAX + FIELDS_MAX, |field, value| match field {
                18 => fields(value, XATTRS_PER_NODE_MAX + FIELDS_MAX, |_, _| Ok(())),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })
    }
}

/// Walks over the fields of a message without decoding them; `nested` sees those with a length.
fn fields(
    mut bytes: &[u8],
    fields_max: usize,
    nested: impl Fn(u32, &[u8]) -> Result<(), Status>,
) -> Result<(), Status> {
    let malformed = |_| Status::invalid_argument("a message is malformed");
    let mut count = 0;
    while bytes.has_remaining() {
        count += 1;
        if count > fields_max {
            return Err(Status::invalid_argument(
                "a message has more parts than the protocol allows",
            ));
        }
        let (field, kind) = decode_key(&mut bytes).map_err(malformed)?;
        if kind != WireType::LengthDelimited {
            skip_field(kind, field, &mut bytes, DecodeContext::default()).map_err(malformed)?;
            continue;
        }
        let len = usize::try_from(decode_varint(&mut bytes).map_err(malformed)?);
        let value = len.ok().and_then(|len| bytes.split_at_checked(len));
        let (value, rest) =
            value.ok_or_else(|| Status::invalid_argument("a message is cut short"))?;
        nested(field, value)?;
        bytes = rest;
    }
    Ok(())
}

/// Encodes `T`, decodes `U`.
#[derive(Debug)]
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Bounded + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Checks, then decodes.
#[derive(Debug)]
pub(crate) struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Bounded> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // One piece of memory, shared by the byte fields that are cut out of it.
        let bytes = buf.copy_to_bytes(buf.remaining());
        U::check(&bytes)?;
        let malformed = |error: prost::DecodeError| Status::invalid_argument(error.to_string());
        U::decode(bytes).map(Some).map_err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` times the field `field` with `value`.
    fn repeated(field: u8, value: &[u8], count: usize) -> Vec<u8> {
        let mut one = vec![field << 3 | 2];
        prost::encoding::encode_varint(value.len() as u64, &mut one);
        one.extend_from_slice(value);
        one.repeat(count)
    }

    #[test]
    fn a_small_message_that_would_decode_into_a_huge_one_is_refused_before() {
        let empty_notifications = repeated(1, b"", 1000);
        assert!(proto::BatchNotifyRequest::check(&empty_notifications).is_err());
        let empty_xattrs = repeated(14, b"", 2000);
        let batch = repeated(1, &empty_xattrs, 1);
        assert!(proto::BatchNotifyRequest::check(&batch).is_err());
        assert!(proto::PairRequest::check(&repeated(4, b"", 100)).is_err());
    }

    #[test]
    fn the_largest_batch_allowed_passes() {
        let node = repeated(14, b"\x0a\x01a\x12\x01v", 1024);
        assert!(proto::BatchNotifyRequest::check(&repeated(1, &node, 64)).is_ok());
    }

    #[test]
    fn cut_short_or_endless_lengths_are_errors() {
        for bytes in
            [&[0x0a][..], &[0x0a, 5, 1], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0xff; 11]]
        {
            assert!(proto::PairRequest::check(bytes).is_err(), "{bytes:?}");
        }
    }
}
