//! Cutting off what a power cut tore from the engine's journal.
//!
//! The filesystem may write the pages of unsynced commits in any order, so that after a power cut
//! one of them can be missing in the middle: it reads as zeros. The engine takes that for a
//! damaged database and refuses to open (in debug builds it can even panic). Here the journal is
//! cut before the first such batch, which is where the history that is whole ends. A batch that
//! is wrong without missing anything was damaged otherwise, and stays an error.
//!
//! The format is fjall's, version 3: a batch is a start (tag 1, item count `u32`, sequence
//! `u64`), its items (tag 2, kind, compression, keyspace `u64`, key length `u16`, value length
//! `u32` twice, key, value; or tag 4, keyspace `u64`) and an end (tag 3, XXH3 of the items'
//! bytes, `FJL\x03`), integers little-endian. New journals are 64 MiB of zeros.

use super::error::Fault;
use crate::aside::set_bytes_aside;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Smallest unit that a disk writes whole.
const SECTOR_BYTES: u64 = 512;
/// A sector that ends in this many zeros was not written to its end.
const ZEROS_BYTES: usize = 8;
const END_MAGIC: &[u8] = b"FJL\x03";

/// What was cut off a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The journal.
    pub journal: PathBuf,
    /// Where the bytes are that were cut off; `None` if none had been written, or they could not be kept.
    pub kept: Option<PathBuf>,
}

/// Cuts the newest journal of the closed database in `database` before its first torn batch, and
/// keeps in `keep_in` what stood behind. Older journals were synced before the newest was made.
pub(super) fn cut_tear(database: &Path, keep_in: Option<&Path>) -> Result<Option<Cut>, Fault> {
    let Some(path) = newest(database)? else { return Ok(None) };
    let file = File::open(&path)?;
    let len = file.metadata()?.len();
    let Some(kept_bytes) = whole_bytes(BufReader::new(&file), len)? else { return Ok(None) };
    let kept = keep_in.map(|dir| keep_tail(dir, &path, &file, kept_bytes)).transpose();
    // On a full disk, the cut matters and what was cut off does not.
    let kept = kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "what is cut off the state journal cannot be kept");
        None
    });
    tracing::warn!(kept_bytes, "state journal cut where an interrupted write tore it");
    let file = File::options().write(true).open(&path)?;
    file.set_len(kept_bytes)?;
    file.sync_all()?;
    Ok(Some(Cut { journal: path, kept: kept.flatten() }))
}

fn keep_tail(dir: &Path, path: &Path, file: &File, offset: u64) -> io::Result<Option<PathBuf>> {
    match written_after(file, offset)? {
        tail if tail.is_empty() => Ok(None),
        tail => set_bytes_aside(dir, path, &tail).map(Some),
    }
}

/// What the file holds behind its first `offset` bytes, without the zeros at its end.
fn written_after(mut file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.read_to_end(&mut tail)?;
    let written = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    tail.truncate(written);
    Ok(tail)
}

/// Where the history that is whole ends, if not at the end of a journal of `len` bytes.
pub(super) fn whole_bytes(reader: impl Read + Seek, len: u64) -> Result<Option<u64>, Fault> {
    let mut journal = Journal { reader, pos: 0, len, buf: Vec::new() };
    let broken = loop {
        let start = journal.pos;
        match journal.next_batch()? {
            Batch::Whole => {}
            Batch::None => return Ok(None),
            Batch::Broken => break start..journal.pos,
        }
    };
    let kept_bytes = broken.start;
    match journal.misses_bytes(broken)? {
        true => Ok(Some(kept_bytes)),
        false => Err(Fault::shape("a journal entry does not match its checksum")),
    }
}

/// The journal with the highest number.
fn newest(database: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|ext| ext == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let (true, Some(number)) = (is_journal, number) {
            newest = newest.max(Some((number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// What stands at a place in a journal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    Whole,
    Broken,
    None,
}

struct Journal<R> {
    reader: R,
    pos: u64,
    len: u64,
    buf: Vec<u8>,
}

impl<R: Read + Seek> Journal<R> {
    /// Walks over the batch that starts here.
    fn next_batch(&mut self) -> io::Result<Batch> {
        let Some(start) = self.take(13)? else {
            return Ok(if self.buf.iter().all(|b| *b == 0) { Batch::None } else { Batch::Broken });
        };
        match start[0] {
            0 => return Ok(Batch::None),
            1 => {}
            _ => return Ok(Batch::Broken),
        }
        let items = u32::from_le_bytes(start[1..5].try_into().expect("4 of 13 bytes"));
        let mut hasher = Xxh3::default();
        for _ in 0..items {
            if !self.next_item(&mut hasher)? {
                return Ok(Batch::Broken);
            }
        }
        let checksum = hasher.digest().to_le_bytes();
        let whole = self
            .take(13)?
            .is_some_and(|end| end[0] == 3 && end[1..9] == checksum && &end[9..] == END_MAGIC);
        Ok(if whole { Batch::Whole } else { Batch::Broken })
    }

    /// Walks over an item; false if there is none.
    fn next_item(&mut self, hasher: &mut Xxh3) -> io::Result<bool> {
        let Some(head) = self.take(9)? else { return Ok(false) };
        hasher.update(head);
        match (head[0], head[2]) {
            (4, _) => return Ok(true),
            (2, 0) => {}
            _ => return Ok(false),
        }
        let Some(lens) = self.take(12)? else { return Ok(false) };
        hasher.update(lens);
        let key = u16::from_le_bytes([lens[2], lens[3]]);
        let value = u32::from_le_bytes(lens[4..8].try_into().expect("4 of 12 bytes"));
        if lens[4..8] != lens[8..12] {
            return Ok(false);
        }
        let Some(body) = self.take(u64::from(key) + u64::from(value))? else { return Ok(false) };
        hasher.update(body);
        Ok(true)
    }

    /// The next `len` bytes; `None`, and only what is left in the buffer, at the end.
    fn take(&mut self, len: u64) -> io::Result<Option<&[u8]>> {
        let got = len.min(self.len - self.pos);
        self.buf.resize(usize::try_from(got).map_err(io::Error::other)?, 0);
        self.reader.read_exact(&mut self.buf)?;
        self.pos += got;
        Ok((got == len).then_some(&self.buf))
    }

    /// Whether the file ends within `range`, or a sector that belongs to it, or the one after,
    /// was not written to its end.
    fn misses_bytes(&mut self, range: Range<u64>) -> io::Result<bool> {
        let from = range.start - range.start % SECTOR_BYTES;
        self.reader.seek(SeekFrom::Start(from))?;
        self.pos = from;
        while self.pos < range.end + SECTOR_BYTES {
            let Some(sector) = self.take(SECTOR_BYTES)? else { return Ok(range.end == self.len) };
            if sector[sector.len() - ZEROS_BYTES..].iter().all(|b| *b == 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
