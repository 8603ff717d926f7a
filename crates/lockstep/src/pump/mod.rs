//! Runs one volume: numbers and ships its changes, applies those of its peers, fetches content.
//!
//! The decisions are made in `core` and `vfs`; here are the threads that carry them between disk
//! and network, each named after what it does:
//!
//! | thread | concept |
//! |---|---|
//! | [`drive`] | announces written files, numbers changes, retries, makes durable, trims |
//! | [`ship`] | one a peer: offers the log in batches, as many in flight as may be |
//! | [`catch_up`] | the same thread: tells the state where the log does not reach |
//! | [`receive`] | one a peer: applies its batches in order |
//! | [`verify`] | checks the volume against its disk, slowly |
//! | [`fetch`] | background fetches, and those that a reader waits for |

mod barrier;
mod catch_up;
mod drive;
mod evict;
mod fetch;
mod open;
mod peer;
mod receive;
mod serve;
mod ship;
mod verify;

use anyhow::Context;
use lockstep_core::{NodeId, PeerId, Slot, VolumeId};
use lockstep_disk::PlainDisk;
use lockstep_net::Refusal;
use lockstep_vfs::Volume;
use parking_lot::Mutex;
use peer::Peer;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::runtime::Handle;

pub use lockstep_vfs::Origin as Fresh;
pub use verify::{Checks, Compared};

/// What a pump needs to know of its volume.
#[derive(Clone, Debug)]
pub struct VolumeSpec {
    /// The volume.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// The backing directory.
    pub backing: PathBuf,
    /// Where its state database lives.
    pub state_dir: PathBuf,
    /// This replica's slot.
    pub slot: Slot,
    /// What this machine calls itself.
    pub host: String,
    /// When contents come here.
    pub policy: lockstep_vfs::Policy,
    /// Pause between two checks of the whole volume.
    pub verify_pause: std::time::Duration,
}

/// One peer, for `status`.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its key.
    pub id: PeerId,
    /// Its host's name.
    pub name: String,
    /// Whether a session is up.
    pub connected: bool,
    /// How it is reached.
    pub path: Option<String>,
    /// The key exchange group of the session.
    pub kex: Option<String>,
    /// Changes it has not applied yet.
    pub pending_changes: u64,
    /// Bytes of content announced in them.
    pub pending_bytes: u64,
    /// What is wrong there or on the way.
    pub problem: Option<String>,
    /// How far the own log has come.
    pub cursors: Cursors,
}

/// How far the own log has come on its way to one peer, and the peer's log here: numbers of
/// changes, each at most the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursors {
    /// Written down here.
    pub appended: u64,
    /// On stable storage here.
    pub durable: u64,
    /// Sent in this session, or had by the peer when it began.
    pub sent: u64,
    /// Applied at the peer.
    pub acknowledged: u64,
    /// On stable storage at the peer.
    pub acknowledged_durable: u64,
    /// The same with all content.
    pub acknowledged_complete: u64,
    /// Of the peer's log: applied and written down here.
    pub applied: u64,
}

/// The volume's traffic, for `status`.
#[derive(Clone, Debug)]
pub struct PumpStatus {
    /// Its peers.
    pub peers: Vec<PeerStatus>,
    /// Changes that some peer lacks, and contents that this replica lacks.
    pub pending_changes: u64,
    /// Bytes of both.
    pub pending_bytes: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What happened that somebody may want to know, without anything to be done.
    pub notices: Vec<String>,
    /// Figures by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// See the module's documentation.
pub struct Pump {
    spec: VolumeSpec,
    runtime: Handle,
    volume: Arc<Volume>,
    /// What happened to the volume when it was opened, for people.
    notices: Vec<String>,
    peers: Mutex<BTreeMap<PeerId, Arc<Peer>>>,
    counters: Counters,
    /// What is wrong with the disk here, if anything.
    problem: Mutex<Option<String>>,
    /// The file whose content the disk here refused last, until it is there, and why.
    content_problem: Mutex<Option<(NodeId, String)>>,
    /// The peer that had a content that was asked for last.
    had_content: Mutex<Option<PeerId>>,
    retries: Mutex<Vec<(Instant, lockstep_vfs::FetchJob)>>,
    announcer: lockstep_vfs::Signal,
    verifier: lockstep_vfs::Signal,
    checks: Mutex<Checks>,
    closing: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the pump has done since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub batches_sent: std::sync::atomic::AtomicU64,
    pub changes_sent: std::sync::atomic::AtomicU64,
    pub batch_peak: std::sync::atomic::AtomicU64,
    pub in_flight_peak: std::sync::atomic::AtomicU64,
    /// Times that a peer was told the state instead of the log.
    pub state_exchanges: std::sync::atomic::AtomicU64,
    /// Nodes and removals told so.
    pub state_changes_sent: std::sync::atomic::AtomicU64,
}

impl Pump {
    /// Opens the volume's disk and state, takes in what changed meanwhile, and starts the threads.
    pub fn open(spec: VolumeSpec, runtime: Handle, fresh: Fresh) -> anyhow::Result<Arc<Pump>> {
        let disk = PlainDisk::open(&spec.backing)?;
        let (volume, notices) = open::volume(&spec, Arc::new(disk), fresh)
            .with_context(|| format!("cannot open the volume \"{}\"", spec.name))?;
        volume.set_policy(spec.policy);
        let pump = Arc::new(Pump {
            spec,
            runtime,
            volume,
            notices,
            peers: Mutex::default(),
            counters: Counters::default(),
            problem: Mutex::default(),
            content_problem: Mutex::default(),
            had_content: Mutex::default(),
            retries: Mutex::default(),
            announcer: lockstep_vfs::Signal::default(),
            verifier: lockstep_vfs::Signal::default(),
            checks: Mutex::default(),
            closing: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        pump.start("announce", Pump::announce)?;
        pump.start("drive", Pump::drive)?;
        pump.start("verify", Pump::verify_slowly)?;
        for _ in 0..lockstep_core::limits::BACKGROUND_FETCHES_MAX {
            pump.start("fetch", Pump::fetch_background)?;
        }
        for _ in 0..fetch::DEMAND_THREADS {
            pump.start("demand", Pump::fetch_demanded)?;
        }
        Ok(pump)
    }

    fn start(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Pump) + Send + 'static,
    ) -> anyhow::Result<()> {
        let pump = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(format!("lockstep-{name}"))
            .spawn(move || run(&pump))
            .with_context(|| format!("cannot start the {name} thread"))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// The volume, for mounting.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Makes a peer known, before its first session.
    pub fn add_peer(self: &Arc<Self>, id: PeerId, slot: Slot, host: &str) {
        self.volume.add_peer(slot, host);
        let peer = Arc::new(Peer::new(id, slot, host));
        if let Some(old) = self.peers.lock().insert(id, Arc::clone(&peer)) {
            old.retire();
        }
        let (ship, receive) = (Arc::clone(&peer), peer);
        let started = self
            .start("ship", move |pump| pump.ship(&ship))
            .and_then(|()| self.start("receive", move |pump| pump.receive(&receive)));
        if let Err(error) = started {
            tracing::error!(%error, "a peer cannot be served");
        }
    }

    pub(crate) fn peer(&self, id: PeerId) -> Result<Arc<Peer>, Refusal> {
        let peer = self.peers.lock().get(&id).cloned();
        peer.ok_or_else(|| Refusal::Unauthorized("this peer is not known to the volume".into()))
    }

    pub(crate) fn all_peers(&self) -> Vec<Arc<Peer>> {
        self.peers.lock().values().cloned().collect()
    }

    /// Whether a session is up.
    pub(crate) fn is_connected(&self) -> bool {
        self.all_peers().iter().any(|peer| peer.link().is_some())
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_problem(&self, problem: Option<String>) {
        let mut now = self.problem.lock();
        if *now != problem {
            match &problem {
                Some(problem) => tracing::warn!(volume = %self.spec.id, "{problem}"),
                None => tracing::info!(volume = %self.spec.id, "the disk accepts changes again"),
            }
            *now = problem;
        }
    }

    /// The disk here refuses the content of `node`, or does no longer.
    pub(crate) fn content_problem(&self, node: NodeId, problem: Option<String>) {
        let mut now = self.content_problem.lock();
        let since = now.as_ref().map(|(node, _)| *node);
        match problem {
            Some(problem) if since.is_none() => {
                tracing::warn!(volume = %self.spec.id, "{problem}");
                *now = Some((node, problem));
            }
            None if since == Some(node) => {
                tracing::info!(volume = %self.spec.id, "the disk accepts content again");
                *now = None;
            }
            _ => {}
        }
    }

    /// What is wrong with the disk here, of changes and of content.
    pub(crate) fn disk_problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.problem.lock().iter().cloned().collect();
        problems.extend(self.content_problem.lock().iter().map(|(_, problem)| problem.clone()));
        problems.dedup();
        problems
    }

    /// What `status` tells.
    pub fn status(&self) -> PumpStatus {
        let volume = self.volume.status();
        let unsent = volume.unannounced + volume.unnumbered;
        let peers: Vec<PeerStatus> =
            self.all_peers().iter().map(|peer| self.peer_status(peer, unsent)).collect();
        let out = peers.iter().map(|p| p.pending_changes).max().unwrap_or(0);
        let out_bytes = peers.iter().map(|p| p.pending_bytes).max().unwrap_or(0);
        let mut problems = self.disk_problems();
        problems.extend(self.checks.lock().problems());
        problems.extend(peers.iter().filter_map(|p| {
            let problem = p.problem.as_ref()?;
            Some(format!("{}: {problem}", p.name))
        }));
        PumpStatus {
            pending_changes: out + volume.absent,
            pending_bytes: out_bytes + volume.absent_bytes,
            problems,
            notices: self.notices.clone(),
            counters: self.figures(volume.nodes),
            peers,
        }
    }

    fn peer_status(&self, peer: &Peer, unsent: u64) -> PeerStatus {
        let link = peer.link();
        let acked = self.volume.acked_by(peer.slot);
        let cursors = Cursors {
            appended: self.volume.log_last().0,
            durable: self.volume.durable().0,
            sent: peer.sent().0.max(acked.applied.0),
            acknowledged: acked.applied.0,
            acknowledged_durable: acked.durable.0,
            acknowledged_complete: acked.complete.0,
            applied: self.volume.applied(peer.slot).0,
        };
        PeerStatus {
            cursors,
            id: peer.id,
            name: peer.host.clone(),
            connected: link.is_some(),
            path: link.as_ref().map(|link| link.path()),
            kex: link.as_ref().map(|link| link.kex().to_owned()),
            pending_changes: self.volume.last().0.saturating_sub(acked.applied.0) + unsent,
            pending_bytes: self.volume.unacked_bytes(peer.slot),
            problem: peer.problem(),
        }
    }

    fn figures(&self, nodes: u64) -> Vec<(&'static str, u64)> {
        let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let (applied, repeated) = self.volume.applied_and_repeated();
        let mut figures = vec![
            ("nodes", nodes),
            ("batches_sent", read(&self.counters.batches_sent)),
            ("changes_sent", read(&self.counters.changes_sent)),
            ("batch_notifications_peak", read(&self.counters.batch_peak)),
            ("batches_in_flight_peak", read(&self.counters.in_flight_peak)),
            ("changes_applied", applied),
            ("changes_repeated", repeated),
            ("log_entries", self.volume.log_entries()),
            ("state_exchanges", read(&self.counters.state_exchanges)),
            ("state_changes_sent", read(&self.counters.state_changes_sent)),
        ];
        figures.extend(self.volume.transfers.figures());
        figures
    }

    /// Writes everything down, durably, and ends all threads. May be called again.
    pub fn close(&self) {
        if self.closing.swap(true, Ordering::Relaxed) {
            return;
        }
        self.volume.announce_all();
        if let Err(error) = self.volume.make_durable() {
            tracing::error!(%error, "the volume's state is not on disk");
        }
        self.volume.stop();
        self.announcer.raise();
        self.verifier.raise();
        for peer in self.all_peers() {
            peer.retire();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the volume had panicked");
            }
        }
        if let Err(error) = self.volume.make_durable().and_then(|()| self.volume.note_end()) {
            tracing::error!(%error, "the volume's state is not on disk");
        }
    }
}
