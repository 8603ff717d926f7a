//! The messages around the changes: pairing, opening, batches, progress.

use super::decode::{exact, sequence, slot};
use super::{WireError, encode_notification, notification, proto, volume};
use crate::limits::ADDRESSES_MAX;
use crate::message::{
    Ack, BarrierReply, BarrierRequest, Batch, Beat, Hello, PairGrant, PairRequest,
};
use crate::refusal::readable;
use bytes::Bytes;
use lockstep_core::limits::BATCH_NOTIFICATIONS_MAX;
use lockstep_core::{LogCursor, VolumeId};

type Decoded<T> = Result<T, WireError>;

pub(crate) fn encode_batch(volume: VolumeId, batch: &Batch) -> proto::BatchNotifyRequest {
    proto::BatchNotifyRequest {
        notifications: batch.notifications.iter().map(encode_notification).collect(),
        seq: batch.seq,
        timestamp: batch.timestamp_ms,
        volume: volume_bytes(volume),
    }
}

pub(crate) fn decode_batch(wire: proto::BatchNotifyRequest) -> Decoded<Batch> {
    if wire.notifications.len() > BATCH_NOTIFICATIONS_MAX {
        return Err(WireError::new("batch", "has more than 64 notifications"));
    }
    Ok(Batch {
        seq: sequence(wire.seq, "batch number")?.0,
        timestamp_ms: wire.timestamp,
        notifications: wire.notifications.into_iter().map(notification).collect::<Decoded<_>>()?,
    })
}

pub(crate) fn volume_bytes(volume: VolumeId) -> Bytes {
    Bytes::copy_from_slice(&volume.0)
}

impl From<Ack> for proto::BatchNotifyResponse {
    fn from(ack: Ack) -> Self {
        proto::BatchNotifyResponse {
            applied: ack.applied.0,
            durable: ack.durable.0,
            complete: ack.complete,
        }
    }
}

impl TryFrom<proto::BatchNotifyResponse> for Ack {
    type Error = WireError;
    fn try_from(wire: proto::BatchNotifyResponse) -> Decoded<Ack> {
        Ok(Ack {
            applied: sequence(wire.applied, "acknowledgement")?,
            durable: sequence(wire.durable, "acknowledgement")?,
            complete: wire.complete,
        })
    }
}

impl From<Hello> for proto::Hello {
    fn from(hello: Hello) -> Self {
        proto::Hello {
            protocol: hello.protocol,
            slot: hello.slot.0.into(),
            host: readable(&hello.host),
            last: hello.last.0,
            applied: hello.applied.seq.0,
            incarnation: hello.incarnation,
            applied_incarnation: hello.applied.incarnation,
            wants_state: hello.wants_state,
        }
    }
}

impl TryFrom<Option<proto::Hello>> for Hello {
    type Error = WireError;
    fn try_from(wire: Option<proto::Hello>) -> Decoded<Hello> {
        let wire = wire.ok_or_else(|| WireError::new("hello", "is missing"))?;
        Ok(Hello {
            protocol: wire.protocol,
            slot: slot(wire.slot)?,
            host: readable(&wire.host),
            last: sequence(wire.last, "last sequence number")?,
            applied: LogCursor {
                seq: sequence(wire.applied, "applied sequence number")?,
                incarnation: wire.applied_incarnation,
            },
            incarnation: wire.incarnation,
            wants_state: wire.wants_state,
        })
    }
}

impl From<Beat> for proto::Beat {
    fn from(beat: Beat) -> Self {
        proto::Beat {
            applied: beat.applied.0,
            durable: beat.durable.0,
            problem: readable(&beat.problem),
            last: beat.last.0,
        }
    }
}

impl TryFrom<Option<proto::Beat>> for Beat {
    type Error = WireError;
    fn try_from(wire: Option<proto::Beat>) -> Decoded<Beat> {
        let wire = wire.ok_or_else(|| WireError::new("heartbeat", "is empty"))?;
        Ok(Beat {
            applied: sequence(wire.applied, "applied sequence number")?,
            durable: sequence(wire.durable, "durable sequence number")?,
            problem: readable(&wire.problem),
            last: sequence(wire.last, "last sequence number")?,
        })
    }
}

impl From<PairRequest> for proto::PairRequest {
    fn from(request: PairRequest) -> Self {
        proto::PairRequest {
            volume: volume_bytes(request.volume),
            secret: Bytes::copy_from_slice(&request.secret),
            host: readable(&request.host),
            listen: request.listen.iter().take(ADDRESSES_MAX).map(|a| a.to_string()).collect(),
        }
    }
}

impl TryFrom<proto::PairRequest> for PairRequest {
    type Error = WireError;
    fn try_from(wire: proto::PairRequest) -> Decoded<PairRequest> {
        if wire.listen.len() > ADDRESSES_MAX {
            return Err(WireError::new("addresses", "are more than 16"));
        }
        let address = |text: &String| {
            text.parse().map_err(|_| WireError::new("address", "must be ADDR:PORT"))
        };
        Ok(PairRequest {
            volume: volume(&wire.volume)?,
            secret: exact(&wire.secret, "secret")?,
            host: readable(&wire.host),
            listen: wire.listen.iter().map(address).collect::<Decoded<_>>()?,
        })
    }
}

impl From<PairGrant> for proto::PairGrant {
    fn from(grant: PairGrant) -> Self {
        proto::PairGrant {
            volume_name: readable(&grant.volume_name),
            your_slot: grant.your_slot.0.into(),
            my_slot: grant.my_slot.0.into(),
            host: readable(&grant.host),
        }
    }
}

impl TryFrom<proto::PairGrant> for PairGrant {
    type Error = WireError;
    fn try_from(wire: proto::PairGrant) -> Decoded<PairGrant> {
        let (your_slot, my_slot) = (slot(wire.your_slot)?, slot(wire.my_slot)?);
        if your_slot.0 == 0 || my_slot.0 == 0 || your_slot == my_slot {
            return Err(WireError::new("slots", "must be two different ones from 1"));
        }
        let volume_name = readable(&wire.volume_name);
        Ok(PairGrant { volume_name, your_slot, my_slot, host: readable(&wire.host) })
    }
}

/// A barrier request for `volume`.
pub(crate) fn encode_barrier(volume: VolumeId, request: BarrierRequest) -> proto::BarrierRequest {
    proto::BarrierRequest {
        volume: volume_bytes(volume),
        upto: request.upto.0,
        timeout_ms: request.timeout_ms,
    }
}

impl TryFrom<proto::BarrierRequest> for BarrierRequest {
    type Error = WireError;
    fn try_from(wire: proto::BarrierRequest) -> Decoded<BarrierRequest> {
        let upto = sequence(wire.upto, "barrier")?;
        Ok(BarrierRequest { upto, timeout_ms: wire.timeout_ms })
    }
}

impl From<BarrierReply> for proto::BarrierResponse {
    fn from(reply: BarrierReply) -> Self {
        proto::BarrierResponse {
            reached: reply.reached,
            last: reply.last.0,
            missing: readable(&reply.missing),
        }
    }
}

impl TryFrom<proto::BarrierResponse> for BarrierReply {
    type Error = WireError;
    fn try_from(wire: proto::BarrierResponse) -> Decoded<BarrierReply> {
        let last = sequence(wire.last, "last sequence number")?;
        Ok(BarrierReply { reached: wire.reached, last, missing: readable(&wire.missing) })
    }
}
