//! What `stat` shows of a node, split into the registers that change together.

use serde::{Deserialize, Serialize};

/// What a node is. Device nodes are local to a machine and never replicated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
}

/// Seconds and nanoseconds since the epoch; nanoseconds in `0..1_000_000_000`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Timespec {
    /// Seconds, negative before 1970.
    pub secs: i64,
    /// Nanoseconds.
    pub nanos: u32,
}

/// Permission bits and owner: one register, set together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Perm {
    /// `st_mode & 0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The times of a node: one register, set together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// Last access as last *set*: reads do not move it (mounts behave as with `noatime`).
    pub atime: Timespec,
    /// Last change of the content.
    pub mtime: Timespec,
    /// Last change of the node.
    pub ctime: Timespec,
}

impl Times {
    /// All three at `now`.
    pub fn at(now: Timespec) -> Self {
        Times { atime: now, mtime: now, ctime: now }
    }
}
