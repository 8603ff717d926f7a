//! The decisions of Lockstep, and nothing else: identities, the replicated tree, the change log
//! and what is owed to each peer.
//!
//! This crate performs no I/O, reads no clock and draws no randomness; time and entropy are
//! arguments. A shell feeds it inputs (`apply_*`, `handle_*`) and carries out what it answers.
#![forbid(unsafe_code)]

pub mod announce;
pub mod attr;
pub mod branch;
pub mod change;
pub mod compare;
pub mod content;
pub mod ids;
pub mod limits;
pub mod log;
pub mod name;
mod outbox;
#[doc(hidden)]
pub mod planted;
pub mod replica;
pub mod seen;
pub mod spans;
pub mod tree;

pub use announce::Announcements;
pub use attr::{Kind, Perm, Times, Timespec};
pub use branch::LogCursor;
pub use change::{Change, Op};
pub use compare::{Comparison, DigestIndex, NodeRange, Part, Summary};
pub use content::{ChunkRef, ContentHash, ContentRef, Manifest, Shown};
pub use ids::{NodeId, PeerId, Sequence, Slot, Version, VolumeId};
pub use name::{EntryName, NameError};
pub use replica::{Counters, Drained, Met, OutOfOrder, Plan, Replica, Start};
pub use seen::Seen;
pub use tree::{Effect, Place, Tree};
