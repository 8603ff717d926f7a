//! Two replicas of one volume, compared while changes travel between them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::{NodeId, Sequence, Slot};
use lockstep_disk::{PlainDisk, StateDb};
use lockstep_vfs::{Caller, Differing, Incoming, Origin, Volume};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const SLOTS: [Slot; 2] = [Slot(1), Slot(2)];
const ANYONE: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };

struct Side {
    volume: Arc<Volume>,
    _dir: TempDir,
}

fn sides() -> [Side; 2] {
    [0, 1].map(|number| {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        let disk = PlainDisk::open(&dir.path().join("tree")).unwrap();
        let db = StateDb::open(&dir.path().join("state")).unwrap();
        let origin = [Origin::Created, Origin::Joining][number];
        let volume = Volume::start(Arc::new(disk), db, SLOTS[number], "host", origin).unwrap();
        volume.add_peer(SLOTS[1 - number], "other");
        Side { volume, _dir: dir }
    })
}

fn make_dir(side: &Side, name: &str) -> NodeId {
    side.volume.mkdir(&ANYONE, NodeId::ROOT, name.as_bytes(), 0o755).unwrap().node
}

/// Everything that `from` has done reaches `to`.
fn ship(from: &Side, to: &Side, slot: Slot) {
    from.volume.commit().unwrap();
    let after: Sequence = to.volume.applied(slot);
    let changes = from.volume.log_after(after, usize::MAX).unwrap();
    let changes = changes.into_iter().map(|change| Incoming { change, inline: None });
    to.volume.apply(slot, &changes.collect::<Vec<_>>()).unwrap();
}

fn compare(one: &Side, two: &Side, between: &mut dyn FnMut()) -> Vec<Differing> {
    let there = std::cell::RefCell::new(two.volume.digests());
    let mut ask = |ranges: &[lockstep_core::NodeRange]| {
        Ok(ranges.iter().map(|range| there.borrow().part(*range)).collect())
    };
    let mut between = || {
        between();
        *there.borrow_mut() = two.volume.digests();
        Ok(())
    };
    one.volume.compare(&mut ask, &mut between).unwrap()
}

/// Two replicas that have made something each, over directories with times of their own.
fn alike() -> [Side; 2] {
    let [one, two] = sides();
    make_dir(&one, "first");
    ship(&one, &two, SLOTS[0]);
    make_dir(&two, "second");
    ship(&two, &one, SLOTS[1]);
    [one, two]
}

#[test]
fn replicas_with_the_same_changes_are_alike() {
    let [one, two] = alike();
    assert_eq!(compare(&one, &two, &mut || panic!("one look is enough")), []);
}

#[test]
fn what_stays_different_is_named() {
    let [one, two] = alike();
    let ours = make_dir(&one, "only here");
    let theirs = make_dir(&two, "only there");
    let found = compare(&one, &two, &mut || ());
    let find = |node| found.iter().find(|differing| differing.node == node).unwrap();
    assert_eq!(find(ours).path.as_deref(), Some(Path::new("only here")));
    assert_eq!(find(theirs).path, None);
    assert!(found.iter().any(|d| d.node == NodeId::ROOT), "its times differ too");
}

#[test]
fn what_is_on_its_way_is_not_a_difference() {
    let [one, two] = alike();
    make_dir(&one, "new here");
    make_dir(&two, "new there");
    let mut deliver = || {
        ship(&one, &two, SLOTS[0]);
        ship(&two, &one, SLOTS[1]);
    };
    assert_eq!(compare(&one, &two, &mut deliver), []);
}

#[test]
fn a_peer_that_does_not_answer_is_not_compared() {
    let [one, _] = alike();
    let mut ask = |_: &[lockstep_core::NodeRange]| Err("gone".to_owned());
    assert_eq!(one.volume.compare(&mut ask, &mut || Ok(())), Err("gone".to_owned()));
}

#[test]
fn a_removed_file_is_remembered_until_what_the_peer_did_before_it_knew_has_come() {
    let [one, two] = sides();
    let (stat, made) = one.volume.create(&ANYONE, NodeId::ROOT, b"f", 0o644, 0o101).unwrap();
    one.volume.release(made.fh);
    ship(&one, &two, SLOTS[0]);
    let node = stat.node;
    let opened = two.volume.open(node, 1).unwrap();
    two.volume.write(opened.fh, 0, b"edited", false, false).unwrap();
    two.volume.release(opened.fh);
    two.volume.announce_all();
    one.volume.unlink(NodeId::ROOT, b"f").unwrap();
    ship(&one, &two, SLOTS[0]);

    // The edit is still on its way here when two says that it knows.
    let (known, last) = (one.volume.log_last(), two.volume.last());
    one.volume.acked(SLOTS[1], known, known, true);
    one.volume.heard(SLOTS[1], known, last);
    (0..3).for_each(|_| one.volume.trim().unwrap());
    ship(&two, &one, SLOTS[1]);
    assert_eq!(one.volume.lookup(NodeId::ROOT, b"f").unwrap().node, node);
    assert_eq!(two.volume.lookup(NodeId::ROOT, b"f").unwrap().node, node);
    assert_eq!(compare(&one, &two, &mut || ()), []);
}
