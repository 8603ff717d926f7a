//! Writing bytes so that zeros take no space: what is a hole at the sender is one here.

use crate::disk::{AllocateMode, DiskFile};
use std::io;

/// Zeros shorter than this, or not at a multiple of it, are written like other bytes: filesystems
/// store whole blocks.
const BLOCK_BYTES: u64 = 4096;

/// Writes `bytes` at `offset`, leaving out whole blocks of zeros. The file must hold nothing there.
pub fn write_with_holes(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    let mut at = 0;
    while at < bytes.len() {
        let to_border = BLOCK_BYTES - (offset + at as u64) % BLOCK_BYTES;
        let end = (at + to_border as usize).min(bytes.len());
        let whole = (end - at) as u64 == BLOCK_BYTES;
        if whole && bytes[at..end].iter().all(|byte| *byte == 0) {
            write_some(file, &bytes[written..at], offset + written as u64)?;
            written = end;
        }
        at = end;
    }
    write_some(file, &bytes[written..], offset + written as u64)
}

fn write_some(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    match bytes.is_empty() {
        true => Ok(()),
        false => file.write_all_at(bytes, offset),
    }
}

/// Makes a range of the file read as zeros, freeing its space where the filesystem can.
pub fn punch(file: &dyn DiskFile, offset: u64, len: u64) -> io::Result<()> {
    match file.allocate(AllocateMode::PunchHole, offset, len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => zero(file, offset, len),
        done => done,
    }
}

fn zero(file: &dyn DiskFile, offset: u64, len: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(1 << 20)];
    let mut at = 0;
    while at < len {
        let step = zeros.len().min((len - at) as usize);
        file.write_all_at(&zeros[..step], offset + at)?;
        at += step as u64;
    }
    Ok(())
}
