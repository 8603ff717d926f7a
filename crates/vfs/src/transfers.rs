//! All contents on their way to one volume: which are asked for, in what order, and who waits.

use crate::in_flight::{ChunkClaim, InFlight};
use crate::plan::{Piece, Run};
use crate::serve::holding_of;
use crate::transfer::Transfer;
use lockstep_core::planted::{self, Bug};
use lockstep_core::{ContentRef, NodeId, limits};
use lockstep_disk::Disk;
use lockstep_disk::chunk::CHUNK_AVG_BYTES;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Chunks, about, of all contents fetched in the background at a time: a huge one is alone. Each
/// takes 45 bytes of memory.
const CLAIMED_CHUNKS_MAX: u64 = 1 << 20;

/// Whether a background fetch may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It may.
    Yours,
    /// Another fetches this file.
    Taken,
    /// When others have ended: together they would take too much memory.
    Later,
}

/// A read that waits for bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub node: NodeId,
    pub offset: u64,
}

#[derive(Default)]
struct Queues {
    background: VecDeque<NodeId>,
    demands: VecDeque<Demand>,
    active: HashMap<NodeId, Arc<Transfer>>,
    /// Those that somebody may still work on, by their temporary files: of two that fill one file,
    /// one might write to it when the other's has been put in place.
    at_work: HashMap<String, Weak<Transfer>>,
    /// Files that a background fetch works on, one fetch a file so that no chunk comes twice, and
    /// about how many chunks each has.
    claimed: HashMap<NodeId, u64>,
    /// Files that have temporary files of contents no longer wanted: the chunks in them serve
    /// their successor.
    superseded: BTreeSet<NodeId>,
    /// Temporary files of small contents no longer wanted, which serve nobody.
    left: Vec<String>,
    /// When a peer that can answer was last connected, by the volume's clock; `None` while one is.
    offline_since: Option<Option<Duration>>,
}

impl Queues {
    /// The transfer of `content` into `node` that somebody works on, or a new one.
    fn resumed(&mut self, node: NodeId, content: ContentRef) -> Arc<Transfer> {
        let fresh = Transfer::new(node, content);
        let known = self.at_work.get(&fresh.temp).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|transfer| !transfer.is_spent()) {
            return known;
        }
        if self.at_work.len() >= 2 * self.active.len() + 64 {
            self.at_work.retain(|_, transfer| transfer.strong_count() > 0);
        }
        let fresh = Arc::new(fresh);
        self.at_work.insert(fresh.temp.clone(), Arc::downgrade(&fresh));
        fresh
    }

    /// The temporary file `name` goes, whoever works on it.
    fn spend(&mut self, name: &str) {
        if let Some(transfer) = self.at_work.remove(name).and_then(|transfer| transfer.upgrade()) {
            transfer.spend();
        }
    }

    /// `transfer` will not be completed: its chunks serve the next content of `node`.
    fn leave(&mut self, node: NodeId, transfer: &Transfer) {
        if !transfer.is_planned() {
            return;
        }
        match transfer.content.size_bytes > limits::INLINE_CONTENT_MAX_BYTES {
            true => drop(self.superseded.insert(node)),
            false => self.left.push(transfer.temp.clone()),
        }
    }
}

/// All transfers of a volume.
#[derive(Default)]
pub struct Transfers {
    queues: Mutex<Queues>,
    in_flight: InFlight,
    /// Signalled once for each background fetch that is queued.
    to_fetch: Condvar,
    /// Signalled once for each read that begins to wait.
    to_serve: Condvar,
    /// Signalled when something arrived or went.
    progress: Condvar,
    /// Figures for `status`.
    pub counts: TransferCounts,
}

/// What transfers have done since the start.
#[derive(Default)]
pub struct TransferCounts {
    /// Contents fetched and put in place.
    pub fetched: AtomicU64,
    /// Bytes received for them.
    pub received_bytes: AtomicU64,
    /// Bytes that were here already, in other files or earlier versions.
    pub reused_bytes: AtomicU64,
    /// Bytes that an interrupted transfer had left.
    pub resumed_bytes: AtomicU64,
    /// Chunks refused because their bytes were not what their hash says.
    pub refused_chunks: AtomicU64,
    /// Background fetches under way.
    pub under_way: AtomicU64,
    /// Most background fetches under way at one time.
    pub under_way_peak: AtomicU64,
}

impl Transfers {
    pub(crate) fn queue(&self, node: NodeId, first: bool) {
        let mut queues = self.queues.lock();
        if planted::has(Bug::DropFetch) && queues.background.len() > 2 {
            return;
        }
        match first {
            true => queues.background.push_front(node),
            false => queues.background.push_back(node),
        }
        drop(queues);
        self.to_fetch.notify_one();
    }

    /// The transfer of `content` into `node`, begun or continued.
    pub(crate) fn transfer(&self, node: NodeId, content: ContentRef) -> Arc<Transfer> {
        let mut queues = self.queues.lock();
        match queues.active.get(&node) {
            Some(transfer) if transfer.content == content && !transfer.is_spent() => {
                transfer.clone()
            }
            _ => {
                let transfer = queues.resumed(node, content);
                if let Some(old) = queues.active.insert(node, transfer.clone()) {
                    queues.leave(node, &old);
                }
                transfer
            }
        }
    }

    /// `transfer` into `node` has begun. If it was given up before, what it leaves is swept.
    pub(crate) fn begun(&self, node: NodeId, transfer: &Transfer) {
        let mut queues = self.queues.lock();
        if queues.active.get(&node).is_none_or(|active| active.temp != transfer.temp) {
            queues.leave(node, transfer);
        }
    }

    /// Nothing is to be fetched for `node` any more.
    pub(crate) fn cancel(&self, node: NodeId) {
        let mut queues = self.queues.lock();
        let Some(gone) = queues.active.remove(&node) else { return };
        queues.leave(node, &gone);
        drop(queues);
        self.progress.notify_all();
    }

    /// The file of `transfer` is about to be removed.
    pub(crate) fn drop_transfer(&self, node: NodeId, transfer: &Transfer) {
        let mut queues = self.queues.lock();
        if queues.active.get(&node).is_some_and(|active| active.temp == transfer.temp) {
            queues.active.remove(&node);
        }
        queues.spend(&transfer.temp);
        queues.superseded.insert(node);
        drop(queues);
        self.progress.notify_all();
    }

    /// Temporary files of `node` are left of contents that are no longer wanted.
    pub(crate) fn left_behind(&self, node: NodeId) {
        self.queues.lock().superseded.insert(node);
    }

    /// Whether temporary files of `node` are left of contents no longer wanted; not told twice.
    pub(crate) fn take_superseded(&self, node: NodeId) -> bool {
        self.queues.lock().superseded.remove(&node)
    }

    /// Those nodes for which nothing is on its way that the files could serve; not told twice.
    pub(crate) fn take_idle_superseded(&self) -> Vec<NodeId> {
        let Queues { superseded, active, .. } = &mut *self.queues.lock();
        let idle: Vec<_> = superseded.iter().filter(|n| !active.contains_key(n)).copied().collect();
        superseded.retain(|node| active.contains_key(node));
        idle
    }

    /// Temporary files that serve nobody; not told twice.
    pub(crate) fn take_left(&self) -> Vec<String> {
        std::mem::take(&mut self.queues.lock().left)
    }

    /// Removes the temporary file `name`, unless a transfer under way fills it: one may have begun
    /// anew for a content that was given up before.
    pub(crate) fn remove_temp(&self, name: &str, disk: &dyn Disk) -> io::Result<()> {
        let mut queues = self.queues.lock();
        let node = holding_of(name).map(|holding| holding.node);
        let active = node.and_then(|node| queues.active.get(&node));
        if active.is_some_and(|transfer| transfer.temp == name) {
            return Ok(());
        }
        queues.spend(name);
        match disk.temp_remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The transfer of `node` is complete and in place.
    pub(crate) fn finish(&self, node: NodeId) {
        self.queues.lock().active.remove(&node);
        self.progress.notify_all();
    }

    /// The chunks of `run` that are missing and that nobody else is fetching, for one fetch; all
    /// of them if a reader waits.
    pub fn claim_chunks(&self, transfer: &Transfer, run: &Run, waited_for: bool) -> ChunkClaim<'_> {
        match waited_for {
            true => self.in_flight.share(transfer, run),
            false => self.in_flight.claim(transfer, run),
        }
    }

    pub(crate) fn not_in_flight(&self, pieces: Vec<Piece>) -> Vec<Piece> {
        self.in_flight.without(pieces)
    }

    /// Takes `node`, with a content of `size_bytes`, for one background fetch.
    pub fn claim(&self, node: NodeId, size_bytes: u64) -> Claim {
        let mut queues = self.queues.lock();
        if queues.claimed.contains_key(&node) {
            return Claim::Taken;
        }
        let chunks = size_bytes / CHUNK_AVG_BYTES as u64;
        let others: u64 = queues.claimed.values().sum();
        if others > 0 && others + chunks > CLAIMED_CHUNKS_MAX {
            return Claim::Later;
        }
        queues.claimed.insert(node, chunks);
        Claim::Yours
    }

    /// The fetch that claimed it has ended.
    pub fn release(&self, node: NodeId) {
        self.queues.lock().claimed.remove(&node);
    }

    pub(crate) fn next_background(&self, timeout: Duration) -> Option<NodeId> {
        let mut queues = self.queues.lock();
        if queues.background.is_empty() {
            self.to_fetch.wait_for(&mut queues, timeout);
        }
        queues.background.pop_front()
    }

    pub(crate) fn next_demand(&self, timeout: Duration) -> Option<Demand> {
        let mut queues = self.queues.lock();
        if queues.demands.is_empty() {
            self.to_serve.wait_for(&mut queues, timeout);
        }
        queues.demands.pop_front()
    }

    pub(crate) fn demand(&self, demand: Demand) {
        let mut queues = self.queues.lock();
        queues.demands.retain(|d| (d.node, d.offset) != (demand.node, demand.offset));
        queues.demands.push_back(demand);
        drop(queues);
        self.to_serve.notify_one();
    }

    /// Something arrived or went: whoever waits looks again.
    pub fn progressed(&self) {
        self.progress.notify_all();
    }

    /// Wakes everybody who waits for anything: the end has come.
    pub(crate) fn wake_all(&self) {
        self.to_fetch.notify_all();
        self.to_serve.notify_all();
        self.progress.notify_all();
    }

    /// Waits until something arrived or went, at most `timeout`.
    pub fn wait_progress(&self, timeout: Duration) {
        let mut queues = self.queues.lock();
        self.progress.wait_for(&mut queues, timeout);
    }

    /// Tells whether a peer that can answer is connected.
    pub(crate) fn set_online(&self, online: bool, now: Duration) {
        let mut queues = self.queues.lock();
        queues.offline_since = match (online, queues.offline_since) {
            (true, _) => Some(None),
            (false, Some(Some(since))) => Some(Some(since)),
            (false, _) => Some(Some(now)),
        };
        drop(queues);
        self.progress.notify_all();
    }

    /// For how long no peer has been connected; zero while one is.
    pub(crate) fn offline_for(&self, now: Duration, start: Duration) -> Duration {
        match self.queues.lock().offline_since {
            Some(None) => Duration::ZERO,
            Some(Some(since)) => now.saturating_sub(since),
            None => now.saturating_sub(start),
        }
    }

    /// Every figure with its name.
    pub fn figures(&self) -> BTreeMap<&'static str, u64> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BTreeMap::from([
            ("contents_fetched", read(&self.counts.fetched)),
            ("content_bytes_received", read(&self.counts.received_bytes)),
            ("content_bytes_reused", read(&self.counts.reused_bytes)),
            ("content_bytes_resumed", read(&self.counts.resumed_bytes)),
            ("chunks_refused", read(&self.counts.refused_chunks)),
            ("background_fetches_peak", read(&self.counts.under_way_peak)),
        ])
    }
}
