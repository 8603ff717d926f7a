//! Turning what a call returned into the kernel's reply.

use super::convert::{attributes, file_type};
use super::errno::errno;
use super::introduced::Introduced;
use fuser::{
    FopenFlags, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyLseek, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use lockstep_disk::DiskUsage;
use lockstep_vfs::{DirEntry, Errno, Opened, Result, Stat};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Node ids are never reused, so all inodes are of one generation.
pub const GENERATION: Generation = Generation(0);

/// A reply that knows how to say `T` or an error.
pub trait Answer<T> {
    /// Sends the reply.
    fn answer(self, result: Result<T>);
}

impl Answer<()> for ReplyEmpty {
    fn answer(self, result: Result<()>) {
        match result {
            Ok(()) => self.ok(),
            Err(error) => self.error(errno(error)),
        }
    }
}

impl Answer<Vec<u8>> for ReplyData {
    fn answer(self, result: Result<Vec<u8>>) {
        match result {
            Ok(bytes) => self.data(&bytes),
            Err(error) => self.error(errno(error)),
        }
    }
}

impl Answer<u32> for ReplyWrite {
    fn answer(self, result: Result<u32>) {
        match result {
            Ok(bytes) => self.written(bytes),
            Err(error) => self.error(errno(error)),
        }
    }
}

impl Answer<u64> for ReplyLseek {
    fn answer(self, result: Result<u64>) {
        match result.and_then(|at| i64::try_from(at).map_err(|_| Errno::Range)) {
            Ok(offset) => self.offset(offset),
            Err(error) => self.error(errno(error)),
        }
    }
}

impl Answer<DiskUsage> for ReplyStatfs {
    fn answer(self, result: Result<DiskUsage>) {
        match result {
            Ok(usage) => self.statfs(
                usage.blocks,
                usage.blocks_free,
                usage.blocks_available,
                usage.files,
                usage.files_free,
                saturated(usage.block_size_bytes),
                saturated(usage.name_max_bytes),
                saturated(usage.fragment_size_bytes),
            ),
            Err(error) => self.error(errno(error)),
        }
    }
}

fn saturated(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Attributes that the kernel may keep for `ttl`.
pub fn attr(reply: ReplyAttr, ttl: Duration, result: Result<Stat>) {
    match result {
        Ok(stat) => reply.attr(&ttl, &attributes(&stat)),
        Err(error) => reply.error(errno(error)),
    }
}

/// A value for a caller with `room` bytes: 0 asks for its length only (`getxattr(2)`).
pub fn xattr(reply: ReplyXattr, room: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(value) if room == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > room as usize => reply.error(fuser::Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

/// Names as `listxattr(2)` gives them: each ended by a NUL.
pub fn xattr_names(names: Vec<Vec<u8>>) -> Vec<u8> {
    names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect()
}

/// How the kernel shall treat a file that was opened: keep its cached pages if `opened` says they
/// are still right, or use none, and send no flush for a descriptor that cannot write.
pub fn file_flags(opened: &Opened, reads_only: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    // What the kernel reads by itself it keeps no pages of.
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache && !opened.passed);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags.set(FopenFlags::FOPEN_NOFLUSH, reads_only);
    flags
}

/// A buffer of directory entries; `add` is true when the entry no longer fitted.
pub trait Listing {
    /// Adds `entry` unless the buffer is full.
    fn add(&mut self, entry: &DirEntry<'_>) -> bool;
    /// Sends what was added, or the error.
    fn send(self, result: Result<()>);
}

impl Listing for ReplyDirectory {
    fn add(&mut self, entry: &DirEntry<'_>) -> bool {
        let name = OsStr::from_bytes(entry.name);
        let ino = INodeNo(entry.stat.node.0);
        ReplyDirectory::add(self, ino, entry.cursor, file_type(entry.stat), name)
    }

    fn send(self, result: Result<()>) {
        match result {
            Ok(()) => self.ok(),
            Err(error) => self.error(errno(error)),
        }
    }
}

/// A listing with attributes, which the kernel keeps for the given time.
pub struct PlusListing<'a> {
    /// The reply being filled.
    pub reply: ReplyDirectoryPlus,
    /// How long names and attributes may be kept.
    pub ttl: Duration,
    /// Where the nodes listed are noted.
    pub introduced: &'a Introduced,
}

impl Listing for PlusListing<'_> {
    fn add(&mut self, entry: &DirEntry<'_>) -> bool {
        let name = OsStr::from_bytes(entry.name);
        let attr = attributes(entry.stat);
        self.introduced.mark(entry.stat.node);
        self.reply.add(attr.ino, entry.cursor, name, &self.ttl, &attr, GENERATION)
    }

    fn send(self, result: Result<()>) {
        match result {
            Ok(()) => self.reply.ok(),
            Err(error) => self.reply.error(errno(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_vfs::Fh;

    #[test]
    fn attribute_names_are_each_ended_by_a_nul() {
        assert_eq!(xattr_names(vec![b"user.a".to_vec(), b"b".to_vec()]), b"user.a\0b\0");
        assert_eq!(xattr_names(Vec::new()), b"");
    }

    #[test]
    fn pages_are_kept_only_when_the_volume_says_so() {
        let opened = |keep_cache| Opened { fh: Fh(1), keep_cache, direct: false, passed: false };
        assert_eq!(file_flags(&opened(false), false), FopenFlags::empty());
        assert_eq!(file_flags(&opened(true), false), FopenFlags::FOPEN_KEEP_CACHE);
        assert_eq!(file_flags(&opened(false), true), FopenFlags::FOPEN_NOFLUSH);
        let on_its_way = Opened { direct: true, ..opened(false) };
        assert_eq!(file_flags(&on_its_way, false), FopenFlags::FOPEN_DIRECT_IO);
    }
}
