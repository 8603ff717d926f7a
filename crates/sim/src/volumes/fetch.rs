//! Fetching contents, as the pump's threads do: a plan, then chunk by chunk, then into place. Other
//! things happen between two steps.

use super::host::Host;
use super::session::Sessions;
use lockstep_core::Shown;
use lockstep_disk::{DiskFile, describe_bytes};
use lockstep_vfs::{Claim, FetchJob, ServeError, Served, Volume};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Background fetches of a host at a time.
const FETCHES_MAX: usize = 8;
const RETRY: Duration = Duration::from_millis(500);
const RETRY_GONE: Duration = Duration::from_secs(2);
const CHUNK_BYTES: u64 = 1;

/// A fetch under way.
pub struct Fetch(FetchJob);

/// Those who answer, asked one after the other.
type Peers = Vec<Arc<Volume>>;

/// How a step of a fetch ended.
enum Stopped {
    Gone(Option<Shown>),
    Offline,
    Disk,
    Superseded,
}

impl Stopped {
    /// What both say together.
    fn and(self, other: Stopped) -> Stopped {
        match (self, other) {
            (Stopped::Gone(one), Stopped::Gone(other)) => {
                Stopped::Gone([one, other].into_iter().flatten().max_by_key(|shown| shown.version))
            }
            (Stopped::Offline, other) => other,
            (Stopped::Gone(_), other) | (other, _) => other,
        }
    }
}

impl From<io::Error> for Stopped {
    fn from(_: io::Error) -> Self {
        Stopped::Disk
    }
}

/// Takes up the next content that `at` wants. False if it wants none.
pub fn begin(hosts: &mut [Host], at: usize) -> bool {
    let host = &mut hosts[at];
    let Some(volume) = host.volume.clone() else { return false };
    if host.fetches.len() >= FETCHES_MAX {
        return false;
    }
    let Some(job) = volume.next_fetch(Duration::ZERO) else { return false };
    match volume.transfers.claim(job.node, job.content.size_bytes) {
        Claim::Yours => host.fetches.push(Fetch(job)),
        Claim::Taken => {}
        Claim::Later => host.retry(job, RETRY),
    }
    true
}

/// One step of a fetch of `at`. False if none is under way.
pub fn step(hosts: &mut [Host], sessions: &Sessions, at: usize, which: usize) -> bool {
    let Some(volume) = hosts[at].volume.clone() else { return false };
    if hosts[at].fetches.is_empty() {
        return false;
    }
    let which = which % hosts[at].fetches.len();
    let job = hosts[at].fetches[which].0.clone();
    let peers = hosts.iter().filter(|peer| sessions.answers(at, peer.number));
    let peers: Peers = peers.filter_map(|peer| peer.volume.clone()).collect();
    let outcome = match advance(&volume, &peers, &job) {
        Ok(false) => return true,
        Ok(true) => volume.install(&job).map(drop).map_err(Stopped::from),
        Err(stopped) => Err(stopped),
    };
    let host = &mut hosts[at];
    host.fetches.swap_remove(which);
    match outcome {
        Ok(()) | Err(Stopped::Superseded) if volume.is_wanted(&job) => {
            host.retry(job.clone(), RETRY)
        }
        Ok(()) | Err(Stopped::Superseded) => {}
        Err(Stopped::Gone(shown)) => {
            volume.content_gone(&job, shown);
            host.retry(job.clone(), RETRY_GONE);
        }
        Err(Stopped::Offline | Stopped::Disk) => host.retry(job.clone(), RETRY),
    }
    volume.transfers.release(job.node);
    volume.queue_if_wanted(job.node, job.version);
    true
}

/// Whether the content is complete.
fn advance(volume: &Volume, peers: &Peers, job: &FetchJob) -> Result<bool, Stopped> {
    if job.transfer.is_complete() {
        return Ok(true);
    }
    if !volume.goes_on(job) {
        return Err(Stopped::Superseded);
    }
    if !job.transfer.is_planned() {
        plan(volume, peers, job)?;
        return Ok(false);
    }
    let Some(run) = job.transfer.missing_run(0, CHUNK_BYTES) else { return Ok(true) };
    volume.fill_from_here(job, &run)?;
    let claim = volume.transfers.claim_chunks(&job.transfer, &run, false);
    for part in &claim.runs {
        let Some(part) = job.transfer.missing_run(part.offset_bytes, CHUNK_BYTES) else { continue };
        let mut chunk = vec![0; job.transfer.chunk_len(part.first)];
        read(peers, job, &mut chunk, part.offset_bytes)?;
        if !job.transfer.put_chunk(part.first, &chunk)? {
            return Err(Stopped::Gone(None));
        }
        claim.came(&job.transfer, part.first);
    }
    Ok(job.transfer.is_complete())
}

fn plan(volume: &Volume, peers: &Peers, job: &FetchJob) -> Result<(), Stopped> {
    if volume.begin_from_here(job)? {
        return Ok(());
    }
    let small = job.content.size_bytes <= lockstep_disk::chunk::CHUNK_MIN_BYTES as u64;
    if !small {
        let ask = |peer: &Volume| peer.manifest(job.node, job.content).map_err(refused);
        return match volume.begin(job, ask_peers(peers, ask)?)? {
            true => Ok(()),
            false => Err(Stopped::Gone(None)),
        };
    }
    let mut bytes = vec![0; job.content.size_bytes as usize];
    read(peers, job, &mut bytes, 0)?;
    if !volume.begin(job, describe_bytes(&bytes).manifest)? {
        return Err(Stopped::Gone(None));
    }
    match bytes.is_empty() || job.transfer.put_chunk(0, &bytes)? {
        true => Ok(()),
        false => Err(Stopped::Gone(None)),
    }
}

fn refused(error: ServeError) -> Stopped {
    match error {
        ServeError::Gone { shown } => Stopped::Gone(shown),
        ServeError::Read(_) => Stopped::Disk,
    }
}

/// The first answer; that it is gone if all say so, with the newest version that one of them shows.
fn ask_peers<T>(
    peers: &Peers,
    mut ask: impl FnMut(&Volume) -> Result<T, Stopped>,
) -> Result<T, Stopped> {
    let mut failed = Stopped::Offline;
    for peer in peers {
        match ask(peer) {
            Err(stopped) => failed = failed.and(stopped),
            answer => return answer,
        }
    }
    Err(failed)
}

fn read(peers: &Peers, job: &FetchJob, buf: &mut [u8], offset: u64) -> Result<(), Stopped> {
    ask_peers(peers, |peer| read_from(peer, job, buf, offset))
}

/// What a peer answers when it is asked for bytes.
fn read_from(peer: &Volume, job: &FetchJob, buf: &mut [u8], offset: u64) -> Result<(), Stopped> {
    if let Some(bytes) = peer.inline(job.node, job.content) {
        let from = offset as usize;
        buf.copy_from_slice(bytes.get(from..from + buf.len()).ok_or(Stopped::Gone(None))?);
        return Ok(());
    }
    let Served { file, .. } = peer.serve(job.node, job.content).map_err(refused)?;
    let read = DiskFile::read_at(&*file, buf, offset)?;
    if read < buf.len() { Err(Stopped::Gone(None)) } else { Ok(()) }
}

impl Host {
    pub fn retry(&mut self, job: FetchJob, pause: Duration) {
        let at = lockstep_vfs::Clock::running(&*self.clock) + pause;
        self.retries.retain(|(_, other)| other.node != job.node);
        self.retries.push((at, job));
    }

    /// Queues again what is due by `now`.
    pub fn retry_due(&mut self, now: Duration) {
        let Some(volume) = self.volume.clone() else { return };
        let (due, later) = self.retries.drain(..).partition(|(at, _)| *at <= now);
        self.retries = later;
        for (_, job) in due {
            let job: FetchJob = job;
            volume.requeue(&job);
        }
    }
}
