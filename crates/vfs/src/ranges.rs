//! Calls on byte ranges of open files: space, holes, copies.

use crate::errno::{Errno, Result};
use crate::request::Fh;
use crate::volume::Volume;
use lockstep_core::limits;
use lockstep_disk::{AllocateMode, SeekWhat};

const FALLOC_KEEP_SIZE: i32 = 0x01;
const FALLOC_PUNCH_HOLE: i32 = 0x02;
const FALLOC_COLLAPSE_RANGE: i32 = 0x08;
const FALLOC_ZERO_RANGE: i32 = 0x10;
const FALLOC_INSERT_RANGE: i32 = 0x20;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

impl Volume {
    /// fallocate(2); `kill_suidgid` as of [`Volume::write`].
    pub fn fallocate(
        &self,
        fh: Fh,
        mode: i32,
        offset: u64,
        len: u64,
        kill_suidgid: bool,
    ) -> Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= limits::FILE_MAX_BYTES);
        let end = end.ok_or(Errno::TooBig)?;
        if len == 0 {
            return Err(Errno::Invalid);
        }
        let how = allocate_mode(mode)?;
        let handle = self.handle(fh)?;
        let (_writing, file) = self.begin_writing(&handle.open)?;
        file.allocate(how, offset, len)?;
        let size = |old: u64| match how {
            AllocateMode::Extend | AllocateMode::ZeroRange => old.max(end),
            AllocateMode::KeepSize | AllocateMode::PunchHole | AllocateMode::ZeroRangeKeepSize => {
                old
            }
            AllocateMode::Collapse => old.saturating_sub(len),
            AllocateMode::Insert => old + len,
        };
        self.set_size(handle.open.node, size, kill_suidgid)?;
        self.written_without_handle(&handle.open);
        if let Some(cache) = self.cache() {
            cache.invalidate_attr(handle.open.node);
        }
        Ok(())
    }

    /// lseek(2) for data and holes.
    pub fn lseek(&self, fh: Fh, offset: u64, whence: i32) -> Result<u64> {
        let what = match whence {
            SEEK_DATA => SeekWhat::Data,
            SEEK_HOLE => SeekWhat::Hole,
            _ => return Err(Errno::Invalid),
        };
        let handle = self.handle(fh)?;
        let file = self.make_resident(&handle.open)?;
        Ok(file.seek(offset, what)?)
    }

    /// copy_file_range(2): copies up to `len` bytes below, without passing them through the caller.
    pub fn copy_file_range(
        &self,
        (from, from_offset): (Fh, u64),
        (to, to_offset): (Fh, u64),
        len: u64,
        kill_suidgid: bool,
    ) -> Result<u64> {
        let (source, target) = (self.handle(from)?, self.handle(to)?);
        let source_file = self.make_resident(&source.open)?;
        let (_writing, target_file) = self.begin_writing(&target.open)?;
        let copied = source_file.copy_range_to(from_offset, &*target_file, to_offset, len)?;
        if copied > 0 {
            self.content_changed(target.open.node, to_offset + copied, kill_suidgid)?;
        }
        Ok(copied)
    }
}

fn allocate_mode(mode: i32) -> Result<AllocateMode> {
    const PUNCH: i32 = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
    const ZERO_KEEP: i32 = FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE;
    Ok(match mode {
        0 => AllocateMode::Extend,
        FALLOC_KEEP_SIZE => AllocateMode::KeepSize,
        PUNCH => AllocateMode::PunchHole,
        FALLOC_ZERO_RANGE => AllocateMode::ZeroRange,
        ZERO_KEEP => AllocateMode::ZeroRangeKeepSize,
        FALLOC_COLLAPSE_RANGE => AllocateMode::Collapse,
        FALLOC_INSERT_RANGE => AllocateMode::Insert,
        _ => return Err(Errno::NotSupported),
    })
}
