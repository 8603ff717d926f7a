//! The operations a volume needs from the disk below it.
//!
//! A path is always relative to the backing root; the empty path is the root itself. No operation
//! follows a symlink anywhere in a path, so none can leave the tree. The directory `.lockstep` at
//! the root is private: paths into it answer `ENOENT`, new names there `EPERM`; it is reached only
//! through the `temp_*` and `keep_*` operations, whose names are single components.
//!
//! Errors are the operating system's (`raw_os_error` is set wherever the kernel gave one).

use crate::stat::{BackingStat, DiskUsage};
use lockstep_core::Timespec;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

/// What a rename does with its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// Replace it atomically.
    Replace,
    /// Fail with `EEXIST` if it exists.
    NoReplace,
    /// Swap the two.
    Exchange,
}

/// Whether setting an extended attribute may create or replace it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrFlags {
    /// Either.
    Any,
    /// `EEXIST` if it exists.
    Create,
    /// `ENODATA` if it does not.
    Replace,
}

/// What `fallocate(2)` does with a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocateMode {
    /// Reserve space; the file grows to cover the range.
    Extend,
    /// Reserve space, leave the size.
    KeepSize,
    /// Free the space; the range reads as zeros, the size stays.
    PunchHole,
    /// Make it zeros; the file grows to cover the range.
    ZeroRange,
    /// Make it zeros, leave the size.
    ZeroRangeKeepSize,
    /// Remove the range, what follows moves down.
    Collapse,
    /// Insert a hole, what follows moves up.
    Insert,
}

/// What a seek looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeekWhat {
    /// The next byte that is stored.
    Data,
    /// The next byte that is not; the end of the file counts.
    Hole,
}

/// The backing tree and the private directory in it.
pub trait Disk: Send + Sync + 'static {
    /// A new regular file, open for reading and writing, with exactly `mode` (no umask).
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing regular file, for reading and writing; read-only where writing is refused
    /// (`EACCES`, `EPERM`, `EROFS`, `ETXTBSY`).
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// A new directory with exactly `mode`.
    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// A new symlink holding the bytes of `target`.
    fn symlink(&self, target: &[u8], path: &Path) -> io::Result<()>;
    /// A new fifo, socket or device: `mode` carries the `S_IF*` bits and exactly the permissions.
    fn mknod(&self, path: &Path, mode: u32, rdev: u64) -> io::Result<()>;
    /// A further name for `existing`; a symlink is linked, not followed.
    fn link(&self, existing: &Path, new: &Path) -> io::Result<()>;
    /// Removes a name that is not a directory's.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, path: &Path) -> io::Result<()>;
    /// Moves a name.
    fn rename(&self, from: &Path, to: &Path, mode: RenameMode) -> io::Result<()>;
    /// Attributes.
    fn stat(&self, path: &Path) -> io::Result<BackingStat>;
    /// Entries with their attributes, in no particular order, without `.`, `..` and the private
    /// directory. Entries that vanish meanwhile are left out.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<(Vec<u8>, BackingStat)>>;
    /// Target of a symlink.
    fn readlink(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Sets the permission bits; a symlink has none, there it does nothing.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Sets owner and group; `u32::MAX` leaves one as it is.
    fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()>;
    /// Sets both times.
    fn set_times(&self, path: &Path, atime: Timespec, mtime: Timespec) -> io::Result<()>;
    /// Value of an extended attribute. Lockstep's own (`user.lockstep.*`) do not exist here.
    fn get_xattr(&self, path: &Path, name: &[u8]) -> io::Result<Vec<u8>>;
    /// Sets an extended attribute; `EPERM` for Lockstep's own.
    fn set_xattr(
        &self,
        path: &Path,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> io::Result<()>;
    /// Names of all extended attributes but Lockstep's own.
    fn list_xattrs(&self, path: &Path) -> io::Result<Vec<Vec<u8>>>;
    /// Removes an extended attribute; `ENODATA` if there is none.
    fn remove_xattr(&self, path: &Path, name: &[u8]) -> io::Result<()>;
    /// Capacity of the backing filesystem.
    fn statfs(&self) -> io::Result<DiskUsage>;
    /// Names this mounting of the backing filesystem: once it, or the machine, was started anew, the
    /// name is another, and what was not synced may be gone.
    fn mounting(&self) -> io::Result<Vec<u8>>;
    /// Returns when every change to the backing filesystem is on stable storage.
    fn sync_all(&self) -> io::Result<()>;
    /// Returns when the entries of this directory are on stable storage.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// A new temporary file (mode 0600), open for reading and writing.
    fn temp_create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing temporary file.
    fn temp_open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a temporary file.
    fn temp_remove(&self, name: &str) -> io::Result<()>;
    /// Names of all temporary files.
    fn temp_list(&self) -> io::Result<Vec<String>>;
    /// Moves a temporary file to `path`, atomically replacing a file there.
    fn temp_install(&self, name: &str, path: &Path) -> io::Result<()>;

    /// Moves `path` out of the tree, kept as `name` (instead of removing it); `EEXIST` if that
    /// name is taken.
    fn keep(&self, path: &Path, name: &str) -> io::Result<()>;
    /// Keeps the file at `path` as `name` too; it stays in the tree.
    fn keep_link(&self, path: &Path, name: &str) -> io::Result<()>;
    /// Keeps a copy of the file at `path` as `name`: what is written to the one later does not
    /// show in the other. `EEXIST` if that name is taken.
    fn keep_copy(&self, path: &Path, name: &str) -> io::Result<()>;
    /// Moves what is kept as `name` to `path`; `EEXIST` if something is there.
    fn keep_restore(&self, name: &str, path: &Path) -> io::Result<()>;
    /// A kept file.
    fn keep_open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a kept file or empty directory for good.
    fn keep_remove(&self, name: &str) -> io::Result<()>;
    /// Names of everything kept.
    fn keep_list(&self) -> io::Result<Vec<String>>;

    /// A new file that stands for absent content of `size` bytes and cannot be mistaken for it:
    /// it appears complete, sparse, with mode 0000 and a marker attribute.
    fn placeholder(&self, path: &Path, size: u64) -> io::Result<()>;
    /// The same in the place of a file that stands there, which goes in the same instant.
    fn replace_by_placeholder(&self, path: &Path, size: u64) -> io::Result<()>;
    /// Whether `path` is such a file.
    fn is_placeholder(&self, path: &Path) -> io::Result<bool>;
    /// The seal of the file at `path`, if it has one: see [`DiskFile::set_seal`].
    fn seal(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
}

/// An open regular file. Offsets are explicit; it may be used from several threads at once.
pub trait DiskFile: Send + Sync {
    /// Fills `buf` from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `content` at `offset`.
    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()>;
    /// Truncates or extends with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when the content is on stable storage (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Returns when content and attributes are on stable storage (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
    /// Attributes.
    fn stat(&self) -> io::Result<BackingStat>;
    /// Changes how a range is stored.
    fn allocate(&self, mode: AllocateMode, offset: u64, len: u64) -> io::Result<()>;
    /// The first such byte at or after `offset`; `ENXIO` if there is none.
    fn seek(&self, offset: u64, what: SeekWhat) -> io::Result<u64>;
    /// Copies up to `len` bytes to another file, sharing blocks where the filesystem can. Returns
    /// how many: fewer at the end of this file, or where an error stopped it after some.
    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn DiskFile,
        to_offset: u64,
        len: u64,
    ) -> io::Result<u64>;
    /// Copies everything to the start of another file. Returns how many bytes that were.
    fn copy_all_to(&self, to: &dyn DiskFile) -> io::Result<u64> {
        let size = self.stat()?.size_bytes;
        let mut at = 0;
        while at < size {
            match self.copy_range_to(at, to, at, size - at)? {
                0 => break,
                copied => at += copied,
            }
        }
        Ok(at)
    }
    /// Sets the permission bits.
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    /// Sets owner and group; `u32::MAX` leaves one as it is.
    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()>;
    /// Sets both times.
    fn set_times(&self, atime: Timespec, mtime: Timespec) -> io::Result<()>;
    /// Sets the seal, or breaks it: an attribute of Lockstep's own that reaches the disk with the
    /// file's name, so that after a power cut it says what the bytes are meant to be. Where
    /// attributes cannot be stored there is none.
    fn set_seal(&self, seal: Option<&[u8]>) -> io::Result<()>;
    /// The descriptor, where there is one (for FUSE passthrough).
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}
