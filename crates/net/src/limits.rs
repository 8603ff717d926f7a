//! Every limit of the network side, by name and unit. Those of the records themselves are in
//! [`lockstep_core::limits`].

use std::time::Duration;

/// TCP connect, per address.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// TLS handshake and lane greeting, on either side.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A connection whose key is a member of nothing lives at most this long.
pub(crate) const STRANGER_DEADLINE: Duration = Duration::from_secs(20);
/// Largest request of such a connection.
pub(crate) const STRANGER_REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Connections that have not (yet) shown a member's key.
pub(crate) const STRANGERS_MAX: usize = 64;
/// From the control lane to a complete session.
pub(crate) const ASSEMBLY_DEADLINE: Duration = Duration::from_secs(10);
/// One Pair or Hello.
pub(crate) const OPENING_CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The second address is tried when the first has not answered for this long.
pub(crate) const ADDRESS_STAGGER: Duration = Duration::from_millis(250);
/// An address that has not answered for this long is tried again beside the first try: a path that
/// comes back is found at once, not when TCP thinks of it.
pub(crate) const UNANSWERED_AFTER: Duration = Duration::from_millis(400);
/// First pause between the beginnings of two attempts to reach a peer; doubles up to
/// [`BACKOFF_LATELY_MAX`].
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest such pause while the peer was there less than [`LATELY`] ago.
pub(crate) const BACKOFF_LATELY_MAX: Duration = Duration::from_millis(350);
/// Longest such pause after that.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a cut may last so that its end is noticed within half a second.
pub(crate) const LATELY: Duration = Duration::from_secs(300);
/// A session that lived this long starts the back-off afresh.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Between two heartbeats.
pub(crate) const BEAT_INTERVAL: Duration = Duration::from_millis(500);
/// An unanswered heartbeat and not one byte on any lane for this long end the session.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(2);
/// An unanswered heartbeat ends the session after this long, whatever else arrives.
pub(crate) const BEAT_ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How often silence is measured.
pub(crate) const SILENCE_CHECK: Duration = Duration::from_millis(100);

/// A batch is answered, durable, within this time.
pub(crate) const NOTIFY_DEADLINE: Duration = Duration::from_secs(60);
/// What is kept is answered within this time: the peer syncs its disk first.
pub(crate) const KEEPS_DEADLINE: Duration = Duration::from_secs(60);
/// A summary of the state is answered within this time: the first takes a look at every node.
pub(crate) const SUMMARY_DEADLINE: Duration = Duration::from_secs(60);
/// A batch waits this long for the ones before it.
pub(crate) const BATCH_GAP_DEADLINE: Duration = Duration::from_secs(10);
/// `session_down` waits this long for a `notify` still running.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Between two messages of a stream.
pub(crate) const STREAM_IDLE_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait one Barrier call may ask for; callers repeat.
pub(crate) const BARRIER_WAIT_MAX: Duration = Duration::from_secs(60);
/// What a Barrier may take beyond the wait it asks for.
pub(crate) const BARRIER_SLACK: Duration = Duration::from_secs(5);
/// A call that comes before `session_up` has returned waits this long for it.
pub(crate) const READY_DEADLINE: Duration = Duration::from_secs(10);
/// `shutdown` waits this long for the sessions to be told.
pub(crate) const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(15);

/// Streams (reads and manifests) served at a time, per lane.
pub(crate) const STREAMS_SERVED_MAX: usize = 16;
/// Barriers served, and asked for, at a time, per session.
pub(crate) const BARRIERS_MAX: usize = 8;
/// Messages of a stream produced ahead of what the connection has taken.
pub(crate) const STREAM_AHEAD_MESSAGES: usize = 4;

/// Largest gRPC message, sent or received.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// HTTP/2 `SETTINGS_MAX_FRAME_SIZE`.
pub(crate) const FRAME_BYTES: u32 = 1024 * 1024;
/// HTTP/2 flow-control window of a stream.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// HTTP/2 flow-control window of a connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// What one HTTP/2 stream may have waiting to be sent.
pub(crate) const SEND_BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// HTTP/2 streams open at a time, per lane.
pub(crate) const STREAMS_OPEN_MAX: u32 = 128;
/// Header block of one request or answer.
pub(crate) const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Text a peer sends for people to read (host, problem, reason).
pub(crate) const TEXT_BYTES_MAX: usize = 1024;
/// Addresses in an invite or a pairing request.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// Encoded manifest of one content: enough for 7.4 million chunks.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A manifest whose chunks are smaller than this on average is nobody's.
pub(crate) const CHUNK_AVERAGE_MIN_BYTES: u64 = 4096;
/// Bytes all extended attributes of one new node may take together.
pub const XATTRS_TOTAL_BYTES_MAX: usize = 4 * 1024 * 1024;
