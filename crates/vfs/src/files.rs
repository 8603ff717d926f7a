//! Open files: one shared [`OpenFile`] per open node, one [`Handle`] per open file description.

use crate::errno::{Errno, Result};
use crate::request::{Fh, Opened};
use crate::transfer::Transfer;
use crate::volume::{Hold, State, Volume};
use lockstep_core::planted::{self, Bug};
use lockstep_core::{NodeId, limits};
use lockstep_disk::DiskFile;
use parking_lot::{Mutex, RwLock};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The bits of open(2) that say what for.
pub(crate) const O_ACCMODE: i32 = 0o3;
/// `O_WRONLY` of open(2).
pub(crate) const O_WRONLY: i32 = 0o1;
/// `O_RDWR` of open(2).
pub(crate) const O_RDWR: i32 = 0o2;
/// `O_EXCL` of open(2).
pub(crate) const O_EXCL: i32 = 0o200;
/// `O_TRUNC` of open(2).
pub(crate) const O_TRUNC: i32 = 0o1000;

/// A reader that opened a file this recently is in the middle of reading it: new content from a
/// peer waits for it, so that it sees one version from start to end. Older handles follow.
pub(crate) const READER_GRACE: Duration = Duration::from_millis(500);

/// How long a file replaced by a rename can still be opened by who has just looked it up.
const REPLACED_GRACE: Duration = Duration::from_secs(2);
/// Files held so at a time.
const REPLACED_MAX: usize = 64;

/// A node that is open, whoever opened it and however often.
pub(crate) struct OpenFile {
    pub node: NodeId,
    /// The backing file; `None` while the content is absent. Replaced when new content arrives.
    pub file: RwLock<Option<Arc<dyn DiskFile>>>,
    /// Held shared while writing, exclusively while the content is described or replaced.
    pub writing: RwLock<()>,
    pub users: Mutex<Users>,
}

/// Who has the file open.
#[derive(Default)]
pub(crate) struct Users {
    pub handles: usize,
    pub writers: usize,
    /// When the handles still open were opened by the volume's clock, the last ones only.
    pub opened: Vec<(u64, Duration)>,
}

/// One open file description.
pub(crate) struct Handle {
    pub id: u64,
    pub open: Arc<OpenFile>,
    pub writable: bool,
    /// Whether the kernel reads and writes its bytes by itself.
    pub passed: AtomicBool,
    /// What it has begun to read while that was on its way, and not read to the end.
    pub begun: Mutex<Option<Arc<Transfer>>>,
}

impl OpenFile {
    pub(crate) fn new(node: NodeId, file: Option<Arc<dyn DiskFile>>) -> Arc<Self> {
        Arc::new(OpenFile {
            node,
            file: RwLock::new(file),
            writing: RwLock::new(()),
            users: Mutex::default(),
        })
    }

    /// The backing file, if the content is here.
    pub(crate) fn resident(&self) -> Option<Arc<dyn DiskFile>> {
        self.file.read().clone()
    }

    /// How long from `now` until no reader is in the middle of reading.
    pub(crate) fn readers_done_in(&self, now: Duration) -> Option<Duration> {
        let users = self.users.lock();
        let newest = users.opened.iter().map(|(_, at)| *at).max()?;
        READER_GRACE.checked_sub(now.saturating_sub(newest)).filter(|left| !left.is_zero())
    }
}

impl Volume {
    /// Whether an operation on `node` may have to wait for a peer.
    pub fn may_wait(&self, node: NodeId) -> bool {
        let absent = {
            let state = self.read_state();
            let file = state.replica.tree.node(node).and_then(|n| n.file());
            file.is_some_and(|file| !file.resident)
        };
        absent || self.replacing.contains(node)
    }

    /// Whether an operation on `fh` may have to wait for a peer.
    pub fn may_wait_fh(&self, fh: Fh) -> bool {
        let waits =
            |open: &OpenFile| open.file.read().is_none() || self.replacing.contains(open.node);
        self.handle(fh).is_ok_and(|handle| waits(&handle.open))
    }

    /// Opens a file; `flags` as of open(2).
    pub fn open(&self, node: NodeId, flags: i32) -> Result<Opened> {
        let writable = matches!(flags & O_ACCMODE, O_WRONLY | O_RDWR);
        let truncates = flags & O_TRUNC != 0 && writable;
        let (open, opened) = {
            let state = self.state_to_open(node);
            if writable && self.is_only_kept(&state, node) {
                return Err(Errno::Stale);
            }
            let open = self.open_in(&state, node)?;
            let opened = self.add_handle(&state, &open, flags);
            (open, opened)
        };
        self.close_moment(&open);
        let prepared = match (truncates, writable) {
            (true, _) => self.resize(&open, 0),
            (false, true) => self.make_resident(&open).map(drop),
            (false, false) => Ok(()),
        };
        match prepared {
            Ok(()) => {
                let direct = open.resident().is_none() || (opened.direct && !writable);
                Ok(Opened { direct, ..opened })
            }
            Err(error) => {
                self.release(opened.fh);
                Err(error)
            }
        }
    }

    /// Whether `node` has lost its name and nobody writes to it: its bytes may be kept for a peer,
    /// and who comes to write looks the name up again.
    fn is_only_kept(&self, state: &State, node: NodeId) -> bool {
        let unlinked = state.replica.tree.node(node).is_some_and(|n| n.is_unlinked());
        unlinked && !self.is_being_written(node)
    }

    /// Whether anybody has `node` open for writing.
    pub(crate) fn is_being_written(&self, node: NodeId) -> bool {
        let written = |open: &Arc<OpenFile>| open.users.lock().writers > 0;
        self.open_files.lock().get(&node).is_some_and(written)
    }

    /// The open file of `node`, kept open until [`Volume::close_moment`].
    pub(crate) fn open_for_moment(&self, node: NodeId) -> Result<Arc<OpenFile>> {
        self.open_in(&self.read_state(), node)
    }

    fn open_in(&self, state: &State, node: NodeId) -> Result<Arc<OpenFile>> {
        let mut open_files = self.open_files.lock();
        if let Some(open) = open_files.get(&node) {
            open.users.lock().handles += 1;
            return Ok(open.clone());
        }
        let file = self.open_below(state, node)?;
        let open = OpenFile::new(node, file);
        open.users.lock().handles += 1;
        open_files.insert(node, open.clone());
        Ok(open)
    }

    pub(crate) fn open_below(
        &self,
        state: &State,
        node: NodeId,
    ) -> Result<Option<Arc<dyn DiskFile>>> {
        let stands = state.replica.tree.node(node).ok_or(Errno::Stale)?;
        let body = match stands.file() {
            Some(body) => body,
            None if stands.dir().is_some() => return Err(Errno::IsDir),
            None => return Err(Errno::NoSuchOffset),
        };
        if !body.resident {
            return Ok(None);
        }
        if let Some(path) = state.replica.tree.path(node) {
            return Ok(Some(self.disk.open(&path)?));
        }
        let held = state.replaced.iter().rev().find(|(_, id, _)| *id == node);
        held.map(|(_, _, file)| Some(file.clone())).ok_or(Errno::Stale)
    }

    /// `node`, shown at `path`, is about to be replaced by a rename.
    pub(crate) fn hold_replaced(&self, state: &mut State, node: NodeId, path: &Path) {
        self.drop_replaced(state);
        let resident =
            state.replica.tree.node(node).and_then(|n| n.file()).is_some_and(|f| f.resident);
        if resident && let Ok(file) = self.disk.open(path) {
            state.replaced.push_back((self.clock.running(), node, file));
        }
    }

    /// Lets go of files that were replaced a while ago.
    pub(crate) fn drop_replaced(&self, state: &mut State) {
        let now = self.clock.running();
        let old = |state: &State| {
            let oldest = state.replaced.front();
            oldest.is_some_and(|(at, ..)| now.saturating_sub(*at) > REPLACED_GRACE)
        };
        while state.replaced.len() >= REPLACED_MAX || old(state) {
            state.replaced.pop_front();
        }
    }

    pub(crate) fn close_moment(&self, open: &Arc<OpenFile>) {
        let mut open_files = self.open_files.lock();
        let mut users = open.users.lock();
        users.handles -= 1;
        if users.handles == 0 {
            drop(users);
            open_files.remove(&open.node);
        }
    }

    pub(crate) fn add_handle(&self, state: &State, open: &Arc<OpenFile>, flags: i32) -> Opened {
        let id = self.new_handle();
        let writable = matches!(flags & O_ACCMODE, O_WRONLY | O_RDWR);
        let passed = state.passed.join(open.node, flags, writable);
        {
            let now = self.clock.running();
            let mut users = open.users.lock();
            users.handles += 1;
            users.writers += usize::from(writable);
            users.opened.retain(|(_, at)| now.saturating_sub(*at) < READER_GRACE);
            users.opened.push((id, now));
        }
        let handle = Handle {
            id,
            open: open.clone(),
            writable,
            passed: AtomicBool::new(passed),
            begun: Mutex::default(),
        };
        self.handles.write().insert(id, Arc::new(handle));
        // What is empty may be at another length the next moment, with its bytes on their way:
        // a read through the kernel's pages would be filled up to that.
        let empty = state.replica.tree.node(open.node).is_none_or(|n| n.size_bytes() == 0);
        let direct = open.resident().is_none() || (empty && !writable && !passed);
        Opened { fh: Fh(id), keep_cache: true, direct, passed }
    }

    pub(crate) fn handle(&self, fh: Fh) -> Result<Arc<Handle>> {
        self.handles.read().get(&fh.0).cloned().ok_or(Errno::BadHandle)
    }

    pub(crate) fn open_disk_file(&self, node: NodeId) -> Option<Arc<dyn DiskFile>> {
        self.open_files.lock().get(&node).and_then(|open| open.resident())
    }

    /// Called at each close(2) of a descriptor: nothing to do that release does not do better.
    pub fn flush(&self, fh: Fh) -> Result<()> {
        let handle = self.handle(fh)?;
        // What may be written to through a mapping is complete once it is closed.
        if handle.writable && !self.read_state().passed.is_mapped(handle.open.node) {
            self.describe_small(&handle.open);
        }
        Ok(())
    }

    /// The last descriptor of a handle was closed.
    pub fn release(&self, fh: Fh) {
        let Some(handle) = self.handles.write().remove(&fh.0) else { return };
        self.passed_left(&handle);
        let open = &handle.open;
        let last_writer = {
            let mut users = open.users.lock();
            users.writers -= usize::from(handle.writable);
            users.opened.retain(|(id, _)| *id != handle.id);
            handle.writable && users.writers == 0
        };
        if last_writer {
            let mut state = self.write_state();
            state.announce.closed(open.node, self.now_ms());
            let dirty = state.replica.tree.node(open.node).and_then(|n| n.file());
            if dirty.is_none_or(|file| !file.dirty) {
                state.held.remove(&open.node);
            } else if state.held.contains_key(&open.node) {
                let until_ms = self.now_ms() + limits::DESCRIBE_HOLD_MS;
                let hold = Hold { until_ms, longest_ms: limits::DESCRIBE_HOLD_MS };
                state.held.insert(open.node, hold);
            }
            drop(state);
            self.work.raise();
        }
        self.replacing.reader_left();
        self.close_moment(open);
        self.forget_unlinked(open.node);
    }

    pub(crate) fn forget_unlinked(&self, node: NodeId) {
        let unlinked = self.read_state().replica.tree.node(node).is_some_and(|n| n.is_unlinked());
        if unlinked {
            let mut state = self.write_state();
            state.announce.forget(node);
            if !self.open_files.lock().contains_key(&node) {
                self.transfers.cancel(node);
            }
        }
    }

    /// Makes a file's bytes and its node durable.
    pub fn fsync(&self, fh: Fh, datasync: bool) -> Result<()> {
        let handle = self.handle(fh)?;
        let resident = handle.open.resident();
        if let Some(file) = resident.filter(|_| !planted::has(Bug::FsyncNothing)) {
            match datasync {
                true => file.sync_data()?,
                false => file.sync_all()?,
            }
        }
        self.describe_small(&handle.open);
        self.write_state().announce.hasten(handle.open.node, self.now_ms());
        self.work.raise();
        self.commit()?;
        Ok(self.db.sync()?)
    }

    /// Announces a small written file at once, in the caller's thread: it takes less than waking
    /// another.
    fn describe_small(&self, open: &Arc<OpenFile>) {
        self.notice(open.node);
        let small = {
            let state = self.read_state();
            let file = state.replica.tree.node(open.node).and_then(|n| n.file());
            file.is_some_and(|f| f.dirty && f.live_size_bytes <= limits::INLINE_CONTENT_MAX_BYTES)
        };
        let quiet = small && open.users.lock().writers <= 1;
        if quiet && self.write_state().announce.closed(open.node, self.now_ms()) {
            self.describe_open(open);
        }
    }
}
