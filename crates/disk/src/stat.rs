//! What the backing filesystem says about a file or about itself.

use lockstep_core::{Kind, Timespec};
use rustix::fs::{StatVfs, Statx, StatxFlags, StatxTimestamp};

/// What a backing file is; unlike [`Kind`], device nodes exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FileType {
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
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl FileType {
    /// The node kind that stands for this file. A device node is one on its own machine only: what
    /// is replicated of it is a name behind which nothing is, a socket.
    pub fn kind(self) -> Kind {
        match self {
            FileType::File => Kind::File,
            FileType::Dir => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket | FileType::CharDevice | FileType::BlockDevice => Kind::Socket,
        }
    }

    fn from_mode(mode: u32) -> FileType {
        use rustix::fs::FileType as Raw;
        match Raw::from_raw_mode(mode) {
            Raw::Directory => FileType::Dir,
            Raw::Symlink => FileType::Symlink,
            Raw::Fifo => FileType::Fifo,
            Raw::Socket => FileType::Socket,
            Raw::CharacterDevice => FileType::CharDevice,
            Raw::BlockDevice => FileType::BlockDevice,
            Raw::RegularFile | Raw::Unknown => FileType::File,
        }
    }
}

/// A file's attributes as `statx(2)` reports them, symlinks not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackingStat {
    /// What it is.
    pub file_type: FileType,
    /// Permission bits, `st_mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// Length in bytes; of a symlink, the length of its target.
    pub size_bytes: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of the content.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Creation; zero where the filesystem does not record it.
    pub btime: Timespec,
    /// Inode number in the backing filesystem.
    pub ino: u64,
    /// The filesystem the file is on.
    pub dev: u64,
    /// The device a device node stands for.
    pub rdev: u64,
}

impl BackingStat {
    /// What `statx` must be asked for.
    pub(crate) const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

    pub(crate) fn from_statx(raw: &Statx) -> BackingStat {
        let mode = u32::from(raw.stx_mode);
        let has_btime = raw.stx_mask & StatxFlags::BTIME.bits() != 0;
        BackingStat {
            file_type: FileType::from_mode(mode),
            mode: mode & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            nlink: raw.stx_nlink,
            size_bytes: raw.stx_size,
            blocks: raw.stx_blocks,
            atime: timespec(&raw.stx_atime),
            mtime: timespec(&raw.stx_mtime),
            ctime: timespec(&raw.stx_ctime),
            btime: if has_btime { timespec(&raw.stx_btime) } else { Timespec::default() },
            ino: raw.stx_ino,
            dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
            rdev: rustix::fs::makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
        }
    }
}

fn timespec(raw: &StatxTimestamp) -> Timespec {
    Timespec { secs: raw.tv_sec, nanos: raw.tv_nsec }
}

/// Capacity of the backing filesystem, as `statvfs(3)` reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskUsage {
    /// Preferred block size in bytes (`f_bsize`).
    pub block_size_bytes: u64,
    /// Unit of the block counts, in bytes (`f_frsize`).
    pub fragment_size_bytes: u64,
    /// Size of the filesystem, in fragments.
    pub blocks: u64,
    /// Free fragments.
    pub blocks_free: u64,
    /// Free fragments for unprivileged users.
    pub blocks_available: u64,
    /// Number of inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Free inodes for unprivileged users.
    pub files_available: u64,
    /// Longest file name, in bytes.
    pub name_max_bytes: u64,
}

impl DiskUsage {
    pub(crate) fn from_statvfs(raw: &StatVfs) -> DiskUsage {
        DiskUsage {
            block_size_bytes: raw.f_bsize,
            fragment_size_bytes: raw.f_frsize,
            blocks: raw.f_blocks,
            blocks_free: raw.f_bfree,
            blocks_available: raw.f_bavail,
            files: raw.f_files,
            files_free: raw.f_ffree,
            files_available: raw.f_favail,
            name_max_bytes: raw.f_namemax,
        }
    }
}
