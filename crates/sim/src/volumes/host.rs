//! One machine: a real volume over a simulated disk and database, and what its pump remembers.

use super::clock::SimClock;
use super::disk::SimDisk;
use super::fetch::Fetch;
use super::image::{KEPT, ROOT};
use super::ledger::ContentId;
use super::power::Power;
use super::session::PeerEnd;
use super::store::SimStore;
use lockstep_core::{NodeId, Slot};
use lockstep_disk::FileType;
use lockstep_vfs::{FetchJob, Fh, OpenError, Origin, Volume};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const NAMES: [&str; 3] = ["one", "two", "three"];

/// A file that a program has open for writing.
pub struct Open {
    pub fh: Fh,
    pub node: NodeId,
    /// Whether bytes were written since it was opened.
    pub wrote: bool,
}

pub struct Host {
    pub number: usize,
    pub disk: SimDisk,
    pub store: SimStore,
    pub power: Power,
    pub clock: Arc<SimClock>,
    /// `None` while the daemon is down.
    pub volume: Option<Arc<Volume>>,
    pub was_up: bool,
    pub open: Vec<Open>,
    pub fetches: Vec<Fetch>,
    pub retries: Vec<(Duration, FetchJob)>,
    pub peers: BTreeMap<usize, PeerEnd>,
    /// Contents that were durable when the power went.
    pub must_have: BTreeSet<ContentId>,
    /// Inodes whose bytes a program wrote: after a power cut they may be torn.
    pub written: BTreeSet<u64>,
}

pub fn slot(number: usize) -> Slot {
    Slot(number as u16 + 1)
}

impl Host {
    pub fn new(number: usize, clock: Arc<SimClock>) -> Self {
        let power = Power::default();
        Host {
            number,
            disk: SimDisk::new(clock.clone(), power.clone()),
            store: SimStore::new(power.clone()),
            power,
            clock,
            volume: None,
            was_up: false,
            open: Vec::new(),
            fetches: Vec::new(),
            retries: Vec::new(),
            peers: BTreeMap::new(),
            must_have: BTreeSet::new(),
            written: BTreeSet::new(),
        }
    }

    /// Starts the daemon.
    pub fn start(&mut self, hosts: usize) -> Result<(), OpenError> {
        let origin = match (self.was_up, self.number) {
            (true, _) => Origin::Existing,
            (false, 0) => Origin::Created,
            (false, _) => Origin::Joining,
        };
        let (disk, store) = (Arc::new(self.disk.clone()), Box::new(self.store.clone()));
        let (clock, name) = (self.clock.clone(), NAMES[self.number]);
        let volume = Volume::start_by(clock, disk, store, slot(self.number), name, origin)?;
        for peer in (0..hosts).filter(|peer| *peer != self.number) {
            volume.add_peer(slot(peer), NAMES[peer]);
            self.peers.insert(peer, PeerEnd::default());
        }
        volume.set_online(false);
        self.volume = Some(volume);
        self.was_up = true;
        Ok(())
    }

    /// The daemon is gone, with everything it had in memory.
    pub fn forget(&mut self) {
        self.open.clear();
        self.fetches.clear();
        self.retries.clear();
        self.peers.clear();
        self.volume = None;
    }

    pub fn is_up(&self) -> bool {
        self.volume.is_some()
    }

    /// A program has just written bytes.
    pub fn wrote(&mut self) {
        self.written.extend(self.disk.core().last_written);
    }

    /// What stands below, kept files included: which contents, by inode.
    pub fn contents(&self) -> BTreeMap<u64, (ContentId, bool)> {
        let core = self.disk.core();
        let mut contents = BTreeMap::new();
        let mut dirs = vec![ROOT, KEPT];
        while let Some(dir) = dirs.pop() {
            let entries = core.live.0.get(&dir).map(|dir| dir.entries.values()).into_iter();
            for ino in entries.flatten() {
                let Some(inode) = core.live.0.get(ino) else { continue };
                match inode.file_type {
                    FileType::Dir => dirs.push(*ino),
                    FileType::File => {
                        let is_shown = dir != KEPT && !super::tree::is_placeholder(inode);
                        let known = (ContentId::of(&inode.bytes()), is_shown);
                        contents.entry(*ino).or_insert(known).1 |= is_shown;
                    }
                    _ => {}
                }
            }
        }
        contents
    }

    /// The contents below, without where they stand.
    pub fn content_set(&self) -> BTreeSet<ContentId> {
        self.contents().into_values().map(|(content, _)| content).collect()
    }
}
