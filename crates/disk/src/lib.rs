//! The durable truth below a volume: the backing tree (plain files in an ordinary directory), the
//! state database beside it, and what its bytes are called (content-defined chunks and hashes).
//!
//! Everything here blocks. [`Disk`] is a trait so that a simulated disk, which can crash, can
//! stand in for the real [`PlainDisk`].
#![forbid(unsafe_code)]

pub mod aside;
pub mod chunk;
mod disk;
mod plain;
mod sparse;
mod stat;
pub mod state;

pub use chunk::{Description, describe, describe_bytes, is_hole, verify_chunk, verify_manifest};
pub use disk::{AllocateMode, Disk, DiskFile, RenameMode, SeekWhat, XattrFlags};
pub use plain::{DiskError, PlainDisk};
pub use sparse::{punch, write_with_holes};
pub use stat::{BackingStat, DiskUsage, FileType};
pub use state::{Holding, StateBatch, StateDb, StateError, StateStore, Whereabouts};
