//! One content on its way here: which chunks have come.
//!
//! A transfer fills a temporary file chunk by chunk, each verified before it counts. Readers take
//! verified bytes from it at once; the file takes the place of the placeholder, or of the content
//! shown so far, when all chunks are there.

use crate::plan::{Piece, Plan, Presence, Run};
use lockstep_core::planted::{self, Bug};
use lockstep_core::{ChunkRef, ContentRef, Manifest, NodeId, Version, limits};
use lockstep_disk::{
    Disk, DiskFile, Holding, SeekWhat, is_hole, punch, verify_chunk, write_with_holes,
};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Held while a chunk is looked at or written.
    looking: Mutex<()>,
    /// Whether its file is in place, or gone: it is not its to write to any more.
    spent: AtomicBool,
}

/// What is found where a chunk goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InPlace {
    /// Nothing: it has to be found elsewhere.
    Missing,
    /// The chunk; it was counted before, or needs no bytes.
    Here,
    /// The chunk, left by an interrupted transfer.
    Left,
}

impl Transfer {
    pub(crate) fn new(node: NodeId, content: ContentRef) -> Self {
        let temp = crate::serve::kept_name(&Holding::new(node, &content));
        Transfer {
            content,
            temp,
            plan: Mutex::new(None),
            looking: Mutex::new(()),
            spent: AtomicBool::new(false),
        }
    }

    /// Its file is in place, or gone.
    pub(crate) fn spend(&self) {
        let _looking = self.looking.lock();
        self.spent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Whether the content travels with its change and is one chunk.
    fn is_small(&self) -> bool {
        self.content.size_bytes <= limits::INLINE_CONTENT_MAX_BYTES
    }

    /// Whether the chunks are known.
    pub fn is_planned(&self) -> bool {
        self.plan.lock().is_some()
    }

    /// Starts with a verified manifest, in the temporary file that an earlier run left if there is
    /// one.
    pub(crate) fn begin(&self, manifest: Manifest, disk: &dyn Disk) -> io::Result<()> {
        let mut plan = self.plan.lock();
        if plan.is_some() {
            return Ok(());
        }
        let (file, resumed) = match disk.temp_create(&self.temp) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (disk.temp_open(&self.temp)?, true)
            }
            created => (created?, false),
        };
        // What is small is written in one go and grows by it: a power cut then leaves it short or
        // empty, where one that was given its length first is full of zeros.
        if resumed || !self.is_small() {
            file.set_len(self.content.size_bytes)?;
        }
        let mut offsets = vec![0];
        for chunk in &manifest.chunks {
            offsets.push(offsets[offsets.len() - 1] + u64::from(chunk.len_bytes));
        }
        let missing = manifest.chunks.len();
        let chunks = vec![Presence::Unsought; missing];
        *plan = Some(Plan { chunks, missing, offsets, manifest, file, resumed });
        Ok(())
    }

    /// The next run of chunks that are not here, at or after byte `from`, else from the start:
    /// whole chunks, about `max_bytes` at most.
    pub fn missing_run(&self, from: u64, max_bytes: u64) -> Option<Run> {
        let plan = self.plan.lock();
        let plan = plan.as_ref()?;
        let at = plan.offsets.partition_point(|offset| *offset <= from).saturating_sub(1);
        let missing = |i: &usize| !plan.is_here(*i);
        let first = (at..plan.chunks.len()).find(missing).or_else(|| (0..at).find(missing))?;
        let fits = |i: &usize| plan.offsets[i + 1] - plan.offsets[first] <= max_bytes;
        let count = (first..plan.chunks.len())
            .take_while(|i| !plan.is_here(*i) && (*i == first || fits(i)))
            .count();
        Some(plan.run(first, count))
    }

    /// Chunks one after the other as runs.
    pub(crate) fn runs(&self, indices: impl IntoIterator<Item = usize>) -> Vec<Run> {
        let plan = self.plan.lock();
        let Some(plan) = plan.as_ref() else { return Vec::new() };
        let mut runs: Vec<Run> = Vec::new();
        for index in indices {
            match runs.last_mut() {
                Some(last) if last.first + last.count == index => {
                    *last = plan.run(last.first, last.count + 1);
                }
                _ => runs.push(plan.run(index, 1)),
            }
        }
        runs
    }

    /// The chunks of `run` that are not here.
    pub(crate) fn missing(&self, run: &Run) -> Vec<Piece> {
        self.pieces(run, |presence| presence != Presence::Here)
    }

    /// The chunks of `run` that were looked for and have to come from a peer.
    pub(crate) fn sought(&self, run: &Run) -> Vec<Piece> {
        self.pieces(run, |presence| presence == Presence::Missing)
    }

    /// The chunks of `run` that nobody has looked for, and those that were being fetched elsewhere.
    pub(crate) fn unsought(&self, run: &Run) -> Vec<Piece> {
        self.pieces(run, |presence| matches!(presence, Presence::Unsought | Presence::Elsewhere))
    }

    fn pieces(&self, run: &Run, which: impl Fn(Presence) -> bool) -> Vec<Piece> {
        let plan = self.plan.lock();
        let Some(plan) = plan.as_ref() else { return Vec::new() };
        (run.first..run.first + run.count)
            .filter(|i| which(plan.chunks[*i]))
            .map(|index| Piece {
                index,
                chunk: plan.manifest.chunks[index],
                offset_bytes: plan.offsets[index],
            })
            .collect()
    }

    /// Another transfer is fetching the chunk.
    pub(crate) fn is_elsewhere(&self, index: usize) {
        if let Some(plan) = self.plan.lock().as_mut()
            && plan.chunks[index] == Presence::Missing
        {
            plan.chunks[index] = Presence::Elsewhere;
        }
    }

    /// Looks where the chunk goes: an interrupted transfer may have left it there, and of a hole
    /// nothing is needed. What else stands there goes.
    pub(crate) fn look_in_place(&self, piece: &Piece, buf: &mut Vec<u8>) -> io::Result<InPlace> {
        let _looking = self.looking.lock();
        let (file, resumed) = {
            let plan = self.plan.lock();
            match plan.as_ref() {
                Some(plan) if plan.is_here(piece.index) => return Ok(InPlace::Here),
                Some(plan) if plan.chunks[piece.index] == Presence::Unsought => {
                    (plan.file.clone(), plan.resumed)
                }
                _ => {
                    drop(plan);
                    self.mark(piece.index, Presence::Missing);
                    return Ok(InPlace::Missing);
                }
            }
        };
        let len = u64::from(piece.chunk.len_bytes);
        if resumed && stores_bytes(&*file, piece.offset_bytes, len) {
            buf.resize(piece.chunk.len_bytes as usize, 0);
            let whole = file.read_at(buf, piece.offset_bytes)? == buf.len();
            if whole && (verify_chunk(&piece.chunk, buf) || planted::has(Bug::TrustResumed)) {
                self.mark(piece.index, Presence::Here);
                return Ok(InPlace::Left);
            }
            punch(&*file, piece.offset_bytes, len)?;
        }
        let hole = is_hole(&piece.chunk);
        self.mark(piece.index, if hole { Presence::Here } else { Presence::Missing });
        Ok(if hole { InPlace::Here } else { InPlace::Missing })
    }

    /// A chunk that is here stays here.
    fn mark(&self, index: usize, presence: Presence) {
        if let Some(plan) = self.plan.lock().as_mut()
            && plan.chunks[index] != Presence::Here
        {
            plan.chunks[index] = presence;
            plan.missing -= usize::from(presence == Presence::Here);
        }
    }

    /// Length of chunk `index`.
    pub fn chunk_len(&self, index: usize) -> usize {
        self.chunk(index).map_or(0, |chunk| chunk.len_bytes as usize)
    }

    pub(crate) fn chunk(&self, index: usize) -> Option<ChunkRef> {
        self.plan.lock().as_ref()?.manifest.chunks.get(index).copied()
    }

    /// Takes a chunk in. False if its bytes are not what the manifest says.
    pub fn put_chunk(&self, index: usize, bytes: &[u8]) -> io::Result<bool> {
        let place = || {
            let plan = self.plan.lock();
            let plan = plan.as_ref()?;
            Some((plan.offsets[index], plan.file.clone(), plan.chunks[index]))
        };
        let Some(chunk) = self.chunk(index) else { return Ok(false) };
        if place().is_some_and(|(.., presence)| presence == Presence::Here) {
            return Ok(true);
        }
        if !verify_chunk(&chunk, bytes) {
            return Ok(false);
        }
        // Two may bring the same chunk. Once all have come the file may be in place, and somebody
        // else's to write to.
        let _looking = self.looking.lock();
        match place() {
            _ if self.is_spent() => return Ok(true),
            None => return Ok(false),
            Some((.., Presence::Here)) => return Ok(true),
            // Nobody has looked yet at what stands there: it is overwritten, zeros and all.
            Some((offset, file, presence)) if presence == Presence::Unsought || self.is_small() => {
                file.write_all_at(bytes, offset)?;
            }
            Some((offset, file, _)) => write_with_holes(&*file, bytes, offset)?,
        }
        self.mark(index, Presence::Here);
        Ok(true)
    }

    /// Takes all chunks in, from the bytes of the whole content.
    pub(crate) fn put_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        let mut index = 0;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(self.chunk_len(index).min(rest.len()));
            self.put_chunk(index, chunk)?;
            (rest, index) = (after, index + 1);
        }
        Ok(())
    }

    /// Whether all chunks are there.
    pub fn is_complete(&self) -> bool {
        self.plan.lock().as_ref().is_some_and(|plan| plan.missing == 0)
    }

    /// Fills `buf` from verified chunks, up to the end of the file; `None` if some are missing.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let file = {
            let plan = self.plan.lock();
            match plan.as_ref() {
                Some(plan) if plan.covers(offset, buf.len() as u64) => plan.file.clone(),
                _ => return Ok(None),
            }
        };
        file.read_at(buf, offset).map(Some)
    }
}

/// Whether anything but a hole is stored in the range.
pub(crate) fn stores_bytes(file: &dyn DiskFile, offset: u64, len: u64) -> bool {
    match file.seek(offset, SeekWhat::Data) {
        Ok(data) => data < offset + len,
        // ENXIO: a hole up to the end.
        Err(error) => error.raw_os_error() != Some(rustix::io::Errno::NXIO.raw_os_error()),
    }
}
