//! The FUSE edge: what the kernel asks becomes a call on a [`Volume`](lockstep_vfs::Volume), and
//! its answer goes back. Nothing is decided here except how to speak to the kernel.
//!
//! | file | concept |
//! |---|---|
//! | [`handlers`], [`adapter`] | one handler per request: decode, call, encode |
//! | [`convert`], [`answer`], [`errno`] | the two directions of translation |
//! | [`negotiate`], [`options`] | what is asked of the kernel, as pure functions |
//! | [`waiting`] | threads for calls that wait for another peer |
//! | [`notify`], [`introduced`] | pushing invalidations, so that caches may live for a day |
//! | [`mount`], [`attach`], [`mountinfo`] | the life of a mount |
//! | [`requests`] | how many requests of each kind were answered |

mod adapter;
mod answer;
mod attach;
mod backings;
mod convert;
mod errno;
mod handlers;
mod introduced;
#[cfg(test)]
mod live;
mod mount;
mod mount_error;
pub mod mountinfo;
mod negotiate;
mod notify;
mod options;
mod requests;
mod waiting;

pub use mount::{Mounted, clear_stale, end_dead, mount};
pub use mount_error::MountError;
pub use mountinfo::{MountKind, mount_at};
