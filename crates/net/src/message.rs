//! What peers tell each other, in verified types: whatever is here has passed every check.

use crate::limits::MESSAGE_BYTES_MAX;
use crate::wire;
use bytes::Bytes;
use lockstep_core::limits::BATCH_NOTIFICATIONS_MAX;
use lockstep_core::{Change, LogCursor, Sequence, Slot, VolumeId};
use prost::Message;
use std::net::SocketAddr;

/// The protocol that [`Hello::protocol`] names.
pub const PROTOCOL: u32 = 1;

/// One change, with the bytes of a small file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    /// The change.
    pub change: Change,
    /// All bytes of the content the change announces, if it is small enough to travel here
    /// ([`lockstep_core::limits::INLINE_CONTENT_MAX_BYTES`]). Not yet checked against its hash.
    pub inline: Option<Bytes>,
}

/// Consecutive changes of the sender's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Counter of batches in the session and direction, from 1. It advances with every batch that
    /// was sent, whatever the answer: changes sent again travel under a new number.
    pub seq: u64,
    /// The sender's clock, milliseconds since the epoch.
    pub timestamp_ms: u64,
    /// At most [`lockstep_core::limits::BATCH_NOTIFICATIONS_MAX`], encoded at most
    /// [`crate::MESSAGE_BYTES_MAX`].
    pub notifications: Vec<Notification>,
}

/// What a batch takes beside its notifications, and each of them for its own length, at most.
const BATCH_FRAME_BYTES: usize = 64;

impl Batch {
    /// How many of `notifications`, from the front, fit one batch: at least one, unless there are
    /// none. (Only thousands of extended attributes make it fewer than 64.)
    pub fn fitting(notifications: &[Notification]) -> usize {
        let mut room = MESSAGE_BYTES_MAX - BATCH_FRAME_BYTES;
        let fits = |one: &&Notification| {
            let bytes = wire::encode_notification(one).encoded_len() + BATCH_FRAME_BYTES;
            room.checked_sub(bytes).inspect(|left| room = *left).is_some()
        };
        let fitting = notifications.iter().take(BATCH_NOTIFICATIONS_MAX).take_while(fits).count();
        fitting.max(1).min(notifications.len())
    }
}

/// Answer to a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ack {
    /// Last change applied and visible there.
    pub applied: Sequence,
    /// Last change that a crash there cannot undo.
    pub durable: Sequence,
    /// All content up to `durable` is resident there.
    pub complete: bool,
}

/// How each side opens a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The speaker's slot in the volume.
    pub slot: Slot,
    /// What the speaker's machine calls itself.
    pub host: String,
    /// Last change in the speaker's own log.
    pub last: Sequence,
    /// How far the listener's log is applied at the speaker, and which log.
    pub applied: LogCursor,
    /// The run of the speaker's daemon, drawn anew at each start.
    pub incarnation: u64,
    /// The speaker's state was lost or is an old copy: it is to get the full state.
    pub wants_state: bool,
}

/// Redeems an invite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairRequest {
    /// The volume the invite is for.
    pub volume: VolumeId,
    /// The invite's single-use secret.
    pub secret: [u8; 16],
    /// What the joining machine calls itself.
    pub host: String,
    /// Where the joining peer listens.
    pub listen: Vec<SocketAddr>,
}

/// An invite accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairGrant {
    /// Name of the volume.
    pub volume_name: String,
    /// Slot of the peer that joined.
    pub your_slot: Slot,
    /// Slot of the peer that invited.
    pub my_slot: Slot,
    /// What the inviting machine calls itself.
    pub host: String,
}

/// Asks to wait until the answering side has everything up to a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarrierRequest {
    /// Last change of the asker's log that must be durable and complete.
    pub upto: Sequence,
    /// Longest wait; more than a minute is cut to a minute, ask again.
    pub timeout_ms: u64,
}

/// Answer to a barrier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BarrierReply {
    /// Everything asked for is there, durable and complete.
    pub reached: bool,
    /// Last change of the answering side's own log.
    pub last: Sequence,
    /// What is missing, for people; empty if nothing is.
    pub missing: String,
}

/// A sign of life and of progress.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Beat {
    /// Last change of the listener's log applied at the speaker.
    pub applied: Sequence,
    /// The last of those that a crash of the speaker cannot undo.
    pub durable: Sequence,
    /// What is wrong at the speaker (a full disk), for people; empty if nothing is.
    pub problem: String,
    /// Last change in the speaker's own log.
    pub last: Sequence,
}
