//! One volume: its state, the disk below it, and what is open.

use crate::clock::{Clock, SystemClock};
use crate::errno::{Errno, Result};
use crate::files::{Handle, OpenFile};
use crate::replacing::Replacing;
use crate::request::{Device, KernelCache, Stat};
use crate::residency::Residency;
use crate::signal::Signal;
use crate::transfers::Transfers;
use lockstep_core::{
    Announcements, EntryName, Kind, LogCursor, NodeId, Replica, Slot, Timespec, limits,
};
use lockstep_disk::state::{StateError, StateStore};
use lockstep_disk::{Disk, DiskFile, DiskUsage, FileType};
use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Where a volume's first content comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// This replica creates the volume from what the directory holds.
    Created,
    /// This replica joins; what the directory holds is merged, the volume's names win.
    Joining,
    /// The volume was open here before.
    Existing,
}

/// Why a volume could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state database refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state database holds something this version does not understand.
    #[error("the volume's state is damaged ({what}); move its state directory aside to rebuild it")]
    Damaged {
        /// What did not decode.
        what: String,
    },
    /// The backing directory could not be read.
    #[error("cannot read the backing directory: {0}; check its permissions and its disk")]
    Scan(#[from] io::Error),
}

impl OpenError {
    /// Whether the state database is damaged: moving it aside and rebuilding it helps.
    pub fn is_damage(&self) -> bool {
        match self {
            OpenError::State(error) => error.is_damage(),
            OpenError::Damaged { .. } => true,
            OpenError::Scan(_) => false,
        }
    }
}

/// What `lockstep status` tells of a volume.
#[derive(Clone, Debug, Default)]
pub struct VolumeStatus {
    /// Nodes in the tree.
    pub nodes: u64,
    /// Files with local writes that are not announced yet.
    pub unannounced: u64,
    /// Local changes not numbered yet.
    pub unnumbered: u64,
    /// Files whose newest content is not here yet and is to come.
    pub absent: u64,
    /// Bytes of that content.
    pub absent_bytes: u64,
    /// Nodes that are pinned.
    pub pins: u64,
}

/// A volume as its local callers and its pump see it. See the crate's documentation for locks.
pub struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) db: Box<dyn StateStore>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Drained and not yet written down, in order.
    pub(crate) committing: Mutex<Vec<crate::commit::Step>>,
    /// Of each peer's log: what is applied here and written down.
    pub(crate) applied: Mutex<BTreeMap<Slot, LogCursor>>,
    pub(crate) tally: crate::apply::Tally,
    pub(crate) progress: crate::begun::Progress,
    state: RwLock<State>,
    pub(crate) handles: RwLock<HashMap<u64, Arc<Handle>>>,
    pub(crate) open_files: Mutex<HashMap<NodeId, Arc<OpenFile>>>,
    next_handle: AtomicU64,
    cache: RwLock<Option<Arc<dyn KernelCache>>>,
    /// Content on its way here.
    pub transfers: Transfers,
    pub(crate) inline_contents: Mutex<crate::inline::InlineContents>,
    /// Raised when there is something to announce, number or ship.
    pub work: Signal,
    pub(crate) drained: Condvar,
    pub(crate) drained_lock: Mutex<()>,
    pub(crate) replacing: Arc<Replacing>,
    pub(crate) privileged: bool,
    /// Whether the kernel may read and write new files by itself.
    pub(crate) passing: AtomicBool,
    /// When it was opened, by its clock.
    pub(crate) started: Duration,
    pub(crate) log_grown: Signal,
    pub(crate) closing: AtomicBool,
    /// Changes kept in the log for peers that are away, at most.
    pub(crate) log_kept_max: AtomicU64,
    /// Last change of the own log that was synced.
    pub(crate) durable: AtomicU64,
    /// Whether this run began without any state of earlier ones.
    pub(crate) began_without_state: bool,
}

/// Everything that one mutex guards.
pub(crate) struct State {
    pub replica: Replica,
    pub announce: Announcements,
    /// Files with content to fetch or to install.
    pub wanted: BTreeSet<NodeId>,
    /// Which contents are to be here.
    pub residency: Residency,
    /// Contents that no peer has any more, and since when, in seconds since 1970: their successors
    /// are on the way.
    pub gone: HashMap<NodeId, (lockstep_core::Version, u64)>,
    /// Files that the kernel reads and writes by itself.
    pub passed: crate::passed::PassedFiles,
    /// Files that the log waits for, a moment at most.
    pub held: HashMap<NodeId, Hold>,
    /// When the oldest unnumbered change was made.
    pub pending_since_ms: Option<u64>,
    /// Files just replaced by a rename, still open below: a caller that has looked the name up may
    /// open what it found, as on any filesystem.
    pub replaced: VecDeque<(Duration, NodeId, Arc<dyn DiskFile>)>,
    /// Effects of applied changes that the disk has refused so far, in order.
    pub effects: std::collections::VecDeque<lockstep_core::Effect>,
    /// The change of a peer that they are of, unless they follow from one made here.
    pub doing: Option<crate::begun::Doing>,
    /// Removed files whose bytes a peer may still ask for, by the Lamport time of the removal.
    pub kept: Vec<(u64, String)>,
    /// Copies of what concurrent edits overruled, to be marked as conflicts.
    pub unmarked: Vec<crate::conflicts::Unmarked>,
    /// Packed values of refs that a peer's loose refs are about to hide.
    pub hidden: Vec<crate::conflicts::Hidden>,
    /// What peers' changes took away.
    pub trash: crate::trash::Trash,
}

impl Volume {
    /// Opens the volume over `disk` with its state in `db`: reads the state, compares it with the
    /// backing tree, and takes in what differs as local changes.
    pub fn start(
        disk: Arc<dyn Disk>,
        db: impl StateStore,
        slot: Slot,
        host: &str,
        origin: Origin,
    ) -> std::result::Result<Arc<Volume>, OpenError> {
        let clock = Arc::new(SystemClock::default());
        Volume::start_by(clock, disk, Box::new(db), slot, host, origin)
    }

    /// The same, by a clock that is not the system's.
    pub fn start_by(
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
        db: Box<dyn StateStore>,
        slot: Slot,
        host: &str,
        origin: Origin,
    ) -> std::result::Result<Arc<Volume>, OpenError> {
        let crate::commit::Loaded { mut replica, known, below } =
            crate::commit::load(&*db, slot, &*disk)?;
        replica.start(crate::catch_up::start_of_run(&*clock));
        let began_without_state = !known && origin == Origin::Existing;
        if began_without_state {
            replica.start_without_state();
        }
        replica.tree.name_host(slot, host);
        let residency = Residency::load(&*db)?;
        let mut wanted = crate::scan::wanted(&replica);
        wanted.retain(|node| residency.is_due(&replica.tree, *node));
        let trash = crate::trash::load(db.records("trash/")?, &*disk, time_of_day(&*clock))?;
        let state = State {
            replica,
            announce: Announcements::default(),
            wanted,
            residency,
            gone: HashMap::new(),
            passed: Default::default(),
            held: HashMap::new(),
            pending_since_ms: None,
            replaced: VecDeque::new(),
            effects: Default::default(),
            doing: None,
            kept: Vec::new(),
            unmarked: Vec::new(),
            hidden: Vec::new(),
            trash,
        };
        let volume = Arc::new(Volume {
            disk,
            db,
            committing: Mutex::default(),
            applied: Mutex::default(),
            tally: Default::default(),
            progress: Default::default(),
            state: RwLock::new(state),
            handles: RwLock::default(),
            open_files: Mutex::default(),
            next_handle: AtomicU64::new(1),
            cache: RwLock::default(),
            transfers: Transfers::default(),
            inline_contents: Mutex::default(),
            work: Signal::default(),
            drained: Condvar::new(),
            drained_lock: Mutex::new(()),
            replacing: Arc::default(),
            privileged: rustix::process::geteuid().is_root(),
            passing: AtomicBool::new(false),
            started: clock.running(),
            clock,
            log_grown: Signal::default(),
            closing: AtomicBool::new(false),
            log_kept_max: AtomicU64::new(limits::LOG_KEPT_MAX),
            durable: AtomicU64::new(0),
            began_without_state,
        });
        volume.scan(origin, below)?;
        volume.commit().map_err(|errno| io::Error::from_raw_os_error(errno.raw()))?;
        volume.queue_wanted();
        Ok(volume)
    }

    /// Connects the kernel's caches of the mount, in place of those of an earlier mount.
    pub fn set_kernel_cache(&self, cache: Arc<dyn KernelCache>) {
        *self.cache.write() = Some(cache);
    }

    pub(crate) fn cache(&self) -> Option<Arc<dyn KernelCache>> {
        self.cache.read().clone()
    }

    /// Runs `done` once the kernel knows of everything applied so far.
    pub fn after_invalidations(&self, done: Box<dyn FnOnce() + Send>) {
        match self.cache() {
            Some(cache) => cache.after(done),
            None => done(),
        }
    }

    pub(crate) fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(crate) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// The state for a local mutation: waits while more changes are pending than may be.
    pub(crate) fn mutate(&self) -> Result<RwLockWriteGuard<'_, State>> {
        loop {
            let state = self.state.write();
            if state.replica.pending_len() < limits::PENDING_CHANGES_MAX {
                return Ok(state);
            }
            drop(state);
            let mut waiting = self.drained_lock.lock();
            self.drained.wait_for(&mut waiting, Duration::from_millis(50));
            if self.closing.load(Ordering::Relaxed) {
                return Err(Errno::Io);
            }
        }
    }

    /// A local mutation is done: it is pending from now, and the pump hears of it.
    pub(crate) fn mutated(&self, mut state: RwLockWriteGuard<'_, State>) {
        state.pending_since_ms.get_or_insert(self.now_ms());
        let stale = self.follow_up(&mut state);
        drop(state);
        self.tell_kernel(stale);
        self.work.raise();
    }

    pub(crate) fn now(&self) -> Timespec {
        time_of_day(&*self.clock)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.running().as_millis() as u64
    }

    pub(crate) fn new_handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells whether a peer that can answer is connected.
    pub fn set_online(&self, online: bool) {
        self.transfers.set_online(online, self.clock.running());
    }

    /// What the kernel is told of `id`.
    pub(crate) fn stat(&self, state: &State, id: NodeId) -> Result<Stat> {
        self.replacing.answers(id);
        state.stat(id, &*self.disk)
    }

    /// `statvfs` of the disk below.
    pub fn statfs(&self) -> Result<DiskUsage> {
        Ok(self.disk.statfs()?)
    }

    /// Tells the volume of a peer before its first session: nothing it lacks is forgotten.
    pub fn add_peer(&self, slot: Slot, host: &str) {
        let mut state = self.state.write();
        state.replica.log.add_peer(slot);
        state.replica.tree.name_host(slot, host);
    }

    /// Figures for `status`.
    pub fn status(&self) -> VolumeStatus {
        let state = self.state.read();
        VolumeStatus {
            nodes: state.replica.tree.len() as u64,
            unannounced: state.announce.len() as u64,
            unnumbered: state.replica.pending_len() as u64,
            absent: state.lacking().count() as u64,
            absent_bytes: state.lacking().map(|(_, content, _)| content.size_bytes).sum(),
            pins: state.residency.pins(),
        }
    }
}

fn time_of_day(clock: &dyn Clock) -> Timespec {
    let now = clock.wall();
    Timespec { secs: now.as_secs() as i64, nanos: now.subsec_nanos() }
}

/// Why and until when pending changes wait for a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    /// When it ends, in milliseconds of the volume's clock.
    pub until_ms: u64,
    /// How long it may keep the oldest pending change waiting.
    pub longest_ms: u64,
}

impl State {
    pub(crate) fn stat(&self, id: NodeId, disk: &dyn Disk) -> Result<Stat> {
        let node = self.replica.tree.node(id).ok_or(Errno::Stale)?;
        let mut shown = Stat {
            node: id,
            kind: node.kind(),
            device: if node.kind() == Kind::Socket { self.device(id, disk) } else { None },
            perm: node.perm,
            times: node.times,
            size_bytes: node.size_bytes(),
            blocks: 0,
            nlink: node.nlink(),
        };
        if let Some(below) = self.passed.changed(id) {
            (shown.size_bytes, shown.blocks) = (below.size_bytes, below.blocks);
            shown.times.mtime = below.mtime;
            shown.times.ctime = shown.times.ctime.max(below.mtime);
            return Ok(shown);
        }
        shown.blocks = match node.file() {
            Some(file) if file.live_size_bytes > 0 => self.blocks(id, disk),
            Some(_) => 0,
            None => u64::from(node.dir().is_some()) * 8,
        };
        Ok(shown)
    }

    /// The device node that stands below under what peers take for a socket.
    fn device(&self, id: NodeId, disk: &dyn Disk) -> Option<Device> {
        let below = disk.stat(&self.replica.tree.path(id)?).ok()?;
        let is_block = below.file_type == FileType::BlockDevice;
        (is_block || below.file_type == FileType::CharDevice)
            .then_some(Device { is_block, rdev: below.rdev as u32 })
    }

    fn blocks(&self, id: NodeId, disk: &dyn Disk) -> u64 {
        let path = self.replica.tree.path(id);
        path.and_then(|path| disk.stat(&path).ok()).map_or(0, |stat| stat.blocks)
    }

    pub(crate) fn child(&self, parent: NodeId, name: &[u8]) -> Result<NodeId> {
        let dir = self.replica.tree.node(parent).ok_or(Errno::Stale)?.dir().ok_or(Errno::NotDir)?;
        dir.get(name).ok_or(Errno::NoEntry)
    }

    /// A name that may be created in `parent`, and its path.
    pub(crate) fn free_name(
        &self,
        parent: NodeId,
        name: &[u8],
    ) -> Result<(EntryName, std::path::PathBuf)> {
        let entry = EntryName::new(name)?;
        let dir = self.replica.tree.node(parent).ok_or(Errno::Stale)?;
        let entries = dir.dir().ok_or(Errno::NotDir)?;
        if dir.is_unlinked() {
            return Err(Errno::NoEntry);
        }
        if entries.get(name).is_some() {
            return Err(Errno::Exists);
        }
        if parent == NodeId::ROOT && name == PRIVATE_DIR {
            return Err(Errno::Perm);
        }
        let path = self.replica.tree.path_in(parent, name).ok_or(Errno::NoEntry)?;
        Ok((entry, path))
    }
}

/// The directory at the backing root that belongs to Lockstep; never shown.
pub(crate) const PRIVATE_DIR: &[u8] = b".lockstep";
