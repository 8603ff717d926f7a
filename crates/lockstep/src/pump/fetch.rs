//! Fetching content: in the background, and for readers that wait.

use super::Pump;
use lockstep_core::limits::CHUNK_MAX_BYTES;
use lockstep_core::{Manifest, Shown};
use lockstep_disk::{chunk, describe_bytes};
use lockstep_net::{Lane, Link, Refusal};
use lockstep_vfs::{ChunkClaim, Claim, FetchJob, Run};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_stream::StreamExt;

/// Threads for content that readers wait for.
pub(super) const DEMAND_THREADS: usize = 2;
/// One request of a background fetch.
const BACKGROUND_RUN_BYTES: u64 = 64 * 1024 * 1024;
/// One request for a waiting reader: what it asked for and some read-ahead.
const DEMAND_RUN_BYTES: u64 = 1024 * 1024;
/// Left free on the disk here by fetches: what applying changes and the state database need.
const SPARE_BYTES: u64 = 1024 * 1024;
const IDLE: Duration = Duration::from_secs(1);
/// Longest wait for chunks that another transfer is fetching, before looking again.
const ELSEWHERE_WAIT: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_millis(500);
/// Pause before a content that the peer no longer has is asked for again: its successor is on the
/// way.
const RETRY_GONE: Duration = Duration::from_secs(2);

/// Why a fetch stopped.
enum Stopped {
    Refused(Refusal),
    Disk(io::Error),
    /// Bytes or manifest are not what their hash says.
    Corrupt,
    /// Not wanted any more.
    Superseded,
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Stopped::Refused(refusal)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Stopped::Disk(error)
    }
}

impl Pump {
    /// Fetches whole contents, one at a time.
    pub(super) fn fetch_background(&self) {
        let transfers = &self.volume.transfers;
        while !self.is_closing() {
            let Some(job) = self.volume.next_fetch(IDLE) else { continue };
            match transfers.claim(job.node, job.content.size_bytes) {
                Claim::Yours => {}
                Claim::Taken => continue,
                Claim::Later => {
                    self.retry_later(job, RETRY);
                    continue;
                }
            }
            let now = transfers.counts.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            transfers.counts.under_way_peak.fetch_max(now, Ordering::Relaxed);
            self.finish_fetch(&job, self.complete(&job));
            transfers.counts.under_way.fetch_sub(1, Ordering::Relaxed);
            transfers.release(job.node);
            // A newer content that came meanwhile found the file claimed.
            self.volume.queue_if_wanted(job.node, job.version);
        }
    }

    fn complete(&self, job: &FetchJob) -> Result<(), Stopped> {
        while !job.transfer.is_complete() {
            if self.is_closing() {
                return Err(Stopped::Superseded);
            }
            self.fetch_run(job, Lane::Bulk, 0, BACKGROUND_RUN_BYTES)?;
        }
        Ok(())
    }

    /// Fetches what readers wait for, on a lane of its own.
    pub(super) fn fetch_demanded(&self) {
        while !self.is_closing() {
            let Some((job, offset)) = self.volume.next_demand(IDLE) else { continue };
            match self.fetch_run(&job, Lane::Interactive, offset, DEMAND_RUN_BYTES) {
                Ok(()) => self.volume.transfers.progressed(),
                Err(stopped) => self.finish_fetch(&job, Err(stopped)),
            }
        }
    }

    fn finish_fetch(&self, job: &FetchJob, outcome: Result<(), Stopped>) {
        let outcome = outcome.and_then(|()| Ok(self.volume.install(job).map(drop)?));
        match outcome {
            Ok(()) | Err(Stopped::Superseded) => {
                self.content_problem(job.node, None);
                // It may have become wanted again meanwhile, when this fetch was in the way.
                if self.volume.is_wanted(job) {
                    self.retry_later(job.clone(), RETRY);
                }
            }
            Err(Stopped::Refused(Refusal::Gone { shown })) => {
                self.volume.content_gone(job, shown);
                self.retry_later(job.clone(), RETRY_GONE);
            }
            Err(Stopped::Refused(refusal)) => {
                tracing::debug!(%refusal, "a fetch was refused");
                self.retry_later(job.clone(), RETRY);
            }
            Err(Stopped::Corrupt) => {
                tracing::warn!(node = %job.node, "the peer sent bytes that do not match their hash");
                self.retry_later(job.clone(), RETRY);
            }
            Err(Stopped::Disk(cause)) => {
                let problem = super::receive::disk_problem(&self.spec.backing, &cause);
                self.content_problem(job.node, Some(problem));
                self.retry_later(job.clone(), RETRY);
            }
        }
    }

    /// Completes one run of missing chunks, from `offset` on: out of the files that are here as
    /// far as they have them, the rest from a peer.
    fn fetch_run(
        &self,
        job: &FetchJob,
        lane: Lane,
        offset: u64,
        max_bytes: u64,
    ) -> Result<(), Stopped> {
        if !self.volume.goes_on(job) {
            return Err(Stopped::Superseded);
        }
        if !job.transfer.is_planned() {
            self.plan(job, lane)?;
        }
        let Some(run) = job.transfer.missing_run(offset, max_bytes) else { return Ok(()) };
        self.volume.fill_from_here(job, &run)?;
        let claim =
            self.volume.transfers.claim_chunks(&job.transfer, &run, lane == Lane::Interactive);
        for part in &claim.runs {
            let room = self.room_for(part.len_bytes)?;
            let Some(part) = job.transfer.missing_run(part.offset_bytes, room) else { continue };
            self.fetch_part(job, lane, &part, &claim)?;
        }
        if claim.elsewhere && claim.runs.is_empty() {
            self.volume.transfers.wait_progress(ELSEWHERE_WAIT);
        }
        Ok(())
    }

    /// Bytes that the disk here has room for, at most `wanted`: what does not fit is not asked for.
    fn room_for(&self, wanted: u64) -> Result<u64, Stopped> {
        let Ok(disk) = self.volume.statfs() else { return Ok(wanted) };
        let free = disk.blocks_available.saturating_mul(disk.fragment_size_bytes);
        match free.checked_sub(SPARE_BYTES) {
            Some(room) if room >= wanted.min(CHUNK_MAX_BYTES.into()) => Ok(room.min(wanted)),
            _ if wanted == 0 => Ok(0),
            _ => Err(Stopped::Disk(io::ErrorKind::StorageFull.into())),
        }
    }

    /// Asks the connected peers for a content one after the other, until one has it; the one that
    /// had something last comes first. It is gone if all of them say so: the answer has the newest
    /// version that one of them shows instead.
    fn ask_peers<T>(&self, mut ask: impl FnMut(&Link) -> Result<T, Stopped>) -> Result<T, Stopped> {
        let had = *self.had_content.lock();
        let mut links: Vec<_> = self.all_peers().iter().filter_map(|peer| peer.link()).collect();
        links.sort_by_key(|link| Some(link.peer()) != had);
        let (mut failed, mut gone) = (None, None);
        for link in links {
            match ask(&link) {
                Ok(answer) => {
                    *self.had_content.lock() = Some(link.peer());
                    return Ok(answer);
                }
                Err(Stopped::Refused(Refusal::Gone { shown })) => {
                    let all = gone.flatten().into_iter().chain(shown);
                    gone = Some(all.max_by_key(|shown: &Shown| shown.version));
                }
                Err(other @ (Stopped::Refused(_) | Stopped::Corrupt)) => failed = Some(other),
                Err(own) => return Err(own),
            }
        }
        let gone = gone.map(|shown| Refusal::Gone { shown }.into());
        let unreachable = || Refusal::Unreachable("no peer is connected".into()).into();
        Err(failed.or(gone).unwrap_or_else(unreachable))
    }

    fn fetch_part(
        &self,
        job: &FetchJob,
        lane: Lane,
        run: &Run,
        claim: &ChunkClaim,
    ) -> Result<(), Stopped> {
        let (mut index, mut done_bytes) = (run.first, 0);
        self.ask_peers(|link| {
            let rest = (run.offset_bytes + done_bytes, run.len_bytes - done_bytes);
            let came = self.take_chunks(job, (link, lane), rest, index, claim);
            for arrived in index..index + came.0 {
                done_bytes += job.transfer.chunk_len(arrived) as u64;
            }
            index += came.0;
            came.1?;
            match index < run.first + run.count && !self.is_closing() {
                true => Err(Stopped::Corrupt),
                false => Ok(()),
            }
        })
    }

    /// Takes the chunks from `first` on, which are in the range (offset, length), from one peer.
    /// Answers how many came.
    fn take_chunks(
        &self,
        job: &FetchJob,
        from: (&Link, Lane),
        range: (u64, u64),
        first: usize,
        claim: &ChunkClaim,
    ) -> (usize, Result<(), Stopped>) {
        let (transfer, counts) = (&job.transfer, &self.volume.transfers.counts);
        let (mut came, mut refused) = (0, false);
        let mut chunk = Vec::with_capacity(transfer.chunk_len(first));
        let streamed = self.stream(job, from, range, &mut |mut bytes: &[u8]| {
            while !bytes.is_empty() && !refused {
                let index = first + came;
                let lacks = transfer.chunk_len(index).saturating_sub(chunk.len());
                if lacks == 0 {
                    return Ok(false);
                }
                let (now, rest) = bytes.split_at(bytes.len().min(lacks));
                chunk.extend_from_slice(now);
                bytes = rest;
                if chunk.len() == transfer.chunk_len(index) {
                    refused = !transfer.put_chunk(index, &chunk)?;
                    counts.refused_chunks.fetch_add(u64::from(refused), Ordering::Relaxed);
                    claim.came(transfer, index);
                    chunk.clear();
                    came += usize::from(!refused);
                    self.volume.transfers.progressed();
                }
            }
            Ok(!refused && !self.is_closing())
        });
        (came, if refused { Err(Stopped::Corrupt) } else { streamed })
    }

    /// Learns the chunks of a content: from a file here that has the same, else from a peer. Of a
    /// small one the bytes themselves tell.
    fn plan(&self, job: &FetchJob, lane: Lane) -> Result<(), Stopped> {
        if self.volume.begin_from_here(job)? {
            return Ok(());
        }
        let size = job.content.size_bytes;
        self.room_for(size.min(CHUNK_MAX_BYTES.into()))?;
        if size > chunk::CHUNK_MIN_BYTES as u64 {
            return self.ask_peers(|link| {
                let manifest = self.runtime.block_on(link.manifest(job.node, job.content))?;
                let bytes = (manifest.chunks.len() * Manifest::RECORD_BYTES) as u64;
                self.volume.transfers.counts.received_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.begin(job, manifest)
            });
        }
        self.ask_peers(|link| {
            let mut bytes = Vec::with_capacity(size as usize);
            self.stream(job, (link, lane), (0, size), &mut |part| {
                bytes.extend_from_slice(part);
                Ok(bytes.len() as u64 <= size)
            })?;
            self.begin(job, describe_bytes(&bytes).manifest)?;
            match bytes.is_empty() || job.transfer.put_chunk(0, &bytes)? {
                true => Ok(()),
                false => Err(Stopped::Corrupt),
            }
        })
    }

    fn begin(&self, job: &FetchJob, manifest: Manifest) -> Result<(), Stopped> {
        match self.volume.begin(job, manifest)? {
            true => Ok(()),
            false => Err(Stopped::Corrupt),
        }
    }

    /// Streams a range; `take` answers whether to go on.
    fn stream(
        &self,
        job: &FetchJob,
        (link, lane): (&Link, Lane),
        (offset, len): (u64, u64),
        take: &mut dyn FnMut(&[u8]) -> io::Result<bool>,
    ) -> Result<(), Stopped> {
        if len == 0 {
            return Ok(());
        }
        let counts = &self.volume.transfers.counts;
        let open = link.read(lane, job.node, job.content, offset, len);
        let mut stream = self.runtime.block_on(open)?;
        while let Some(part) = self.runtime.block_on(stream.next()) {
            let part = part?;
            counts.received_bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
            if !take(&part)? {
                return Ok(());
            }
        }
        Ok(())
    }
}
