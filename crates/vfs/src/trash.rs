//! The trash: what a peer's change deletes or overwrites here is moved aside instead of being
//! destroyed, so that no peer can destroy anybody's work.
//!
//! A version is kept if it was written on this machine, or has stood here for at least
//! [`YOUNG`]: lock files and other throw-away files that a peer makes and removes within moments
//! would fill the trash and push out what is worth keeping. Empty files and absent content hold
//! nothing to keep. Keeping costs a rename or a link, never a copy. What is known of each version
//! is a record in the state database; its bytes are one of the disk's kept files.

mod expire;
mod restore;
mod take;

pub use expire::TrashLimits;
pub use restore::{RestoreError, Restored};

use crate::errno::{Errno, Result};
use crate::volume::Volume;
use lockstep_core::{NodeId, Perm, Slot, Times, Timespec};
use lockstep_disk::Disk;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// What a peer wrote and took away again within this time is not kept.
pub const YOUNG: Duration = Duration::from_secs(1);
/// Versions kept at a time; beyond it the oldest go.
pub const ENTRIES_MAX: usize = 65_536;
/// Versions kept of one file; beyond it its oldest go.
pub const VERSIONS_MAX: usize = 32;

/// Entries are numbered from 0; a number from here on is damage.
const ID_MAX: u64 = 1 << 48;

/// Names of kept files that are trash begin so; those of files kept for peers do not.
pub(crate) const KEPT_PREFIX: &str = "trash-";
/// Names of the records in the state database begin so.
const RECORD_PREFIX: &str = "trash/";
/// Bytes of the file's own name that its name in the trash repeats, for those who look there.
const REPEATED_NAME_BYTES: usize = 160;

/// Why something is in the trash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TrashReason {
    /// A peer removed it.
    Removed,
    /// A peer moved another file over it.
    Replaced,
    /// A peer wrote newer content.
    Overwritten,
    /// It was left in a directory that a peer removed, and was not part of the volume.
    LeftOver,
    /// A conflict was settled in favour of another version.
    Resolved,
    /// The state of the volume was lost: what is known is the name.
    Unknown,
}

impl TrashReason {
    /// The word that commands print.
    pub fn word(self) -> &'static str {
        match self {
            TrashReason::Removed => "removed",
            TrashReason::Replaced => "replaced",
            TrashReason::Overwritten => "overwritten",
            TrashReason::LeftOver => "left over",
            TrashReason::Resolved => "resolved",
            TrashReason::Unknown => "unknown",
        }
    }
}

/// One version in the trash, as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TrashEntry {
    /// Where it stood, relative to the volume's root.
    pub path: Vec<u8>,
    /// The node whose bytes it holds; the root for what was no part of the volume.
    pub node: NodeId,
    /// When it came here.
    pub at: Timespec,
    /// Whose change it was.
    pub peer: Slot,
    /// Why.
    pub reason: TrashReason,
    /// Length.
    pub size_bytes: u64,
    /// What it takes on the disk.
    pub disk_bytes: u64,
    /// Mode and owner as the mount showed them.
    pub perm: Perm,
    /// Times as the mount showed them.
    pub times: Times,
    /// Its name among the kept files.
    pub kept: String,
}

/// One version in the trash, for `lockstep trash list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashItem {
    /// Where it stood, relative to the volume's root.
    pub path: PathBuf,
    /// When it came here, by this machine's clock.
    pub at: Timespec,
    /// The host whose change it was.
    pub host: String,
    /// Why it is here.
    pub reason: TrashReason,
    /// Its length.
    pub size_bytes: u64,
}

/// Figures of the trash, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrashStatus {
    /// Versions in it.
    pub entries: u64,
    /// What they take on the disk.
    pub bytes: u64,
    /// Versions that came in since the start.
    pub kept: u64,
    /// Versions that had to go since the start: too old, or too much.
    pub expired: u64,
}

/// The versions in the trash, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Trash {
    entries: BTreeMap<u64, TrashEntry>,
    of_node: BTreeMap<NodeId, Vec<u64>>,
    next: u64,
    bytes: u64,
    kept: u64,
    expired: u64,
    /// Entries whose records are not written yet.
    stale: BTreeSet<u64>,
    /// Whose changes are being applied.
    pub author: Slot,
    /// How much may be kept, and how long.
    pub limits: TrashLimits,
}

impl Trash {
    /// Takes in what the records say of `files`, and takes it out of these.
    fn recall(&mut self, records: Vec<(String, Vec<u8>)>, files: &mut BTreeSet<String>) {
        for (name, bytes) in records {
            let digits = name.strip_prefix(RECORD_PREFIX).unwrap_or_default();
            let id = u64::from_str_radix(digits, 16).ok().filter(|id| *id < ID_MAX);
            let Some(id) = id else { continue };
            self.next = self.next.max(id + 1);
            match postcard::from_bytes::<TrashEntry>(&bytes) {
                Ok(entry) if files.remove(&entry.kept) => self.insert(id, entry),
                _ => drop(self.stale.insert(id)),
            }
        }
    }

    /// The number that the name of a kept file carries, or a free one.
    fn id_for(&self, kept: &str) -> u64 {
        let number = kept[KEPT_PREFIX.len()..].split('-').next().unwrap_or_default();
        let number = u64::from_str_radix(number, 16).unwrap_or(0);
        let taken = number >= ID_MAX || self.entries.contains_key(&number);
        if taken { self.next } else { number }
    }

    /// Takes an entry in; answers the oldest ones, if there are too many now.
    fn add(&mut self, entry: TrashEntry) -> Vec<TrashEntry> {
        let (id, node) = (self.next, entry.node);
        self.kept += 1;
        self.insert(id, entry);
        self.stale.insert(id);
        let mut too_many = Vec::new();
        let versions = self.of_node.get(&node).map_or(0, Vec::len);
        if node != NodeId::ROOT && versions > VERSIONS_MAX {
            too_many.extend(self.of_node[&node].first().copied());
        } else if self.entries.len() > ENTRIES_MAX {
            too_many.extend(self.entries.keys().next().copied());
        }
        self.expired += too_many.len() as u64;
        too_many.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    fn insert(&mut self, id: u64, entry: TrashEntry) {
        self.next = self.next.max(id + 1);
        self.bytes = self.bytes.saturating_add(entry.disk_bytes);
        self.of_node.entry(entry.node).or_default().push(id);
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: u64) -> Option<TrashEntry> {
        let entry = self.entries.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(entry.disk_bytes);
        self.stale.insert(id);
        if let Some(versions) = self.of_node.get_mut(&entry.node) {
            versions.retain(|other| *other != id);
            if versions.is_empty() {
                self.of_node.remove(&entry.node);
            }
        }
        Some(entry)
    }

    /// The kept file `name` is none of the trash.
    pub(crate) fn forget(&mut self, name: &str) {
        let ids = self.entries.iter().filter(|(_, entry)| entry.kept == name);
        let ids: Vec<u64> = ids.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| drop(self.remove(id)));
    }

    /// Names among the kept files of the versions of `node` that have `size_bytes`, newest first.
    pub(crate) fn versions(&self, node: NodeId, size_bytes: u64) -> Vec<String> {
        let versions = self.of_node.get(&node).into_iter().flatten().rev();
        let entries = versions.filter_map(|id| self.entries.get(id));
        entries.filter(|e| e.size_bytes == size_bytes).map(|e| e.kept.clone()).collect()
    }

    /// Whether records are to be written.
    pub(crate) fn is_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// The records to be written; `None` removes one.
    pub(crate) fn take_records(&mut self) -> Vec<(String, Option<Vec<u8>>)> {
        let encode = |entry| postcard::to_stdvec(entry).expect("records always encode");
        std::mem::take(&mut self.stale)
            .into_iter()
            .map(|id| (format!("{RECORD_PREFIX}{id:016x}"), self.entries.get(&id).map(encode)))
            .collect()
    }

    /// A name among the kept files for the next entry, which stood at `path`.
    fn next_name(&self, path: &std::path::Path) -> String {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut name: String = name.chars().filter(|c| !c.is_control()).collect();
        let mut end = name.len().min(REPEATED_NAME_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        format!("{KEPT_PREFIX}{:012x}-{name}", self.next)
    }
}

impl TrashEntry {
    fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.path))
    }
}

/// The trash as it was written down last. What is kept without a record is taken in under the name
/// it has there; a record without its file is dropped.
pub(crate) fn load(
    records: Vec<(String, Vec<u8>)>,
    disk: &dyn Disk,
    now: Timespec,
) -> std::io::Result<Trash> {
    let mut trash = Trash::default();
    let mut files: BTreeSet<String> =
        disk.keep_list()?.into_iter().filter(|name| name.starts_with(KEPT_PREFIX)).collect();
    trash.recall(records, &mut files);
    for kept in files {
        let id = trash.id_for(&kept);
        trash.insert(id, unrecorded(kept, disk, now));
        trash.stale.insert(id);
    }
    Ok(trash)
}

fn unrecorded(kept: String, disk: &dyn Disk, at: Timespec) -> TrashEntry {
    let stat = disk.keep_open(&kept).and_then(|file| file.stat()).ok();
    let name = kept[KEPT_PREFIX.len()..].split_once('-').map_or("", |(_, name)| name);
    let name = if name.is_empty() { &kept } else { name };
    TrashEntry {
        path: name.as_bytes().to_vec(),
        node: NodeId::ROOT,
        at,
        peer: Slot(0),
        reason: TrashReason::Unknown,
        size_bytes: stat.map_or(0, |s| s.size_bytes),
        disk_bytes: stat.map_or(0, |s| s.blocks * 512),
        perm: stat.map_or(Perm::default(), |s| Perm {
            mode: s.mode as u16,
            uid: s.uid,
            gid: s.gid,
        }),
        times: stat.map_or(Times::at(at), |s| Times {
            atime: s.atime,
            mtime: s.mtime,
            ctime: s.ctime,
        }),
        kept,
    }
}

impl Volume {
    /// What is in the trash, newest first.
    pub fn trash_list(&self) -> Vec<TrashItem> {
        let state = self.read_state();
        let entries = state.trash.entries.values().rev();
        entries
            .map(|entry| TrashItem {
                path: entry.path(),
                at: entry.at,
                host: state.replica.tree.host(entry.peer).to_owned(),
                reason: entry.reason,
                size_bytes: entry.size_bytes,
            })
            .collect()
    }

    /// Figures for `status`.
    pub fn trash_status(&self) -> TrashStatus {
        let trash = &self.read_state().trash;
        TrashStatus {
            entries: trash.entries.len() as u64,
            bytes: trash.bytes,
            kept: trash.kept,
            expired: trash.expired,
        }
    }

    /// Removes a kept file for good; one that is not there any more is gone already.
    fn destroy(&self, entry: &TrashEntry) -> Result<()> {
        match self.disk.keep_remove(&entry.kept).map_err(Errno::from) {
            Err(Errno::NoEntry) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Records as they are written down.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let entry = TrashEntry {
        path: b"dir/file".to_vec(),
        node: NodeId(7),
        at: Timespec::default(),
        peer: Slot(2),
        reason: TrashReason::Removed,
        size_bytes: 3,
        disk_bytes: 4096,
        perm: Perm::default(),
        times: Times::at(Timespec::default()),
        kept: "trash-000000000007-file".to_owned(),
    };
    vec![postcard::to_stdvec(&entry).expect("records always encode")]
}

/// Whether a record is taken in; and whatever it says, the trash can be worked on.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn takes(bytes: &[u8]) -> bool {
    let Ok(entry) = postcard::from_bytes::<TrashEntry>(bytes) else { return false };
    let record = |id: u64| (format!("{RECORD_PREFIX}{id:016x}"), bytes.to_vec());
    let mut trash = Trash::default();
    for id in [3, entry.size_bytes, u64::MAX] {
        trash.recall(vec![record(id)], &mut BTreeSet::from([entry.kept.clone()]));
    }
    let id = trash.id_for(&format!("{KEPT_PREFIX}{:x}-x", entry.disk_bytes));
    trash.insert(id, entry.clone());
    trash.add(entry.clone());
    let _ = (trash.next_name(&entry.path()), trash.remove(3), trash.take_records());
    true
}
