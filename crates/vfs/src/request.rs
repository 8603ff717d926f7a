//! What callers ask with and are answered with.

use lockstep_core::{Kind, NodeId, Perm, Times, Timespec};

/// What `stat` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `st_ino`.
    pub node: NodeId,
    /// Type bits of `st_mode`, unless it is a device node.
    pub kind: Kind,
    /// The device node that it is on this machine.
    pub device: Option<Device>,
    /// Permission bits and owner.
    pub perm: Perm,
    /// Times.
    pub times: Times,
    /// `st_size`.
    pub size_bytes: u64,
    /// `st_blocks`, of 512 bytes.
    pub blocks: u64,
    /// `st_nlink`.
    pub nlink: u32,
}

/// A device node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Whether it is a block device; else a character device.
    pub is_block: bool,
    /// `st_rdev`, as the kernel's 32 bits (`makedev(3)` gives the same).
    pub rdev: u32,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
    /// File mode creation mask; the kernel has applied it to every mode it sends.
    pub umask: u32,
}

/// What `setattr` is to change.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

/// A time to set.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    /// The moment of the call.
    Now,
    /// This time.
    At(Timespec),
}

/// An open file or directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fh(pub u64);

/// Answer to an open.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The new handle.
    pub fh: Fh,
    /// Whether pages the kernel has of this file are still right.
    pub keep_cache: bool,
    /// Whether reads are to be answered call by call, past the kernel's pages: while the content is
    /// on its way it may be replaced by a shorter one, and a page would be padded with zeros up to
    /// the length the kernel knows.
    pub direct: bool,
    /// Whether the kernel shall read and write the bytes by itself: see [`crate::Volume::passed_file`].
    pub passed: bool,
}

/// One entry of a directory listing.
#[derive(Debug)]
pub struct DirEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Pass back to continue after this entry.
    pub cursor: u64,
    /// What `stat` shows of it.
    pub stat: &'a Stat,
}

/// The kernel's caches of one mount, told of every change the kernel did not ask for itself.
pub trait KernelCache: Send + Sync {
    /// Attributes and pages of a node are stale.
    fn invalidate_node(&self, node: NodeId);
    /// Attributes of a node are stale.
    fn invalidate_attr(&self, node: NodeId);
    /// A name is stale.
    fn invalidate_entry(&self, parent: NodeId, name: &[u8]);
    /// Runs `done` once everything queued before has reached the kernel.
    fn after(&self, done: Box<dyn FnOnce() + Send>);
}
