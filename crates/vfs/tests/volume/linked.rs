//! Files with several names, found below at a start: after edits there, and after a crash.

use super::{O_CREAT_WRONLY, PEER, Replica, caller, entry, node, perm};
use lockstep_core::{NodeId, Op, Sequence, Times, Timespec};
use lockstep_disk::describe_bytes;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The peer made a file with the names `a` and `b`.
fn linked(bytes: &[u8]) -> Replica {
    let mut replica = Replica::new();
    let (mut changes, _) = replica.file(node(10), "a", bytes, true);
    let (at, parent) = (Timespec::default(), NodeId::ROOT);
    changes.push(replica.next(Op::Link { node: node(10), parent, name: entry("b"), at }, None));
    replica.volume.apply(PEER, &changes).unwrap();
    replica
}

fn shown(replica: &Replica, name: &str) -> NodeId {
    replica.volume.lookup(NodeId::ROOT, name.as_bytes()).unwrap().node
}

fn is_clean(replica: &Replica) {
    assert_eq!(replica.volume.verify(&|_| true).differences, []);
}

/// A new file takes the name `name` below.
fn replace(backing: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(backing.join("new"), bytes).unwrap();
    std::fs::rename(backing.join("new"), backing.join(name)).unwrap();
}

#[test]
fn a_name_of_several_that_is_given_to_another_file_is_of_another_file() {
    for name in ["a", "b"] {
        let other = if name == "a" { "b" } else { "a" };
        let replica = linked(b"bytes").restart(|backing| replace(backing, name, b"other"));
        assert_eq!(replica.read(name).unwrap(), b"other");
        assert_eq!(replica.read(other).unwrap(), b"bytes");
        assert_eq!(shown(&replica, other), node(10));
        assert_ne!(shown(&replica, name), node(10));
        is_clean(&replica);
    }
}

#[test]
fn a_name_that_is_given_to_a_file_with_another_name_is_one_of_that_file() {
    let mut replica = linked(b"bytes");
    let (changes, _) = replica.file(node(11), "c", b"other", true);
    replica.volume.apply(PEER, &changes).unwrap();
    let replica = replica.restart(|backing| {
        std::fs::remove_file(backing.join("c")).unwrap();
        std::fs::hard_link(backing.join("a"), backing.join("c")).unwrap();
    });
    assert_eq!(shown(&replica, "c"), node(10));
    is_clean(&replica);
}

#[test]
fn a_further_name_made_below_is_one_of_the_same_file_wherever_it_stands() {
    let mut replica = Replica::new();
    let (changes, _) = replica.file(node(10), "m", b"bytes", true);
    replica.volume.apply(PEER, &changes).unwrap();
    let replica = replica.restart(|backing| {
        for name in ["a", "z"] {
            std::fs::hard_link(backing.join("m"), backing.join(name)).unwrap();
        }
    });
    assert_eq!(["a", "m", "z"].map(|name| shown(&replica, name)), [node(10); 3]);
}

#[test]
fn new_content_that_had_one_of_two_names_at_a_crash_takes_both() {
    let mut replica = linked(b"older");
    let (content, perm) = (describe_bytes(b"newer bytes").content, perm());
    let base = lockstep_core::Version { lamport: 2, slot: PEER };
    let times = Times::at(Timespec { secs: 1_000, nanos: 0 });
    let newer = replica.next(Op::Content { node: node(10), base, content, times, perm }, None);
    replica.volume.apply(PEER, &[newer]).unwrap();
    let replica = replica.restart(|backing| {
        replace(backing, "a", b"newer bytes");
        let file = std::fs::File::options().write(true).open(backing.join("a")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000)).unwrap();
        std::fs::hard_link(backing.join("a"), backing.join("b.lockstep-link")).unwrap();
    });
    assert_eq!(replica.volume.last(), Sequence(0), "nothing was changed here");
    for name in ["a", "b"] {
        assert_eq!(replica.read(name).unwrap(), b"newer bytes");
    }
    assert!(!replica.below("b.lockstep-link").exists());
    assert_eq!(std::fs::metadata(replica.below("b")).unwrap().nlink(), 2);
    is_clean(&replica);
}

#[test]
fn what_was_to_be_kept_and_stands_after_a_crash_is_not_kept() {
    let replica = Replica::new();
    let made = replica.volume.create(&caller(), NodeId::ROOT, b"f", 0o644, O_CREAT_WRONLY);
    let (stat, opened) = made.unwrap();
    // Above what stays in memory.
    replica.volume.write(opened.fh, 0, &[7; 40_000], false, false).unwrap();
    replica.volume.flush(opened.fh).unwrap();
    replica.volume.release(opened.fh);
    replica.volume.announce_all();
    replica.volume.commit().unwrap();
    let beside = replica.dir.path().join("beside");
    std::fs::hard_link(replica.below("f"), &beside).unwrap();
    replica.volume.unlink(NodeId::ROOT, b"f").unwrap();
    let kept = replica.below(".lockstep/keep");
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1);

    // It was not removed after all: the name never went.
    let replica = replica.restart(|backing| std::fs::rename(&beside, backing.join("f")).unwrap());
    assert_eq!(shown(&replica, "f"), stat.node);
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
}
