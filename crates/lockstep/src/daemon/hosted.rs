//! One volume of this daemon: its record, its pump once it is open, and its mount.

use super::config::Config;
use super::owner::Owner;
use super::record::{PeerRecord, VolumeRecord};
use crate::errors::{Failure, Outcome};
use crate::fuse::{self, Mounted};
use crate::home::Home;
use crate::pump::{Fresh, Pump, VolumeSpec};
use lockstep_core::{PeerId, Slot, VolumeId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;

/// Replicas beside this one. A pump ships its own changes to its peers and does not pass on those
/// of others, so a third replica would miss some.
const PEERS_MAX: usize = 1;

/// What can be wrong with a volume while it is served: each trouble replaces the last of its kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trouble {
    /// It could not be opened.
    Open,
    /// It could not be mounted.
    Mount,
    /// Its address could not be listened on.
    Listen,
}

/// One volume.
pub struct Hosted {
    id: VolumeId,
    record: Mutex<VolumeRecord>,
    open: Mutex<Option<Opened>>,
    mounted: Mutex<Option<Mounted>>,
    troubles: Mutex<BTreeMap<Trouble, String>>,
    expecting_since: Mutex<Instant>,
}

struct Opened {
    pump: Arc<Pump>,
    owner: Owner,
}

impl Hosted {
    /// A volume that is not open yet.
    pub fn new(record: VolumeRecord) -> Arc<Self> {
        Arc::new(Hosted {
            id: record.id,
            record: Mutex::new(record),
            open: Mutex::new(None),
            mounted: Mutex::new(None),
            troubles: Mutex::default(),
            expecting_since: Mutex::new(Instant::now()),
        })
    }

    /// The volume's id.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// What the home remembers of it.
    pub fn record(&self) -> VolumeRecord {
        self.record.lock().clone()
    }

    /// What runs it, if it is open.
    pub fn pump(&self) -> Option<Arc<Pump>> {
        self.open.lock().as_ref().map(|opened| Arc::clone(&opened.pump))
    }

    /// Whether it is mounted.
    pub fn is_mounted(&self) -> bool {
        self.mounted.lock().as_ref().is_some_and(Mounted::is_served)
    }

    /// Requests that its mount has answered, by kind.
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.mounted.lock().as_ref().map(Mounted::requests).unwrap_or_default()
    }

    /// Since when a peer is expected to connect: the opening, its joining, or the last session's end.
    pub fn expecting_since(&self) -> Instant {
        *self.expecting_since.lock()
    }

    /// From now on a peer may be expected to connect by itself.
    pub fn expect_peer(&self) {
        *self.expecting_since.lock() = Instant::now();
    }

    /// What happened when it was opened that somebody may want to know.
    pub fn notices(&self) -> Vec<String> {
        let open = self.open.lock();
        open.iter().filter_map(|opened| opened.owner.notice().map(str::to_owned)).collect()
    }

    /// What is wrong with it.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.lock().values().cloned().collect()
    }

    /// Whether `trouble` is unresolved.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.troubles.lock().contains_key(&trouble)
    }

    /// Remembers how an attempt ended, for `status`.
    pub fn note<T>(&self, trouble: Trouble, outcome: Outcome<T>) -> Outcome<T> {
        let mut troubles = self.troubles.lock();
        match &outcome {
            Ok(_) => drop(troubles.remove(&trouble)),
            Err(failure) => {
                tracing::warn!(volume = %self.id, ?trouble, "{}", failure.message());
                troubles.insert(trouble, failure.one_line());
            }
        }
        outcome
    }

    /// Starts the pump. Says whether it was started now. Openings, mounts and their ends are called
    /// one at a time; the locks here only let `status` look on meanwhile.
    pub fn open(
        &self,
        home: &Home,
        config: &Config,
        runtime: &Handle,
        fresh: Fresh,
    ) -> Outcome<bool> {
        if self.open.lock().is_some() {
            return Ok(false);
        }
        let record = self.record();
        if record.mount.as_ref() == Some(&record.backing) {
            clear_stale(&record.backing)?;
        }
        if fresh == Fresh::Existing {
            Owner::recognize(&record.backing, record.id)?;
        }
        let owner = Owner::claim(&record.backing, home, record.id)?;
        let pump = Pump::open(spec(&record, home, config), runtime.clone(), fresh)?;
        pump.volume().set_trash_limits(config.trash_limits());
        for peer in &record.peers {
            pump.add_peer(peer.id, peer.slot, &peer.name);
        }
        *self.open.lock() = Some(Opened { pump, owner });
        self.expect_peer();
        tracing::info!(volume = %self.id, "volume opened");
        Ok(true)
    }

    /// Mounts the volume where its record says, unless it is mounted.
    pub fn mount(&self) -> Outcome<()> {
        let record = self.record();
        let Some(point) = record.mount else { return Ok(()) };
        let Some(pump) = self.pump() else { return Ok(()) };
        if self.is_mounted() {
            return Ok(());
        }
        if point != record.backing {
            clear_stale(&point)?;
        }
        let fresh =
            fuse::mount(Arc::clone(pump.volume()), &record.name, &point).map_err(refused)?;
        *self.mounted.lock() = Some(fresh);
        tracing::info!(volume = %self.id, "volume mounted");
        Ok(())
    }

    /// Takes the mount away. Says whether there was one.
    pub fn unmount(&self) -> Outcome<bool> {
        let taken = self.mounted.lock().take();
        let Some(mounted) = taken else { return Ok(false) };
        mounted.unmount().map_err(refused)?;
        tracing::info!(volume = %self.id, "volume unmounted");
        Ok(true)
    }

    /// Unmounts, flushes and lets go of the backing directory.
    pub fn close(&self) {
        let _ = self.note(Trouble::Mount, self.unmount());
        let opened = self.open.lock().take();
        if let Some(opened) = opened {
            opened.pump.close();
            tracing::info!(volume = %self.id, "volume closed");
        }
    }

    /// Takes in a peer whose invite was good: numbers its replica, remembers it, tells the pump.
    /// A peer that joins again is a new replica: its old numbers must not come back.
    pub fn admit(&self, home: &Home, peer: PeerId, host: &str) -> Outcome<Slot> {
        let pump = self.pump().ok_or_else(|| self.not_open())?;
        let mut record = self.record.lock();
        let mut changed = record.clone();
        let slot = changed.next_slot;
        changed.next_slot = Slot(slot.0.checked_add(1).ok_or_else(|| self.worn_out())?);
        changed.peers.retain(|known| known.id != peer);
        changed.peers.push(PeerRecord { id: peer, name: host.to_owned(), slot, addrs: Vec::new() });
        changed.save(home)?;
        *record = changed;
        pump.add_peer(peer, slot, host);
        self.expect_peer();
        tracing::info!(volume = %self.id, slot = slot.0, "a peer joined");
        Ok(slot)
    }

    /// Whether `peer` is one of its replicas.
    pub fn is_member(&self, peer: PeerId) -> bool {
        self.record.lock().peers.iter().any(|known| known.id == peer)
    }

    /// Whether `peer` may join, or join again.
    pub fn has_room_for(&self, peer: Option<PeerId>) -> Outcome<()> {
        let record = self.record.lock();
        let mut others = record.peers.iter().filter(|known| Some(known.id) != peer);
        let Some(other) = others.nth(PEERS_MAX - 1) else {
            return Ok(());
        };
        Err(Failure::failed(
            format!(
                "\"{}\" is already shared with {}: Lockstep joins two machines so far",
                record.name, other.name
            ),
            "share another directory with a further machine",
        ))
    }

    /// Remembers where peers reach the volume.
    pub fn listen_on(&self, home: &Home, address: std::net::SocketAddr) -> Outcome<()> {
        let mut record = self.record.lock();
        let mut changed = record.clone();
        changed.listen = Some(address);
        changed.save(home)?;
        *record = changed;
        Ok(())
    }

    fn not_open(&self) -> Failure {
        Failure::failed(
            format!("\"{}\" is not open", self.record.lock().name),
            "run `lockstep status` to see why",
        )
    }

    fn worn_out(&self) -> Failure {
        Failure::failed("no replica number is left", "share the directory anew under another name")
    }
}

fn spec(record: &VolumeRecord, home: &Home, config: &Config) -> VolumeSpec {
    VolumeSpec {
        id: record.id,
        name: record.name.clone(),
        backing: record.backing.clone(),
        state_dir: home.volume(record.id).join("state"),
        slot: record.slot,
        policy: record.policy,
        host: config.host_name(),
        verify_pause: config.verify_pause(),
    }
}

fn clear_stale(point: &Path) -> Outcome<()> {
    fuse::clear_stale(point).map(drop).map_err(refused)
}

fn refused(error: fuse::MountError) -> Failure {
    Failure::of_sentence(&error.to_string())
}
