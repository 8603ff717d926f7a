//! An open file of the real disk.

use crate::disk::{AllocateMode, DiskFile, SeekWhat};
use crate::stat::BackingStat;
use lockstep_core::Timespec;
use rustix::fs::{AtFlags, FallocateFlags, Gid, Mode, SeekFrom, Timestamps, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Buffer of a copy that the kernel cannot do by itself.
const COPY_BUFFER_BYTES: usize = 256 * 1024;

/// A [`DiskFile`] with a descriptor.
pub(super) struct PlainFile(File);

impl PlainFile {
    pub(super) fn new(fd: OwnedFd) -> PlainFile {
        PlainFile(File::from(fd))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        AsFd::as_fd(&self.0)
    }
}

impl DiskFile for PlainFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.0.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(content, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn stat(&self) -> io::Result<BackingStat> {
        let raw = rustix::fs::statx(&self.0, c"", AtFlags::EMPTY_PATH, BackingStat::WANTED)?;
        Ok(BackingStat::from_statx(&raw))
    }

    fn allocate(&self, mode: AllocateMode, offset: u64, len: u64) -> io::Result<()> {
        let flags = match mode {
            AllocateMode::Extend => FallocateFlags::empty(),
            AllocateMode::KeepSize => FallocateFlags::KEEP_SIZE,
            AllocateMode::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            AllocateMode::ZeroRange => FallocateFlags::ZERO_RANGE,
            AllocateMode::ZeroRangeKeepSize => {
                FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE
            }
            AllocateMode::Collapse => FallocateFlags::COLLAPSE_RANGE,
            AllocateMode::Insert => FallocateFlags::INSERT_RANGE,
        };
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.0, flags, offset, len))?)
    }

    fn seek(&self, offset: u64, what: SeekWhat) -> io::Result<u64> {
        let from = match what {
            SeekWhat::Data => SeekFrom::Data(offset),
            SeekWhat::Hole => SeekFrom::Hole(offset),
        };
        Ok(rustix::fs::seek(&self.0, from)?)
    }

    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn DiskFile,
        to_offset: u64,
        len: u64,
    ) -> io::Result<u64> {
        if let Some(target) = to.as_fd() {
            match copy_in_kernel(self.fd(), offset, target, to_offset, len) {
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                done => return Ok(done?),
            }
        }
        copy_through_memory(self, offset, to, to_offset, len)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(mode & 0o7777))?)
    }

    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = owner(uid, gid);
        Ok(rustix::fs::fchown(&self.0, uid, gid)?)
    }

    fn set_times(&self, atime: Timespec, mtime: Timespec) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.0, &timestamps(atime, mtime))?)
    }

    fn set_seal(&self, seal: Option<&[u8]>) -> io::Result<()> {
        super::xattr::set_seal(self.fd(), seal)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd())
    }
}

/// Owner and group for the `chown` calls; `u32::MAX` means unchanged.
pub(super) fn owner(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    ((uid != u32::MAX).then(|| Uid::from_raw(uid)), (gid != u32::MAX).then(|| Gid::from_raw(gid)))
}

/// Times for the `utimens` calls.
pub(super) fn timestamps(atime: Timespec, mtime: Timespec) -> Timestamps {
    let raw = |t: Timespec| rustix::fs::Timespec { tv_sec: t.secs, tv_nsec: t.nanos.into() };
    Timestamps { last_access: raw(atime), last_modification: raw(mtime) }
}

/// Fails with what the kernel said only if nothing was copied: a caller goes on from there.
fn copy_in_kernel(
    from: BorrowedFd<'_>,
    offset: u64,
    to: BorrowedFd<'_>,
    to_offset: u64,
    len: u64,
) -> Result<u64, Errno> {
    let mut copied = 0;
    while copied < len {
        let (mut source, mut target) = (offset + copied, to_offset + copied);
        let step = usize::try_from(len - copied).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), step) {
            Ok(0) => break,
            Ok(n) => copied += n as u64,
            Err(Errno::INTR) => {}
            Err(_) if copied > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(copied)
}

fn copy_through_memory(
    from: &dyn DiskFile,
    offset: u64,
    to: &dyn DiskFile,
    to_offset: u64,
    len: u64,
) -> io::Result<u64> {
    let mut buf = vec![0; COPY_BUFFER_BYTES];
    let mut copied = 0;
    while copied < len {
        let want = buf.len().min(usize::try_from(len - copied).unwrap_or(usize::MAX));
        let got = from.read_at(&mut buf[..want], offset + copied)?;
        to.write_all_at(&buf[..got], to_offset + copied)?;
        copied += got as u64;
        if got < want {
            break;
        }
    }
    Ok(copied)
}
