//! The state database: nodes, the change log and a few named values, beside the backing tree.
//!
//! A commit is one atomic batch. When it returns, the batch is with the operating system and
//! survives the death of this process; [`StateDb::sync`] makes everything committed survive a
//! power cut. This is the only place that knows which database it is.
//!
//! After a power cut the database opens with a prefix of the commits: at least all that were
//! synced. After a failed write (a full disk) the database refuses further ones until it is opened anew;
//! that happens here, at the next call, so that commits succeed again once there is space.

mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod holdings;
mod journal;
mod opened;

pub use error::StateError;
pub use holdings::{Holding, Whereabouts};
pub use journal::Cut;

use crate::aside;
use error::Fault;
use lockstep_core::{ContentRef, Manifest, NodeId, Sequence};
use opened::{Claim, DATABASE_DIR, Opened, claim};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};

/// What one commit changes, all of it or nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StateBatch {
    /// Nodes to store; `None` removes one.
    pub nodes: Vec<(NodeId, Option<Vec<u8>>)>,
    /// Log entries to store.
    pub log: Vec<(Sequence, Vec<u8>)>,
    /// Named values to store.
    pub meta: Vec<(String, Vec<u8>)>,
    /// Records to store; `None` removes one. Their names begin with what they are a record of.
    pub records: Vec<(String, Option<Vec<u8>>)>,
    /// Removes all log entries up to and including this one, also those in this batch.
    pub trim_log_through: Option<Sequence>,
}

impl StateBatch {
    /// Whether committing it would change nothing.
    pub fn is_empty(&self) -> bool {
        let StateBatch { nodes, log, meta, records, trim_log_through } = self;
        let nothing = nodes.is_empty() && log.is_empty() && meta.is_empty() && records.is_empty();
        nothing && trim_log_through.is_none()
    }
}

/// What a volume needs of its state database: a simulated one can lose what was not synced.
pub trait StateStore: Send + Sync + 'static {
    /// Commits `batch` atomically. When this returns it survives `kill -9`, not yet a power cut.
    /// After an error it is unknown whether it was committed; committing it again is harmless.
    fn commit(&self, batch: &StateBatch) -> Result<(), StateError>;
    /// Returns when everything committed is on stable storage.
    fn sync(&self) -> Result<(), StateError>;
    /// All nodes, in the order of their ids.
    fn load_nodes(&self) -> Result<Vec<(NodeId, Vec<u8>)>, StateError>;
    /// Log entries in order, starting at `from` or the first one after it.
    fn read_log(
        &self,
        from: Sequence,
        max_entries: usize,
    ) -> Result<Vec<(Sequence, Vec<u8>)>, StateError>;
    /// The first entry still in the log.
    fn first_log(&self) -> Result<Option<Sequence>, StateError>;
    /// The last entry in the log. `None` once everything is trimmed: whoever numbers entries
    /// keeps the counter as a named value.
    fn last_log(&self) -> Result<Option<Sequence>, StateError>;
    /// A named value.
    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StateError>;
    /// All records whose names begin with `prefix`, in the order of their names.
    fn records(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StateError>;
    /// Writes down which chunks `content` of a node consists of; a hint, not synced.
    fn hold(
        &self,
        holding: Holding,
        content: &ContentRef,
        manifest: &Manifest,
    ) -> Result<(), StateError>;
    /// Forgets a content of a node and where its chunks lie.
    fn release(&self, holding: Holding) -> Result<(), StateError>;
    /// The contents of `node` whose chunks are known.
    fn holdings(&self, node: NodeId) -> Result<Vec<Holding>, StateError>;
    /// A content of a node and its chunks, as written down.
    fn held(&self, holding: Holding) -> Result<Option<(ContentRef, Manifest)>, StateError>;
    /// At most `max` places where the chunk, or the content, of this hash may lie.
    fn find_chunk(&self, hash: &[u8; 32], max: usize) -> Result<Vec<Whereabouts>, StateError>;
}

/// The state database of one volume. Methods may be called from several threads; they take turns.
pub struct StateDb {
    dir: PathBuf,
    cut: Option<Cut>,
    /// `None` only between a failed write and the next successful opening.
    opened: Mutex<Option<Opened>>,
    /// Released last.
    _claim: Claim,
}

impl StateDb {
    /// Opens the database in `dir`, making both if they are missing.
    pub fn open(dir: &Path) -> Result<StateDb, StateError> {
        if is_no_directory(dir) {
            let source = Fault::shape("it is a file, not a directory");
            return Err(StateError::Corrupt { dir: dir.into(), source });
        }
        let claim = claim(dir)?;
        let (opened, cut) =
            guarded(|| Opened::open(dir, Some(dir))).map_err(|f| StateError::opening(dir, f))?;
        Ok(StateDb { dir: dir.into(), cut, opened: Mutex::new(Some(opened)), _claim: claim })
    }

    /// Moves the files of a damaged database in `dir` aside, so that the next opening makes a new
    /// one. Answers where they are.
    pub fn set_aside(dir: &Path) -> Result<PathBuf, StateError> {
        let unreadable = |source| StateError::Unreadable { dir: dir.into(), source };
        if is_no_directory(dir) {
            return aside::set_aside(dir).map_err(unreadable);
        }
        let _claim = claim(dir)?;
        aside::set_aside(&dir.join(DATABASE_DIR)).map_err(unreadable)
    }

    /// What was cut off the journal when the database was opened, if an interrupted write had torn
    /// it: everything before is there.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }
}

/// Whether something else is in the directory's place.
fn is_no_directory(dir: &Path) -> bool {
    dir.metadata().is_ok_and(|found| !found.is_dir())
}

impl StateStore for StateDb {
    fn commit(&self, batch: &StateBatch) -> Result<(), StateError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.with(|opened| opened.commit(batch))
    }

    fn sync(&self) -> Result<(), StateError> {
        self.with(|opened| opened.sync())
    }

    fn load_nodes(&self) -> Result<Vec<(NodeId, Vec<u8>)>, StateError> {
        self.with(|opened| opened.load_nodes())
    }

    fn read_log(
        &self,
        from: Sequence,
        max_entries: usize,
    ) -> Result<Vec<(Sequence, Vec<u8>)>, StateError> {
        self.with(|opened| opened.read_log(from, max_entries))
    }

    fn first_log(&self) -> Result<Option<Sequence>, StateError> {
        self.with(|opened| Ok(opened.log_bounds().map(|(first, _)| first)))
    }

    fn last_log(&self) -> Result<Option<Sequence>, StateError> {
        self.with(|opened| Ok(opened.log_bounds().map(|(_, last)| last)))
    }

    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.with(|opened| opened.meta(key))
    }

    fn records(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        self.with(|opened| opened.records(prefix))
    }

    fn hold(
        &self,
        holding: Holding,
        content: &ContentRef,
        manifest: &Manifest,
    ) -> Result<(), StateError> {
        self.with(|opened| opened.hold(holding, content, manifest))
    }

    fn release(&self, holding: Holding) -> Result<(), StateError> {
        self.with(|opened| opened.release(holding))
    }

    fn holdings(&self, node: NodeId) -> Result<Vec<Holding>, StateError> {
        self.with(|opened| opened.holdings.of(node))
    }

    fn held(&self, holding: Holding) -> Result<Option<(ContentRef, Manifest)>, StateError> {
        self.with(|opened| opened.holdings.read(holding))
    }

    fn find_chunk(&self, hash: &[u8; 32], max: usize) -> Result<Vec<Whereabouts>, StateError> {
        self.with(|opened| opened.holdings.find(hash, max))
    }
}

impl StateDb {
    /// Runs `call`, opening the database anew first if an earlier write failed.
    fn with<T>(&self, call: impl FnOnce(&mut Opened) -> Result<T, Fault>) -> Result<T, StateError> {
        let mut slot = self.opened.lock();
        let opened = match slot.take() {
            Some(opened) => opened,
            None => {
                // What the failed write left was never told to be committed: nothing to keep.
                let (opened, _) = guarded(|| Opened::open(&self.dir, None))
                    .map_err(|f| StateError::opening(&self.dir, f))?;
                tracing::warn!("state database opened anew after a failed write");
                opened
            }
        };
        let opened = slot.insert(opened);
        let answer = guarded(|| call(opened)).map_err(|fault| StateError::using(&self.dir, fault));
        if opened.refuses_writes() {
            *slot = None;
        }
        answer
    }
}

/// Runs a call of the engine. It panics over some damage in its files, which is damage all the same.
fn guarded<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Fault::shape("the database engine gave up on its files")))
}
