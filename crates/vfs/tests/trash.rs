//! The trash of one volume, with a peer's changes, the clock and the disk's size made up.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::change::{Body, Exchange, RenameTarget};
use lockstep_core::{
    Change, EntryName, NodeId, Op, Perm, Sequence, Slot, Times, Timespec, Version,
};
use lockstep_disk::{DiskUsage, PlainDisk, StateDb, describe_bytes};
use lockstep_vfs::{
    Caller, Incoming, Origin, RestoreError, Told, TrashItem, TrashLimits, TrashReason, Volume,
};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HERE: Slot = Slot(1);
const PEER: Slot = Slot(2);
const ANYONE: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
const O_RDWR: i32 = 2;
/// Lamport time between two changes of the peer: more than passes here meanwhile.
const PEER_STEP: u64 = 1 << 52;

/// A volume, its directories, and a peer that sends changes.
struct Rig {
    volume: Option<Arc<Volume>>,
    dir: TempDir,
    sent: u64,
}

impl Rig {
    fn new() -> Rig {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        let mut rig = Rig { volume: None, dir, sent: 0 };
        rig.start(Origin::Created);
        rig
    }

    fn start(&mut self, origin: Origin) {
        self.volume = None;
        let disk = PlainDisk::open(&self.tree()).unwrap();
        let db = StateDb::open(&self.dir.path().join("state")).unwrap();
        let volume = Volume::start(Arc::new(disk), db, HERE, "here", origin).unwrap();
        volume.add_peer(PEER, "there");
        self.volume = Some(volume);
    }

    fn volume(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// A file written here, announced.
    fn write(&self, name: &str, text: &str) -> NodeId {
        self.write_in(NodeId::ROOT, name, text)
    }

    fn write_in(&self, dir: NodeId, name: &str, text: &str) -> NodeId {
        let created = self.volume().create(&ANYONE, dir, name.as_bytes(), 0o640, O_RDWR);
        let (stat, opened) = created.unwrap();
        self.write_open(opened.fh, text);
        stat.node
    }

    /// New bytes in a file, written here.
    fn rewrite(&self, node: NodeId, text: &str) {
        let opened = self.volume().open(node, O_RDWR).unwrap();
        self.write_open(opened.fh, text);
    }

    fn write_open(&self, fh: lockstep_vfs::Fh, text: &str) {
        let volume = self.volume();
        volume.write(fh, 0, text.as_bytes(), false, false).unwrap();
        volume.flush(fh).unwrap();
        volume.release(fh);
        volume.announce_all();
        volume.commit().unwrap();
    }

    /// Applies a change of the peer, made after everything so far.
    fn peer(&mut self, op: Op, inline: Option<&str>) {
        self.sent += 1;
        let version = Version { lamport: self.sent * PEER_STEP, slot: PEER };
        let change = Change { seq: Sequence(self.sent), version, op };
        let inline = inline.map(|text| text.as_bytes().to_vec());
        self.volume().apply(PEER, &[Incoming { change, inline }]).unwrap();
    }

    fn peer_makes(&mut self, counter: u64, name: &str, text: &str) -> NodeId {
        let node = NodeId::new(PEER, counter);
        let (parent, name) = (NodeId::ROOT, entry(name));
        let (body, perm) = (Body::File(Default::default()), Perm { mode: 0o644, uid: 0, gid: 0 });
        let (times, xattrs, at) = (Times::default(), Vec::new(), Timespec::default());
        self.peer(Op::Create { node, parent, name, body, perm, times, xattrs, at }, None);
        self.peer_writes(node, text);
        node
    }

    fn peer_writes(&mut self, node: NodeId, text: &str) {
        let base = self.seen_content(node);
        let content = describe_bytes(text.as_bytes()).content;
        let (times, perm) = (Times::default(), Perm { mode: 0o644, uid: 0, gid: 0 });
        self.peer(Op::Content { node, base, content, times, perm }, Some(text));
    }

    fn peer_removes(&mut self, node: NodeId, name: &str) {
        let made = Version { lamport: 0, slot: node.slot() };
        let (parent, name, seen) = (NodeId::ROOT, entry(name), self.seen_content(node).max(made));
        self.peer(Op::Unlink { node, parent, name, seen, at: Timespec::default() }, None);
    }

    /// Everything that was done so far.
    fn seen(&self) -> Version {
        Version { lamport: (self.sent + 1) * PEER_STEP, slot: PEER }
    }

    /// The version of the file's content, as its author stamped it.
    fn seen_content(&self, node: NodeId) -> Version {
        let mut told = Told::default();
        self.volume().tell_nodes(&[node], &self.volume().digests(), &mut told);
        told.changes.iter().fold(Version::default(), |seen, change| match &change.op {
            Op::Exchange(Exchange::Node(state)) if state.node == node => state.content_version,
            _ => seen,
        })
    }

    fn listed(&self) -> Vec<(String, TrashReason)> {
        let line = |item: TrashItem| (item.path.to_string_lossy().into_owned(), item.reason);
        self.volume().trash_list().into_iter().map(line).collect()
    }

    /// Files of the trash. Others beside them are kept for a peer, until it has everything.
    fn kept_files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.tree().join(".lockstep/keep")).unwrap();
        let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("trash-")).collect()
    }
}

fn entry(name: &str) -> EntryName {
    EntryName::new(name.as_bytes()).unwrap()
}

/// A disk of `mebibytes`, half of it free.
fn disk(mebibytes: u64) -> DiskUsage {
    DiskUsage {
        fragment_size_bytes: 1 << 20,
        blocks: mebibytes,
        blocks_available: mebibytes / 2,
        ..DiskUsage::default()
    }
}

fn now() -> Timespec {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timespec { secs: now.as_secs() as i64, nanos: 0 }
}

#[test]
fn what_a_peer_removes_replaces_or_overwrites_is_kept_and_listed() {
    let mut rig = Rig::new();
    let (one, two, three) = (rig.write("1", "one"), rig.write("2", "two"), rig.write("3", "three"));
    rig.peer_removes(one, "1");
    rig.peer_writes(two, "newer");
    let fresh = rig.peer_makes(7, "3.new", "another three");
    let target = RenameTarget::Replaced { node: three, seen: rig.seen() };
    let (from, to) = ((NodeId::ROOT, entry("3.new")), (NodeId::ROOT, entry("3")));
    rig.peer(Op::Rename { node: fresh, from, to, target, at: Timespec::default() }, None);
    let expected = [
        ("3".to_owned(), TrashReason::Replaced),
        ("2".to_owned(), TrashReason::Overwritten),
        ("1".to_owned(), TrashReason::Removed),
    ];
    assert_eq!(rig.listed(), expected);
    let item = &rig.volume().trash_list()[0];
    assert_eq!((item.size_bytes, item.host.as_str()), (5, "there"));
    assert!((now().secs - item.at.secs).abs() < 60);
    assert_eq!(std::fs::read(rig.tree().join("2")).unwrap(), b"newer");
    assert_eq!(std::fs::read(rig.tree().join("3")).unwrap(), b"another three");
}

#[test]
fn what_a_peer_truncates_is_kept() {
    let mut rig = Rig::new();
    let node = rig.write("notes", "all that was written");
    rig.peer_writes(node, "");
    assert_eq!(std::fs::read(rig.tree().join("notes")).unwrap(), b"");
    rig.volume().restore(Path::new("notes")).unwrap();
    let files = std::fs::read_dir(rig.tree()).unwrap().map(|file| file.unwrap().path());
    let texts: Vec<_> = files.filter(|p| p.is_file()).map(|p| std::fs::read(p).unwrap()).collect();
    assert!(texts.contains(&b"all that was written".to_vec()) && texts.len() == 2);
}

#[test]
fn what_is_removed_here_is_not_kept() {
    let rig = Rig::new();
    rig.write("1", "one");
    rig.volume().unlink(NodeId::ROOT, b"1").unwrap();
    assert_eq!(rig.listed(), []);
}

#[test]
fn throw_away_files_of_a_peer_and_empty_ones_are_not_kept() {
    let mut rig = Rig::new();
    let empty = rig.write("empty", "");
    rig.peer_removes(empty, "empty");
    assert_eq!(rig.listed(), []);
    for counter in 7.. {
        let start = Instant::now();
        let lock = rig.peer_makes(counter, "index.lock", "written and removed within moments");
        rig.peer_removes(lock, "index.lock");
        if start.elapsed() < Duration::from_millis(900) {
            break;
        }
        // This machine was busy with others: it was not moments.
        rig.volume().empty_trash().unwrap();
    }
    assert_eq!(rig.listed(), []);
    assert!(!rig.tree().join("index.lock").exists() && !rig.tree().join("empty").exists());
}

#[test]
fn a_file_of_a_peer_that_has_stood_for_a_while_is_kept() {
    let mut rig = Rig::new();
    let node = rig.peer_makes(7, "notes", "of the peer");
    let born = std::fs::metadata(rig.tree().join("notes")).unwrap().created().unwrap();
    while born.elapsed().unwrap_or_default() < Duration::from_millis(1_010) {
        std::thread::yield_now();
    }
    rig.peer_removes(node, "notes");
    assert_eq!(rig.listed(), [("notes".to_owned(), TrashReason::Removed)]);
}

#[test]
fn what_was_left_in_a_directory_that_a_peer_removed_is_kept() {
    let mut rig = Rig::new();
    let node = NodeId::new(PEER, 7);
    let (parent, name, body) = (NodeId::ROOT, entry("d"), Body::Dir);
    let perm = Perm { mode: 0o755, uid: 0, gid: 0 };
    let (times, xattrs, at) = (Times::default(), Vec::new(), Timespec::default());
    rig.peer(Op::Create { node, parent, name, body, perm, times, xattrs, at }, None);
    std::fs::create_dir(rig.tree().join("d/deep")).unwrap();
    std::fs::write(rig.tree().join("d/deep/left"), "behind the volume's back").unwrap();
    rig.peer_removes(node, "d");
    assert!(!rig.tree().join("d").exists());
    assert_eq!(rig.listed(), [("d/deep/left".to_owned(), TrashReason::LeftOver)]);
    rig.volume().restore(Path::new("d/deep/left")).unwrap();
    let back = std::fs::read(rig.tree().join("d/deep/left")).unwrap();
    assert_eq!(back, b"behind the volume's back");
}

#[test]
fn a_restored_file_is_a_new_file_and_overwrites_nothing() {
    let mut rig = Rig::new();
    let first = rig.write("notes.txt", "first");
    rig.peer_removes(first, "notes.txt");
    rig.write("notes.txt", "second");
    let restored = rig.volume().restore(Path::new("notes.txt")).unwrap();
    let name = restored.path.to_str().unwrap();
    assert!(name.starts_with("notes (restored ") && name.ends_with(").txt"), "{name}");
    assert_eq!(std::fs::read(rig.tree().join("notes.txt")).unwrap(), b"second");
    assert_eq!(std::fs::read(rig.tree().join(name)).unwrap(), b"first");
    assert_eq!(std::fs::metadata(rig.tree().join(name)).unwrap().mode() & 0o777, 0o640);
    let stat = rig.volume().lookup(NodeId::ROOT, name.as_bytes()).unwrap();
    assert_eq!((stat.size_bytes, stat.node.slot()), (5, HERE));
    assert_eq!(rig.listed(), []);
    let missing = rig.volume().restore(Path::new("notes.txt"));
    assert!(matches!(missing, Err(RestoreError::Unknown { .. })));
}

#[test]
fn symlinks_and_attributes_come_back_too() {
    let mut rig = Rig::new();
    let link = rig.volume().symlink(&ANYONE, NodeId::ROOT, b"link", b"some/where").unwrap().node;
    let file = rig.write("file", "with an attribute");
    rig.volume().set_xattr(file, b"user.colour", b"blue", 0).unwrap();
    rig.peer_removes(link, "link");
    rig.peer_removes(file, "file");
    assert_eq!(rig.listed().len(), 2);
    for name in ["link", "file"] {
        rig.volume().restore(Path::new(name)).unwrap();
    }
    let found = |name: &[u8]| rig.volume().lookup(NodeId::ROOT, name).unwrap().node;
    assert_eq!(rig.volume().readlink(found(b"link")).unwrap(), b"some/where");
    assert_eq!(rig.volume().get_xattr(found(b"file"), b"user.colour").unwrap(), b"blue");
}

#[test]
fn a_file_that_keeps_another_name_is_not_lost_and_not_kept() {
    let mut rig = Rig::new();
    let node = rig.write("one", "two names");
    rig.volume().link(node, NodeId::ROOT, b"two").unwrap();
    rig.peer_removes(node, "one");
    assert_eq!(rig.listed(), []);
    assert!(!rig.tree().join("one").exists());
    assert_eq!(std::fs::read(rig.tree().join("two")).unwrap(), b"two names");
    rig.peer_removes(node, "two");
    assert_eq!(rig.listed(), [("two".to_owned(), TrashReason::Removed)]);
}

#[test]
fn the_newest_of_several_versions_is_restored() {
    let mut rig = Rig::new();
    for text in ["oldest", "older", "newest"] {
        let node = rig.write("n", text);
        rig.peer_removes(node, "n");
    }
    assert_eq!(rig.volume().restore(Path::new("n")).unwrap().path, Path::new("n"));
    assert_eq!(std::fs::read(rig.tree().join("n")).unwrap(), b"newest");
    assert_eq!(rig.listed().len(), 2);
}

#[test]
fn a_removed_directory_comes_back_whole_and_replaces_nothing() {
    let mut rig = Rig::new();
    let dir = rig.volume().mkdir(&ANYONE, NodeId::ROOT, b"dir", 0o755).unwrap().node;
    for name in ["one", "two"] {
        let node = rig.write_in(dir, name, name);
        let (name, seen) = (entry(name), rig.seen());
        let at = Timespec::default();
        rig.peer(Op::Unlink { node, parent: dir, name, seen, at }, None);
    }
    rig.write_in(dir, "two", "written since");
    let restored = rig.volume().restore(Path::new("dir")).unwrap();
    assert_eq!((restored.path.as_path(), restored.files), (Path::new("dir"), 1));
    assert_eq!(std::fs::read(rig.tree().join("dir/one")).unwrap(), b"one");
    assert_eq!(std::fs::read(rig.tree().join("dir/two")).unwrap(), b"written since");
    assert_eq!(rig.listed(), [("dir/two".to_owned(), TrashReason::Removed)]);
}

#[test]
fn old_versions_go_and_young_ones_stay() {
    let mut rig = Rig::new();
    let node = rig.write("n", "kept for a while");
    rig.peer_removes(node, "n");
    let after = |days: i64| Timespec { secs: now().secs + days * 24 * 3600, nanos: 0 };
    rig.volume().expire_trash(after(6), &disk(1_000)).unwrap();
    assert_eq!(rig.listed().len(), 1);
    rig.volume().expire_trash(after(8), &disk(1_000)).unwrap();
    assert_eq!((rig.listed().len(), rig.kept_files()), (0, Vec::new()));
    let status = rig.volume().trash_status();
    assert_eq!((status.entries, status.bytes, status.kept, status.expired), (0, 0, 1, 1));
}

#[test]
fn the_oldest_go_when_there_is_too_much() {
    let mut rig = Rig::new();
    for name in ["1", "2", "3"] {
        let node = rig.write(name, &"x".repeat(1 << 20));
        rig.peer_removes(node, name);
    }
    let held = rig.volume().trash_status().bytes;
    assert!(held >= 3 << 20, "{held}");
    rig.volume().expire_trash(now(), &disk(100)).unwrap();
    assert_eq!(rig.listed().len(), 3, "10 of 100 MiB are allowed");
    rig.volume().expire_trash(now(), &disk(25)).unwrap();
    let names: Vec<String> = rig.listed().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["3", "2"], "2.5 MiB are allowed");
    let limits = TrashLimits { disk_percent_max: 0, ..TrashLimits::default() };
    rig.volume().set_trash_limits(limits);
    rig.volume().expire_trash(now(), &disk(25)).unwrap();
    assert_eq!((rig.listed().len(), rig.kept_files()), (0, Vec::new()));
}

#[test]
fn a_disk_that_fills_up_takes_the_trash_back() {
    let limits = TrashLimits::default();
    let full = DiskUsage { blocks_available: 0, ..disk(1_000) };
    assert_eq!(limits.bytes_max(&full, 10 << 20), 5 << 20);
    assert_eq!(limits.bytes_max(&disk(1_000), 0), 100 << 20);
}

#[test]
fn one_file_does_not_fill_the_trash_with_its_versions() {
    let mut rig = Rig::new();
    let other = rig.write("other", "rarely changed");
    rig.peer_removes(other, "other");
    let busy = rig.write("busy", "version 0");
    for version in 0..40 {
        rig.peer_writes(busy, &format!("version {version} of the peer"));
        rig.rewrite(busy, &format!("version {version} of this machine"));
    }
    let of_busy = rig.listed().iter().filter(|(name, _)| name == "busy").count();
    assert_eq!(of_busy, 32);
    assert_eq!(rig.kept_files().len(), 33, "and the other file");
    assert_eq!(std::fs::read_dir(rig.tree()).unwrap().count(), 2, "no conflicts: .lockstep, busy");
}

#[test]
fn the_trash_survives_a_restart_also_one_without_its_records() {
    let mut rig = Rig::new();
    let node = rig.write("notes", "of long ago");
    rig.peer_removes(node, "notes");
    let before = rig.volume().trash_list();
    assert_eq!(before.len(), 1);
    rig.start(Origin::Existing);
    assert_eq!(rig.volume().trash_list(), before);

    rig.volume = None;
    std::fs::remove_dir_all(rig.dir.path().join("state")).unwrap();
    rig.start(Origin::Created);
    assert_eq!(rig.listed(), [("notes".to_owned(), TrashReason::Unknown)]);
    rig.volume().restore(Path::new("notes")).unwrap();
    assert_eq!(std::fs::read(rig.tree().join("notes")).unwrap(), b"of long ago");
    assert_eq!(rig.volume().empty_trash().unwrap(), 0);
}

#[test]
fn emptying_removes_everything_for_good() {
    let mut rig = Rig::new();
    let node = rig.write("notes", "text");
    rig.peer_removes(node, "notes");
    assert_eq!(rig.volume().empty_trash().unwrap(), 1);
    assert_eq!((rig.listed().len(), rig.kept_files()), (0, Vec::new()));
    rig.start(Origin::Existing);
    assert_eq!(rig.listed(), []);
}
