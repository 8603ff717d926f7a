//! Content on its way here: what is asked for, which chunks have come, and who waits.
//!
//! A transfer fills a temporary file chunk by chunk, each verified before it counts. Readers take
//! verified bytes from it at once; the file takes the place of the placeholder, or of the content
//! shown so far, when all chunks are there.

use lockstep_core::{ContentRef, Manifest, NodeId, Version};
use lockstep_disk::{Disk, DiskFile, verify_chunk};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Chunk references remembered for announced contents, so that serving needs no second reading.
const MANIFEST_CHUNKS_MAX: usize = 200_000;

/// A content to be fetched.
#[derive(Clone)]
pub struct FetchJob {
    /// The file.
    pub node: NodeId,
    /// The bytes.
    pub content: ContentRef,
    /// Their version.
    pub version: Version,
    /// Where they go.
    pub transfer: Arc<Transfer>,
}

/// One content on its way.
pub struct Transfer {
    /// The bytes.
    pub content: ContentRef,
    /// Name of the temporary file.
    pub(crate) temp: String,
    plan: Mutex<Option<Plan>>,
    /// Whether a background fetch works on it.
    claimed: AtomicBool,
}

struct Plan {
    manifest: Manifest,
    /// Offset of each chunk in the file, and the end.
    offsets: Vec<u64>,
    have: Vec<bool>,
    missing: usize,
    file: Arc<dyn DiskFile>,
}

/// A run of missing chunks: one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First chunk.
    pub first: usize,
    /// Number of chunks.
    pub count: usize,
    /// Offset of the first byte.
    pub offset_bytes: u64,
    /// Length.
    pub len_bytes: u64,
}

impl Transfer {
    fn new(node: NodeId, content: ContentRef) -> Self {
        let temp = crate::serve::kept_name(node, &content);
        Transfer { content, temp, plan: Mutex::new(None), claimed: AtomicBool::new(false) }
    }

    /// Takes the transfer for one background fetch. False if another has it.
    pub fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// The fetch that claimed it has ended.
    pub fn release(&self) {
        self.claimed.store(false, Ordering::Release);
    }

    /// Whether the chunks are known.
    pub fn is_planned(&self) -> bool {
        self.plan.lock().is_some()
    }

    /// Starts with a verified manifest.
    pub(crate) fn begin(&self, manifest: Manifest, disk: &dyn Disk) -> io::Result<()> {
        let mut plan = self.plan.lock();
        if plan.is_some() {
            return Ok(());
        }
        match disk.temp_remove(&self.temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.temp_create(&self.temp)?;
        file.set_len(self.content.size_bytes)?;
        let mut offsets = vec![0];
        for chunk in &manifest.chunks {
            offsets.push(offsets[offsets.len() - 1] + u64::from(chunk.len_bytes));
        }
        let missing = manifest.chunks.len();
        *plan = Some(Plan { have: vec![false; missing], missing, offsets, manifest, file });
        Ok(())
    }

    /// The next run of missing chunks at or after byte `from`, else from the start: whole chunks,
    /// about `max_bytes` at most.
    pub fn missing_run(&self, from: u64, max_bytes: u64) -> Option<Run> {
        let plan = self.plan.lock();
        let plan = plan.as_ref()?;
        let at = plan.offsets.partition_point(|offset| *offset <= from).saturating_sub(1);
        let missing = |i: &usize| !plan.have[*i];
        let first = (at..plan.have.len()).find(missing).or_else(|| (0..at).find(missing))?;
        let fits = |i: &usize| plan.offsets[i + 1] - plan.offsets[first] <= max_bytes;
        let count = (first..plan.have.len())
            .take_while(|i| !plan.have[*i] && (*i == first || fits(i)))
            .count();
        let (start, end) = (plan.offsets[first], plan.offsets[first + count]);
        Some(Run { first, count, offset_bytes: start, len_bytes: end - start })
    }

    /// Length of chunk `index`.
    pub fn chunk_len(&self, index: usize) -> usize {
        let plan = self.plan.lock();
        let chunk = plan.as_ref().and_then(|p| p.manifest.chunks.get(index).copied());
        chunk.map_or(0, |chunk| chunk.len_bytes as usize)
    }

    /// Takes a chunk in. False if its bytes are not what the manifest says.
    pub fn put_chunk(&self, index: usize, bytes: &[u8]) -> io::Result<bool> {
        let (chunk, offset, file) = {
            let plan = self.plan.lock();
            let Some(plan) = plan.as_ref() else { return Ok(false) };
            if plan.have[index] {
                return Ok(true);
            }
            (plan.manifest.chunks[index], plan.offsets[index], plan.file.clone())
        };
        if !verify_chunk(&chunk, bytes) {
            return Ok(false);
        }
        file.write_all_at(bytes, offset)?;
        if let Some(plan) = self.plan.lock().as_mut()
            && !std::mem::replace(&mut plan.have[index], true)
        {
            plan.missing -= 1;
        }
        Ok(true)
    }

    /// Whether all chunks are there.
    pub fn is_complete(&self) -> bool {
        self.plan.lock().as_ref().is_some_and(|plan| plan.missing == 0)
    }

    /// Whether the chunks under `len` bytes at `offset` are there.
    fn covers(plan: &Plan, offset: u64, len: u64) -> bool {
        let first = plan.offsets.partition_point(|o| *o <= offset).saturating_sub(1);
        let end = (offset + len).min(*plan.offsets.last().unwrap_or(&0));
        (first..plan.have.len()).take_while(|i| plan.offsets[*i] < end).all(|i| plan.have[i])
    }

    /// Fills `buf` from verified chunks, up to the end of the file; `None` if some are missing.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let file = {
            let plan = self.plan.lock();
            match plan.as_ref() {
                Some(plan) if Self::covers(plan, offset, buf.len() as u64) => plan.file.clone(),
                _ => return Ok(None),
            }
        };
        file.read_at(buf, offset).map(Some)
    }
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
    manifests: HashMap<ContentRef, Manifest>,
    manifest_chunks: usize,
    /// When a peer that can answer was last connected; `None` while one is.
    offline_since: Option<Option<Instant>>,
}

/// All transfers of a volume.
#[derive(Default)]
pub struct Transfers {
    queues: Mutex<Queues>,
    /// Signalled when anything above changes.
    changed: Condvar,
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
        match first {
            true => queues.background.push_front(node),
            false => queues.background.push_back(node),
        }
        drop(queues);
        self.changed.notify_all();
    }

    /// The transfer of `content` into `node`, begun or continued.
    pub(crate) fn transfer(&self, node: NodeId, content: ContentRef) -> Arc<Transfer> {
        let mut queues = self.queues.lock();
        match queues.active.get(&node) {
            Some(transfer) if transfer.content == content => transfer.clone(),
            _ => {
                let transfer = Arc::new(Transfer::new(node, content));
                queues.active.insert(node, transfer.clone());
                transfer
            }
        }
    }

    pub(crate) fn cancel(&self, node: NodeId) -> Option<Arc<Transfer>> {
        let gone = self.queues.lock().active.remove(&node);
        self.changed.notify_all();
        gone
    }

    pub(crate) fn next_background(&self, timeout: Duration) -> Option<NodeId> {
        let mut queues = self.queues.lock();
        if queues.background.is_empty() {
            self.changed.wait_for(&mut queues, timeout);
        }
        queues.background.pop_front()
    }

    pub(crate) fn next_demand(&self, timeout: Duration) -> Option<Demand> {
        let mut queues = self.queues.lock();
        if queues.demands.is_empty() {
            self.changed.wait_for(&mut queues, timeout);
        }
        queues.demands.pop_front()
    }

    pub(crate) fn demand(&self, demand: Demand) {
        let mut queues = self.queues.lock();
        queues.demands.retain(|d| (d.node, d.offset) != (demand.node, demand.offset));
        queues.demands.push_back(demand);
        drop(queues);
        self.changed.notify_all();
    }

    /// Something arrived or went: whoever waits looks again.
    pub fn progressed(&self) {
        self.changed.notify_all();
    }

    /// Waits until something arrived or went, at most `timeout`.
    pub fn wait_progress(&self, timeout: Duration) {
        let mut queues = self.queues.lock();
        self.changed.wait_for(&mut queues, timeout);
    }

    /// Tells whether a peer that can answer is connected.
    pub fn set_online(&self, online: bool) {
        let mut queues = self.queues.lock();
        queues.offline_since = match (online, queues.offline_since) {
            (true, _) => Some(None),
            (false, Some(Some(since))) => Some(Some(since)),
            (false, _) => Some(Some(Instant::now())),
        };
        drop(queues);
        self.changed.notify_all();
    }

    /// For how long no peer has been connected; zero while one is.
    pub(crate) fn offline_for(&self, since_start: Instant) -> Duration {
        match self.queues.lock().offline_since {
            Some(None) => Duration::ZERO,
            Some(Some(since)) => since.elapsed(),
            None => since_start.elapsed(),
        }
    }

    pub(crate) fn remember_manifest(&self, content: ContentRef, manifest: Manifest) {
        let mut queues = self.queues.lock();
        queues.manifest_chunks += manifest.chunks.len();
        if queues.manifest_chunks > MANIFEST_CHUNKS_MAX {
            queues.manifests.clear();
            queues.manifest_chunks = manifest.chunks.len();
        }
        queues.manifests.insert(content, manifest);
    }

    pub(crate) fn manifest(&self, content: &ContentRef) -> Option<Manifest> {
        self.queues.lock().manifests.get(content).cloned()
    }

    /// Every figure with its name.
    pub fn figures(&self) -> BTreeMap<&'static str, u64> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        BTreeMap::from([
            ("contents_fetched", read(&self.counts.fetched)),
            ("content_bytes_received", read(&self.counts.received_bytes)),
            ("chunks_refused", read(&self.counts.refused_chunks)),
            ("background_fetches_peak", read(&self.counts.under_way_peak)),
        ])
    }
}
