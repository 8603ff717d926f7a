//! An open file of the simulated disk.

use super::disk::{Core, SimDisk, refused};
use super::image::{BLOCK_BYTES, Change, Meta};
use super::tree::SEAL;
use lockstep_core::Timespec;
use lockstep_disk::{AllocateMode, BackingStat, DiskFile, SeekWhat};
use lockstep_vfs::Errno;
use std::io;
use std::os::fd::BorrowedFd;

pub struct SimFile {
    disk: SimDisk,
    ino: u64,
    /// Which life of the disk it was opened in.
    life: u64,
}

impl SimFile {
    pub fn new(disk: SimDisk, core: &mut Core, ino: u64) -> Self {
        core.opened(ino);
        SimFile { disk, ino, life: core.life }
    }

    fn update(&self, edit: impl FnOnce(&mut Meta)) -> io::Result<()> {
        let now = self.disk.now();
        let mut core = self.disk.changing()?;
        core.update(self.ino, |meta| {
            meta.ctime = now;
            edit(meta);
        })
    }

    /// Writes block by block; what fits before the disk is full is written.
    fn write(&self, core: &mut Core, content: &[u8], offset: u64) -> io::Result<()> {
        let now = self.disk.now();
        core.update(self.ino, |meta| (meta.mtime, meta.ctime) = (now, now))?;
        let mut at = 0;
        while at < content.len() {
            let position = offset + at as u64;
            let within = position as usize % BLOCK_BYTES;
            let end = content.len().min(at + BLOCK_BYTES - within);
            let index = position / BLOCK_BYTES as u64;
            core.write_block(self.ino, index, within, &content[at..end])?;
            at = end;
        }
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut core = self.disk.core();
        if core.life == self.life && !self.disk.power.is_dead() {
            core.closed(self.ino);
        }
    }
}

impl Meta {
    pub fn own(&mut self, uid: u32, gid: u32) {
        if uid != u32::MAX {
            self.uid = uid;
        }
        if gid != u32::MAX {
            self.gid = gid;
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.disk.reading()?.inode(self.ino)?.read(buf, offset))
    }

    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        let mut core = self.disk.changing()?;
        self.write(&mut core, content, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.disk.now();
        let mut core = self.disk.changing()?;
        core.change(&[self.ino], vec![Change::Truncate(self.ino, len)]);
        core.update(self.ino, |meta| (meta.mtime, meta.ctime) = (now, now))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.changing()?.sync(self.ino);
        Ok(())
    }

    fn stat(&self) -> io::Result<BackingStat> {
        Ok(self.disk.reading()?.inode(self.ino)?.stat(self.ino))
    }

    fn allocate(&self, mode: AllocateMode, offset: u64, len: u64) -> io::Result<()> {
        if mode != AllocateMode::PunchHole {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut core = self.disk.changing()?;
        let end = core.inode(self.ino)?.size_bytes.min(offset + len);
        let zeros = vec![0; end.saturating_sub(offset) as usize];
        self.write(&mut core, &zeros, offset)
    }

    fn seek(&self, offset: u64, what: SeekWhat) -> io::Result<u64> {
        let core = self.disk.reading()?;
        let inode = core.inode(self.ino)?;
        if offset >= inode.size_bytes {
            return Err(refused(Errno::NoSuchOffset));
        }
        let mut index = offset / BLOCK_BYTES as u64;
        let wanted = what == SeekWhat::Data;
        while inode.blocks.contains_key(&index) != wanted {
            index += 1;
            if index * BLOCK_BYTES as u64 >= inode.size_bytes {
                return match what {
                    SeekWhat::Data => Err(refused(Errno::NoSuchOffset)),
                    SeekWhat::Hole => Ok(inode.size_bytes),
                };
            }
        }
        Ok((index * BLOCK_BYTES as u64).max(offset))
    }

    fn copy_range_to(
        &self,
        offset: u64,
        to: &dyn DiskFile,
        to_offset: u64,
        len: u64,
    ) -> io::Result<u64> {
        let mut buf = vec![0; len.min(1 << 20) as usize];
        let got = self.read_at(&mut buf, offset)?;
        to.write_all_at(&buf[..got], to_offset)?;
        Ok(got as u64)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.update(|meta| meta.mode = mode & 0o7777)
    }

    fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.update(|meta| meta.own(uid, gid))
    }

    fn set_times(&self, atime: Timespec, mtime: Timespec) -> io::Result<()> {
        self.update(|meta| (meta.atime, meta.mtime) = (atime, mtime))
    }

    fn set_seal(&self, seal: Option<&[u8]>) -> io::Result<()> {
        let sealed = self.disk.reading()?.inode(self.ino)?.meta.xattrs.contains_key(SEAL);
        match seal {
            Some(seal) => {
                self.update(|meta| drop(meta.xattrs.insert(SEAL.to_vec(), seal.to_vec())))
            }
            None if sealed => self.update(|meta| drop(meta.xattrs.remove(SEAL))),
            None => Ok(()),
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
