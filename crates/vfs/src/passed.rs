//! Files whose bytes the kernel reads and writes by itself (FUSE passthrough). Nobody is told of
//! such a write: the file below is asked what it holds.
//!
//! The kernel wants all handles of a file to be of one kind. So a file is passed from the moment it
//! is made until nobody has it open any more, and never one that was there before. Only who makes a
//! file afresh gets it so: what is made so is written once and closed, while what is held open for
//! long, a database or a log, must follow what a peer writes to it. And only who cannot map it to
//! write: such a mapping is one of the file below, and outlives the handle without anybody knowing.

use crate::errno::Result;
use crate::files::{Handle, O_ACCMODE, O_EXCL, O_RDWR, O_TRUNC, O_WRONLY};
use crate::request::Fh;
use crate::volume::{State, Volume};
use lockstep_core::{NodeId, Timespec};
use lockstep_disk::{BackingStat, DiskFile};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const O_APPEND: i32 = 0o2000;
/// How often a file that is held open is asked.
const ASKED: Duration = Duration::from_secs(1);
/// How often in turn a description of what was written to meanwhile is thrown away.
const MOVED_MAX: u8 = 3;

/// All files that are passed.
#[derive(Default)]
pub(crate) struct PassedFiles(Mutex<HashMap<NodeId, Passed>>);

struct Passed {
    file: Arc<dyn DiskFile>,
    handles: usize,
    writers: usize,
    /// What the volume knows of its bytes.
    seen: Seen,
    /// Whether a mapping may have changed bytes since without any trace.
    mapped: bool,
    /// How often in turn it was written to while it was described.
    moved: u8,
}

/// What tells one state of a file's bytes from another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    size_bytes: u64,
    mtime: Timespec,
}

impl From<&BackingStat> for Seen {
    fn from(stat: &BackingStat) -> Seen {
        Seen { size_bytes: stat.size_bytes, mtime: stat.mtime }
    }
}

/// Whether who opens a file that is not there yet with `flags` of open(2) may have it passed.
pub(crate) fn makes_afresh(flags: i32) -> bool {
    flags & O_ACCMODE == O_WRONLY && flags & (O_EXCL | O_TRUNC) != 0 && flags & O_APPEND == 0
}

impl PassedFiles {
    /// The new file of `node` is passed from now on.
    pub(crate) fn start(&self, node: NodeId, file: &Arc<dyn DiskFile>) -> io::Result<()> {
        let seen = Seen::from(&file.stat()?);
        let passed =
            Passed { file: file.clone(), handles: 0, writers: 0, seen, mapped: false, moved: 0 };
        self.0.lock().insert(node, passed);
        Ok(())
    }

    /// A further handle of `node`, which is passed if the answer is true.
    pub(crate) fn join(&self, node: NodeId, flags: i32, writable: bool) -> bool {
        let mut files = self.0.lock();
        let Some(passed) = files.get_mut(&node) else { return false };
        passed.handles += 1;
        passed.writers += usize::from(writable);
        passed.mapped |= flags & O_RDWR != 0;
        true
    }

    fn leave(&self, node: NodeId, writable: bool) {
        let mut files = self.0.lock();
        let Some(passed) = files.get_mut(&node) else { return };
        passed.handles -= 1;
        passed.writers -= usize::from(writable);
        if passed.handles == 0 {
            files.remove(&node);
        }
    }

    /// What stands below of `node`, if it is passed and not as the volume knows it.
    pub(crate) fn changed(&self, node: NodeId) -> Option<BackingStat> {
        let files = self.0.lock();
        let passed = files.get(&node)?;
        let stat = passed.file.stat().ok()?;
        (Seen::from(&stat) != passed.seen).then_some(stat)
    }

    /// The volume shows `node` with this size and time now.
    pub(crate) fn knows(&self, node: NodeId, size_bytes: u64, mtime: Timespec) {
        if let Some(passed) = self.0.lock().get_mut(&node) {
            passed.seen = Seen { size_bytes, mtime };
        }
    }

    /// Whether somebody may be writing to `node` at any moment.
    pub(crate) fn is_written(&self, node: NodeId) -> bool {
        self.0.lock().get(&node).is_some_and(|passed| passed.writers > 0)
    }

    /// Whether bytes of `node` may have changed through a mapping, of which no time tells.
    pub(crate) fn is_mapped(&self, node: NodeId) -> bool {
        self.0.lock().get(&node).is_some_and(|passed| passed.mapped)
    }

    fn mapped(&self, node: NodeId) -> Option<BackingStat> {
        let files = self.0.lock();
        files.get(&node).filter(|passed| passed.mapped)?.file.stat().ok()
    }

    /// Whether `node` is passed.
    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.0.lock().contains_key(&node)
    }

    /// What the volume knows of the bytes of `node`, if it is passed.
    pub(crate) fn seen(&self, node: NodeId) -> Option<Seen> {
        self.0.lock().get(&node).map(|passed| passed.seen)
    }

    /// Whether `node` was written to since it was last asked. A file that is written all the time
    /// is taken as it is found in the end.
    pub(crate) fn moves_on(&self, node: NodeId) -> bool {
        let mut files = self.0.lock();
        let Some(passed) = files.get_mut(&node) else { return false };
        let moved = passed.file.stat().is_ok_and(|stat| Seen::from(&stat) != passed.seen);
        passed.moved = if moved && passed.moved < MOVED_MAX { passed.moved + 1 } else { 0 };
        passed.moved > 0
    }

    fn written(&self) -> Vec<NodeId> {
        let files = self.0.lock();
        files.iter().filter(|(_, passed)| passed.writers > 0).map(|(node, _)| *node).collect()
    }
}

impl State {
    /// Takes in what was written to `node` past the volume.
    pub(crate) fn notice(&mut self, node: NodeId, now_ms: u64) {
        let Some(stat) = self.passed.changed(node) else { return };
        self.passed.knows(node, stat.size_bytes, stat.mtime);
        self.take_in(node, &stat, now_ms);
    }

    /// Whether `node`, which was passed and as in `seen`, was written to and closed meanwhile.
    pub(crate) fn passed_on(&self, node: NodeId, seen: Option<Seen>) -> bool {
        let Some(seen) = seen.filter(|_| !self.passed.contains(node)) else { return false };
        let stands = self.replica.tree.node(node);
        let now = stands.map(|n| Seen { size_bytes: n.size_bytes(), mtime: n.times.mtime });
        now != Some(seen)
    }

    /// The file of `node` as it stands below is not announced yet.
    fn take_in(&mut self, node: NodeId, stat: &BackingStat, now_ms: u64) {
        let Some(stands) = self.replica.tree.node_mut(node) else { return };
        let ctime = stands.times.ctime.max(stat.mtime);
        stands.written(stat.mtime);
        stands.times.ctime = ctime;
        let named = !stands.links.is_empty();
        if let Some(file) = stands.file_mut() {
            file.live_size_bytes = stat.size_bytes;
        }
        if named {
            self.announce.wrote(node, now_ms);
        }
    }
}

impl Volume {
    /// Tells whether there is a mount whose kernel may read and write new files by itself.
    pub fn set_passing(&self, passing: bool) {
        self.passing.store(passing, Ordering::Relaxed);
    }

    /// Whether new files are read and written by the kernel itself.
    pub fn is_passing(&self) -> bool {
        self.passing.load(Ordering::Relaxed)
    }

    /// The file below that the kernel shall read and write for `fh`.
    pub fn passed_file(&self, fh: Fh) -> Result<Arc<dyn DiskFile>> {
        let handle = self.handle(fh)?;
        handle.open.resident().ok_or(crate::Errno::Io)
    }

    /// The kernel does not take the file of `fh`: its bytes go through the volume.
    pub fn not_passed(&self, fh: Fh) {
        if let Ok(handle) = self.handle(fh)
            && handle.passed.swap(false, Ordering::Relaxed)
        {
            self.read_state().passed.leave(handle.open.node, handle.writable);
        }
    }

    /// Takes in what was written past the volume, everywhere. Answers when to ask again.
    pub(crate) fn notice_all(&self) -> Option<Duration> {
        let written = self.read_state().passed.written();
        if written.is_empty() {
            return None;
        }
        let mut state = self.write_state();
        written.into_iter().for_each(|node| state.notice(node, self.now_ms()));
        Some(ASKED)
    }

    /// Takes in what was written to `node` past the volume.
    pub(crate) fn notice(&self, node: NodeId) {
        let changed = self.read_state().passed.changed(node).is_some();
        if changed {
            self.write_state().notice(node, self.now_ms());
            self.work.raise();
        }
    }

    /// A handle that was passed is closed.
    pub(crate) fn passed_left(&self, handle: &Handle) {
        if !handle.passed.load(Ordering::Relaxed) {
            return;
        }
        let node = handle.open.node;
        let mut state = self.write_state();
        state.notice(node, self.now_ms());
        let mapped = state.passed.mapped(node).filter(|_| handle.writable);
        if let Some(stat) = mapped {
            state.take_in(node, &stat, self.now_ms());
        }
        state.passed.leave(node, handle.writable);
        if !state.passed.contains(node) && state.wanted.contains(&node) {
            self.transfers.queue(node, false);
        }
    }
}
