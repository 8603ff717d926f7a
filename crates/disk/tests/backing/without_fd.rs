//! A file of a disk that has no descriptors, as a simulated one has none.

use lockstep_core::Timespec;
use lockstep_disk::{AllocateMode, BackingStat, DiskFile, SeekWhat};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Another file, with its descriptor hidden.
pub struct WithoutFd(pub Arc<dyn DiskFile>);
impl DiskFile for WithoutFd {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
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
        self.0.stat()
    }
    fn allocate(&self, mode: AllocateMode, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(mode, offset, len)
    }
    fn seek(&self, offset: u64, what: SeekWhat) -> io::Result<u64> {
        self.0.seek(offset, what)
    }
    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn DiskFile,
        to_offset: u64,
        len: u64,
    ) -> io::Result<u64> {
        self.0.copy_range_to(offset, to, to_offset, len)
    }
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.0.set_mode(mode)
    }
    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.0.set_owner(uid, gid)
    }
    fn set_times(&self, atime: Timespec, mtime: Timespec) -> io::Result<()> {
        self.0.set_times(atime, mtime)
    }
    fn set_seal(&self, seal: Option<&[u8]>) -> io::Result<()> {
        self.0.set_seal(seal)
    }
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
