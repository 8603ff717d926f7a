//! The database engine, opened: fjall, a log-structured tree behind a write-ahead journal.
//!
//! A commit appends to the journal without waiting for the disk, which is what makes thousands of
//! small commits a second possible.

use super::StateBatch;
use super::error::{Fault, StateError};
use super::holdings::{Holding, Holdings};
use super::journal::{Cut, cut_tear};
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use lockstep_core::{ContentRef, Manifest, NodeId, Sequence};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

/// The database's directory within the state directory; a change of format takes a new name.
pub(super) const DATABASE_DIR: &str = "v1";
/// A database being made; it gets its real name once it is complete.
const UNFINISHED_DIR: &str = "v1.new";
/// A file that every complete database has.
const COMPLETE_MARKER: &str = "version";
/// Locked by the process that has the database open.
const CLAIM_FILE: &str = "claim";

/// Cache of table blocks. Nodes are read once, when a volume starts, and then live in memory.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// A keyspace's writes are held in memory up to this size, then written to a table. At most four
/// full ones wait to be written, beyond that commits wait.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;
/// Journals that tables have not caught up with (the smallest value the engine allows).
const JOURNALS_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// One thread writes tables while the other merges them. With a single one, a long merge holds up
/// the writing, and what a busy writer commits meanwhile stays in memory (measured after six
/// seconds of unbroken commits: 270 to 680 MB with one thread, 30 to 37 MB with two).
const WORKERS: usize = 2;
/// Table files kept open.
const OPEN_FILES_MAX: usize = 64;

/// First and last sequence in the log.
type LogBounds = Option<(Sequence, Sequence)>;

/// An open database. Dropping it closes it.
pub(super) struct Opened {
    nodes: Keyspace,
    log: Keyspace,
    meta: Keyspace,
    records: Keyspace,
    pub(super) holdings: Holdings,
    log_bounds: LogBounds,
    write_failed: bool,
    db: Database,
}

/// The lock that keeps other processes out. It is released explicitly: a child process that is
/// just being started holds a copy of every descriptor for a moment, and the lock with it.
pub(super) struct Claim(File);

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "state database not unlocked; closing it will");
        }
    }
}

/// Makes `dir` if it is missing and locks it for this process.
pub(super) fn claim(dir: &Path) -> Result<Claim, StateError> {
    let unreadable = |source| StateError::Unreadable { dir: dir.into(), source };
    fs::create_dir_all(dir).map_err(unreadable)?;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(CLAIM_FILE))
        .map_err(|source| StateError::Unreadable { dir: dir.join(CLAIM_FILE), source })?;
    match file.try_lock() {
        Ok(()) => Ok(Claim(file)),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked { dir: dir.into() }),
        Err(TryLockError::Error(source)) => Err(unreadable(source)),
    }
}

impl Opened {
    /// Opens the database in `dir`, which this process has claimed; makes it if it is missing. Says
    /// that it had to cut its journal, and keeps in `keep_in` what it cut off.
    pub(super) fn open(dir: &Path, keep_in: Option<&Path>) -> Result<(Opened, Option<Cut>), Fault> {
        let database = dir.join(DATABASE_DIR);
        let mut cut = None;
        if !database.try_exists()? {
            make(dir)?;
        } else if !database.join(COMPLETE_MARKER).try_exists()? {
            return Err(Fault::shape("its version file is missing"));
        } else {
            cut = cut_tear(&database, keep_in)?;
        }
        Ok((Opened::open_engine(&database)?, cut))
    }

    fn open_engine(database: &Path) -> Result<Opened, Fault> {
        let db = Database::builder(database)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_MAX_BYTES)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(WORKERS)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let nodes = db.keyspace("nodes", options)?;
        let log = db.keyspace("log", options)?;
        let meta = db.keyspace("meta", options)?;
        let records = db.keyspace("records", options)?;
        let holdings = Holdings::open(&db, options)?;
        let log_bounds = match (log.first_key_value(), log.last_key_value()) {
            (Some(first), Some(last)) => Some((sequence(first)?, sequence(last)?)),
            _ => None,
        };
        Ok(Opened { nodes, log, meta, records, holdings, log_bounds, write_failed: false, db })
    }

    /// Whether an earlier write failed: the engine must then be opened anew.
    pub(super) fn refuses_writes(&self) -> bool {
        self.write_failed
    }

    pub(super) fn commit(&mut self, batch: &StateBatch) -> Result<(), Fault> {
        let written = self.write(batch);
        self.write_failed |= written.is_err();
        self.log_bounds = written?;
        Ok(())
    }

    pub(super) fn hold(
        &mut self,
        holding: Holding,
        content: &ContentRef,
        manifest: &Manifest,
    ) -> Result<(), Fault> {
        let written = self.holdings.hold(&self.db, holding, content, manifest);
        self.write_failed |= written.is_err();
        written
    }

    pub(super) fn release(&mut self, holding: Holding) -> Result<(), Fault> {
        let written = self.holdings.release(&self.db, holding);
        self.write_failed |= written.is_err();
        written
    }

    pub(super) fn sync(&mut self) -> Result<(), Fault> {
        let synced = self.db.persist(PersistMode::SyncData);
        self.write_failed |= synced.is_err();
        Ok(synced?)
    }

    pub(super) fn load_nodes(&self) -> Result<Vec<(NodeId, Vec<u8>)>, Fault> {
        self.nodes
            .iter()
            .map(|entry| {
                let (key, value) = entry.into_inner()?;
                Ok((NodeId(number(&key)?), value.to_vec()))
            })
            .collect()
    }

    pub(super) fn read_log(
        &self,
        from: Sequence,
        max_entries: usize,
    ) -> Result<Vec<(Sequence, Vec<u8>)>, Fault> {
        self.log
            .range(key(from.0)..)
            .take(max_entries)
            .map(|entry| {
                let (key, value) = entry.into_inner()?;
                Ok((Sequence(number(&key)?), value.to_vec()))
            })
            .collect()
    }

    pub(super) fn log_bounds(&self) -> LogBounds {
        self.log_bounds
    }

    pub(super) fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.meta.get(name)?.map(|value| value.to_vec()))
    }

    pub(super) fn records(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        self.records
            .prefix(prefix)
            .map(|entry| {
                let (key, value) = entry.into_inner()?;
                let name = String::from_utf8(key.to_vec());
                let name = name.map_err(|_| Fault::shape("a record's name is not text"))?;
                Ok((name, value.to_vec()))
            })
            .collect()
    }

    /// Writes the batch to the journal and answers the log's new bounds.
    fn write(&self, batch: &StateBatch) -> Result<LogBounds, Fault> {
        let mut write = self.db.batch().durability(Some(PersistMode::Buffer));
        for (node, value) in &batch.nodes {
            match value {
                Some(value) => write.insert(&self.nodes, key(node.0), value.as_slice()),
                None => write.remove(&self.nodes, key(node.0)),
            }
        }
        for (name, value) in &batch.meta {
            write.insert(&self.meta, name.as_str(), value.as_slice());
        }
        for (name, value) in &batch.records {
            match value {
                Some(value) => write.insert(&self.records, name.as_str(), value.as_slice()),
                None => write.remove(&self.records, name.as_str()),
            }
        }
        let bounds = self.write_log(&mut write, batch)?;
        write.commit()?;
        Ok(bounds)
    }

    fn write_log(
        &self,
        write: &mut OwnedWriteBatch,
        batch: &StateBatch,
    ) -> Result<LogBounds, Fault> {
        let kept = |seq: Sequence| batch.trim_log_through.is_none_or(|through| seq > through);
        let mut bounds = match (self.log_bounds, batch.trim_log_through) {
            (Some((first, last)), Some(through)) if through >= first => {
                self.trim(write, first, through.min(last))?;
                self.first_after(through)?.map(|first| (first, last))
            }
            (bounds, _) => bounds,
        };
        for (seq, value) in batch.log.iter().filter(|(seq, _)| kept(*seq)) {
            write.insert(&self.log, key(seq.0), value.as_slice());
            bounds = match bounds {
                None => Some((*seq, *seq)),
                Some((first, last)) => Some((first.min(*seq), last.max(*seq))),
            };
        }
        Ok(bounds)
    }

    /// Removes what is in the log from `first` through `last`. Starting at the first entry spares
    /// walking over what was removed before.
    fn trim(
        &self,
        write: &mut OwnedWriteBatch,
        first: Sequence,
        last: Sequence,
    ) -> Result<(), Fault> {
        for entry in self.log.range(key(first.0)..=key(last.0)) {
            write.remove(&self.log, entry.key()?);
        }
        Ok(())
    }

    fn first_after(&self, through: Sequence) -> Result<Option<Sequence>, Fault> {
        let Some(from) = through.0.checked_add(1) else { return Ok(None) };
        self.log.range(key(from)..).next().map(sequence).transpose()
    }
}

/// Makes a database aside and renames it into place, so that a crash leaves a whole one or none.
fn make(dir: &Path) -> Result<(), Fault> {
    let unfinished = dir.join(UNFINISHED_DIR);
    match fs::remove_dir_all(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    drop(Opened::open_engine(&unfinished)?);
    fs::rename(&unfinished, dir.join(DATABASE_DIR))?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// Keys sort as their numbers do.
fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn number(key: &[u8]) -> Result<u64, Fault> {
    let bytes = key.try_into().map_err(|_| Fault::shape("a key does not have 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn sequence(entry: Guard) -> Result<Sequence, Fault> {
    Ok(Sequence(number(&entry.key()?)?))
}
