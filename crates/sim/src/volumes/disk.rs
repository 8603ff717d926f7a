//! A disk in memory that can lose power.
//!
//! **The model** is that of a journaling filesystem like ext4 with `data=ordered` and delayed
//! allocation, without its courtesies (`auto_da_alloc`, the commit every five seconds): what POSIX
//! and such a filesystem promise, and nothing beyond.
//!
//! - Metadata (names, attributes, truncations, xattrs) goes into one journal, in order, each call
//!   atomic. After a power cut a prefix of it holds.
//! - Bytes written are in memory until synced. After a power cut each block of 4 KiB within the
//!   size that the metadata tells is as some write left it, or as it was before (a hole: zeros), or
//!   torn at a sector between two of those. A file that grew by writing has its blocks in order up
//!   to some point and ends there: growing by writing never shows zeros, growing by `ftruncate` does.
//! - Writes after a truncation that is not in the prefix are not there: they went to new blocks.
//! - `fsync` of a file makes its bytes durable, and the journal up to the last change of the file
//!   (all of it if the file has grown or has unwritten bytes: blocks must be allocated);
//!   `fdatasync` likewise; `fsync` of a directory the journal up to the last change of it; `syncfs`
//!   everything.
//! - `kill -9` loses nothing that a call returned for; files without a name go.
//! - Numbers of inodes that are gone are given again.

use super::clock::SimClock;
use super::image::{BLOCK_BYTES, Block, Change, Image, Inode, Meta, cut};
use super::power::Power;
use crate::rng::Rng;
use lockstep_core::Timespec;
use lockstep_vfs::{Clock, Errno};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a torn write is torn at.
const SECTOR_BYTES: usize = 512;

/// One call's metadata: all of it or nothing.
struct Record {
    changes: Vec<Change>,
    touches: Vec<u64>,
}

/// A change of bytes that is not synced.
enum Unsynced {
    Block {
        index: u64,
        bytes: Block,
        size_after: u64,
    },
    /// What follows is about a file that this record makes: before, its number was another's.
    Made {
        record: u64,
    },
    /// Not to be passed before the journal is committed through this record.
    Truncate {
        size: u64,
        record: u64,
    },
}

/// The platters and what is in memory of them.
pub struct Core {
    /// What programs see.
    pub live: Image,
    /// What a power cut cannot take.
    durable: Image,
    journal: Vec<Record>,
    /// Number of the first record in the journal.
    first_record: u64,
    unsynced: BTreeMap<u64, Vec<Unsynced>>,
    open: BTreeMap<u64, usize>,
    /// The file that bytes were written to last.
    pub last_written: Option<u64>,
    /// Number of times the daemon came to an end: files opened before are nobody's.
    pub life: u64,
    /// Number of times the power went.
    pub cuts: u64,
    /// Whether nothing more fits.
    pub is_full: bool,
}

/// One host's disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    core: Arc<Mutex<Core>>,
    pub(super) clock: Arc<SimClock>,
    pub(super) power: Power,
}

impl SimDisk {
    pub fn new(clock: Arc<SimClock>, power: Power) -> Self {
        let image = Image::new(now(&clock));
        let core = Core {
            live: image.clone(),
            durable: image,
            journal: Vec::new(),
            first_record: 0,
            unsynced: BTreeMap::new(),
            open: BTreeMap::new(),
            last_written: None,
            life: 0,
            cuts: 0,
            is_full: false,
        };
        SimDisk { core: Arc::new(Mutex::new(core)), clock, power }
    }

    /// For a look from outside.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a call that reads.
    pub(super) fn reading(&self) -> io::Result<MutexGuard<'_, Core>> {
        self.power.is_on()?;
        Ok(self.core())
    }

    /// For a call that changes something.
    pub(super) fn changing(&self) -> io::Result<MutexGuard<'_, Core>> {
        self.power.draw()?;
        Ok(self.core())
    }

    pub(super) fn now(&self) -> Timespec {
        now(&self.clock)
    }
}

fn now(clock: &SimClock) -> Timespec {
    let now = clock.wall();
    Timespec { secs: now.as_secs() as i64, nanos: now.subsec_nanos() }
}

pub fn refused(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw())
}

impl Core {
    pub fn inode(&self, ino: u64) -> io::Result<&Inode> {
        self.live.0.get(&ino).ok_or_else(|| refused(Errno::Stale))
    }

    /// Makes changes, atomically.
    pub fn change(&mut self, touches: &[u64], changes: Vec<Change>) {
        let record = self.first_record + self.journal.len() as u64;
        for change in &changes {
            let waits = match change {
                Change::Make(ino, _) => Some((ino, Unsynced::Made { record })),
                Change::Truncate(ino, size) => {
                    Some((ino, Unsynced::Truncate { size: *size, record }))
                }
                _ => None,
            };
            if let Some((ino, waits)) = waits {
                self.unsynced.entry(*ino).or_default().push(waits);
            }
            self.live.apply(change);
        }
        self.journal.push(Record { changes, touches: touches.to_vec() });
    }

    /// Changes attributes.
    pub fn update(&mut self, ino: u64, edit: impl FnOnce(&mut Meta)) -> io::Result<()> {
        let mut meta = self.inode(ino)?.meta.clone();
        edit(&mut meta);
        self.change(&[ino], vec![Change::Update(ino, meta)]);
        Ok(())
    }

    /// Writes within one block.
    pub fn write_block(&mut self, ino: u64, index: u64, at: usize, part: &[u8]) -> io::Result<()> {
        let is_full = self.is_full;
        self.last_written = Some(ino);
        let inode = self.live.0.get_mut(&ino).ok_or_else(|| refused(Errno::Stale))?;
        let old = inode.blocks.get(&index);
        if old.is_none() && is_full {
            return Err(refused(Errno::NoSpace));
        }
        let mut bytes = old.map_or_else(|| vec![0; BLOCK_BYTES], |block| block.to_vec());
        bytes[at..at + part.len()].copy_from_slice(part);
        let bytes: Block = bytes.into();
        let end = index * BLOCK_BYTES as u64 + (at + part.len()) as u64;
        inode.blocks.insert(index, bytes.clone());
        inode.size_bytes = inode.size_bytes.max(end);
        let size_after = inode.size_bytes;
        let written = Unsynced::Block { index, bytes, size_after };
        self.unsynced.entry(ino).or_default().push(written);
        Ok(())
    }

    pub fn opened(&mut self, ino: u64) {
        *self.open.entry(ino).or_default() += 1;
    }

    pub fn closed(&mut self, ino: u64) {
        if let Some(count) = self.open.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&ino);
            }
        }
        self.free_if_gone(ino);
    }

    /// An inode without a name that nobody has open goes.
    pub fn free_if_gone(&mut self, ino: u64) {
        let gone = self.live.0.get(&ino).is_some_and(|inode| inode.nlink == 0);
        if gone && !self.open.contains_key(&ino) {
            self.unsynced.remove(&ino);
            self.change(&[ino], vec![Change::Free(ino)]);
        }
    }

    /// Makes a file, or the entries of a directory, durable.
    pub fn sync(&mut self, ino: u64) {
        let written = |unsynced: &Vec<Unsynced>| {
            unsynced.iter().any(|change| !matches!(change, Unsynced::Made { .. }))
        };
        let through = match self.unsynced.get(&ino).is_some_and(written) {
            true => self.journal.len(),
            false => {
                let last = self.journal.iter().rposition(|record| record.touches.contains(&ino));
                last.map_or(0, |last| last + 1)
            }
        };
        self.commit(through);
        if self.unsynced.remove(&ino).is_some()
            && let (Some(live), Some(durable)) =
                (self.live.0.get(&ino), self.durable.0.get_mut(&ino))
        {
            durable.blocks.clone_from(&live.blocks);
            durable.size_bytes = live.size_bytes;
        }
    }

    pub fn sync_all(&mut self) {
        self.first_record += self.journal.len() as u64;
        self.journal.clear();
        self.unsynced.clear();
        self.durable = self.live.clone();
    }

    /// Makes the first records of the journal durable.
    fn commit(&mut self, records: usize) {
        for record in self.journal.drain(..records) {
            record.changes.iter().for_each(|change| self.durable.apply(change));
        }
        self.first_record += records as u64;
        for unsynced in self.unsynced.values_mut() {
            unsynced
                .retain(|u| !matches!(u, Unsynced::Made { record } if *record < self.first_record));
            while let Some(at) = unsynced.iter().position(
                |u| matches!(u, Unsynced::Truncate { record, .. } if *record < self.first_record),
            ) {
                truncate_before(unsynced, at);
            }
        }
    }

    /// The daemon is killed.
    pub fn kill(&mut self) {
        self.life += 1;
        self.open.clear();
        let gone: Vec<u64> =
            self.live.0.iter().filter(|(_, i)| i.nlink == 0).map(|(ino, _)| *ino).collect();
        gone.into_iter().for_each(|ino| self.free_if_gone(ino));
    }

    /// The power goes.
    pub fn cut_power(&mut self, rng: &mut Rng) {
        let records = rng.below(self.journal.len() + 1);
        self.commit(records);
        for (ino, unsynced) in std::mem::take(&mut self.unsynced) {
            if let Some(inode) = self.durable.0.get_mut(&ino) {
                write_back(inode, &unsynced, rng);
            }
        }
        self.durable.sweep();
        self.live = self.durable.clone();
        self.first_record += self.journal.len() as u64;
        self.journal.clear();
        self.life += 1;
        self.cuts += 1;
        self.open.clear();
    }
}

/// What was written before a truncation that is now durable matters only as far as that left it.
fn truncate_before(unsynced: &mut Vec<Unsynced>, at: usize) {
    let Unsynced::Truncate { size, .. } = unsynced.remove(at) else { return };
    let kept = unsynced.drain(..at).filter_map(|change| match change {
        Unsynced::Block { index, bytes, size_after } => {
            let start = index * BLOCK_BYTES as u64;
            let left = size.checked_sub(start).filter(|left| *left > 0)?;
            let bytes = cut(&bytes, (left as usize).min(BLOCK_BYTES));
            Some(Unsynced::Block { index, bytes, size_after: size_after.min(size) })
        }
        earlier => Some(earlier),
    });
    let kept: Vec<_> = kept.collect();
    unsynced.splice(0..0, kept);
}

/// Some of what was written reaches the disk.
fn write_back(inode: &mut Inode, unsynced: &[Unsynced], rng: &mut Rng) {
    let mut versions: BTreeMap<u64, Vec<Block>> = BTreeMap::new();
    let mut size = inode.size_bytes;
    for change in unsynced {
        let Unsynced::Block { index, bytes, size_after } = change else { break };
        versions.entry(*index).or_default().push(bytes.clone());
        size = size.max(*size_after);
    }
    let told = inode.size_bytes;
    let mut grows = size > told;
    for (index, mut written) in versions {
        let end = (index + 1) * BLOCK_BYTES as u64;
        if grows && end > told && rng.chance(70) {
            inode.blocks.extend(written.pop().map(|block| (index, block)));
            inode.size_bytes = end.min(size).max(inode.size_bytes);
            continue;
        }
        grows = grows && end <= told;
        if end - BLOCK_BYTES as u64 >= inode.size_bytes {
            continue;
        }
        let before = inode.blocks.get(&index).cloned();
        written.insert(0, before.unwrap_or_else(|| vec![0; BLOCK_BYTES].into()));
        inode.blocks.insert(index, mixed(&written, rng));
    }
    inode.truncate(inode.size_bytes);
}

/// One of several versions of a block, or one and the rest of another.
fn mixed(versions: &[Block], rng: &mut Rng) -> Block {
    let (one, other) = (&versions[rng.below(versions.len())], &versions[rng.below(versions.len())]);
    let torn = if rng.chance(30) { rng.below(BLOCK_BYTES / SECTOR_BYTES) } else { 0 };
    let mut bytes = one.to_vec();
    bytes[..torn * SECTOR_BYTES].copy_from_slice(&other[..torn * SECTOR_BYTES]);
    bytes.into()
}
