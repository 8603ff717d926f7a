//! What each filesystem call means on a replicated volume.
//!
//! Synchronous; knows neither FUSE nor the network. Locks, in the order in which they may be taken:
//!
//! 1. [`OpenFile::writing`](files::OpenFile): shared by writers of one file, exclusive while its
//!    content is described or replaced;
//! 2. the commit lock: one drain is written down at a time, in order;
//! 3. the state: tree, log and announcements. Metadata system calls on the backing tree are made
//!    under it, so that paths stay true; bytes of files never are;
//! 4. leaves, held for a few instructions: handles, open files, transfers, the work signal.
#![forbid(unsafe_code)]

mod announce;
mod apply;
mod attributes;
mod begun;
mod carry_out;
mod catch_up;
mod clock;
mod commit;
mod compare;
mod conflicts;
mod dirs;
mod doubt;
mod errno;
mod evict;
mod files;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod give_up;
mod in_flight;
mod inline;
mod install;
mod keep;
mod leaving;
mod namespace;
mod passed;
mod plan;
mod progress;
mod ranges;
mod reading;
mod replacing;
mod request;
mod residency;
mod reuse;
mod scan;
mod seal;
mod serve;
mod settle;
mod signal;
mod stand_in;
mod transfer;
mod transfers;
mod trash;
mod verify;
mod volume;
mod writing;
mod xattrs;

pub use apply::{ApplyError, Incoming};
pub use catch_up::Told;
pub use clock::{Clock, SystemClock};
pub use compare::{Ask, Differing};
pub use conflicts::{Conflict, Keep, ResolveError, Resolved};
pub use errno::{Errno, Result};
pub use evict::Stays;
pub use in_flight::ChunkClaim;
pub use lockstep_core::Kind;
pub use lockstep_disk::{DiskUsage, RenameMode};
pub use plan::Run;
pub use progress::Outstanding;
pub use request::{Caller, Device, DirEntry, Fh, KernelCache, Opened, SetAttr, SetTime, Stat};
pub use residency::{Extent, Policy};
pub use serve::{ServeError, Served};
pub use signal::Signal;
pub use transfer::{FetchJob, Transfer};
pub use transfers::{Claim, Transfers};
pub use trash::{RestoreError, Restored, TrashItem, TrashLimits, TrashReason, TrashStatus};
pub use verify::{Difference, Mismatch, Pace, Verified};
pub use volume::{OpenError, Origin, Volume, VolumeStatus};
