//! A receiver that ends in the middle of a batch, at each change of it, takes nothing of it for its
//! own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::{ApplyError, Incoming, Origin, Volume};
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::{
    Change, ContentRef, EntryName, NodeId, Op, Perm, Sequence, Slot, Times, Timespec, Version,
};
use lockstep_disk::state::StateDb;
use lockstep_disk::{PlainDisk, describe_bytes};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PEER: Slot = Slot(1);
const ROOT: NodeId = NodeId::ROOT;

fn start(dir: &Path, origin: Origin) -> Arc<Volume> {
    let disk = Arc::new(PlainDisk::open(&dir.join("backing")).unwrap());
    let db = StateDb::open(&dir.join("state")).unwrap();
    let volume = Volume::start(disk, db, Slot(2), "here", origin).unwrap();
    volume.add_peer(PEER, "there");
    volume
}

fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

fn numbered(op: Op, seq: usize, inline: Option<&[u8]>) -> Incoming {
    let version = Version { lamport: seq as u64, slot: PEER };
    let change = Change { seq: Sequence(seq as u64), version, op };
    Incoming { change, inline: inline.map(<[u8]>::to_vec) }
}

/// The peer makes `name` anew five times and each time moves it over `ref`.
fn replacements() -> Vec<Incoming> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (perm, at) = (Perm { mode: 0o644, uid, gid }, Timespec::default());
    let mut changes: Vec<Incoming> = Vec::new();
    let mut replaced = RenameTarget::Free;
    for number in 1..=5_u64 {
        let node = NodeId::new(PEER, number);
        let times = Times::at(Timespec { secs: 1_000 + number as i64, nanos: 0 });
        let (parent, xattrs, body) = (ROOT, Vec::new(), Body::File(ContentRef::default()));
        let create =
            Op::Create { node, parent, name: name("ref.lock"), body, perm, times, xattrs, at };
        changes.push(numbered(create, changes.len() + 1, None));
        let bytes = format!("version {number}").into_bytes();
        let base = changes[changes.len() - 1].change.version;
        let content =
            Op::Content { node, base, content: describe_bytes(&bytes).content, times, perm };
        changes.push(numbered(content, changes.len() + 1, Some(&bytes)));
        let seen = changes[changes.len() - 1].change.version;
        let (from, to) = ((ROOT, name("ref.lock")), (ROOT, name("ref")));
        let rename = Op::Rename { node, from, to, target: replaced, at };
        changes.push(numbered(rename, changes.len() + 1, None));
        replaced = RenameTarget::Replaced { node, seen };
    }
    changes
}

/// Brings what a change that was begun had inside.
fn fetch(volume: &Volume) {
    let job =
        std::iter::repeat_with(|| volume.next_fetch(Duration::ZERO)).flatten().next().unwrap();
    let number = job.node.counter();
    let bytes = format!("version {number}").into_bytes();
    assert!(volume.begin(&job, describe_bytes(&bytes).manifest).unwrap());
    assert!(job.transfer.put_chunk(0, &bytes).unwrap());
    volume.install(&job).unwrap();
}

/// A volume that has the first three of `changes`, and the others noted as the batch that comes.
fn with_batch_noted(dir: &Path, changes: &[Incoming]) -> Arc<Volume> {
    std::fs::create_dir(dir.join("backing")).unwrap();
    let volume = start(dir, Origin::Joining);
    volume.apply(PEER, &changes[..3]).unwrap();
    volume.note_batch(PEER, &changes[3..]).unwrap();
    volume
}

/// Applies `done` of `changes` and begins one more if `begun`; the process ends before anything is
/// written down, and another starts.
fn ends_after(done: usize, begun: bool) {
    let dir = tempfile::TempDir::new().unwrap();
    let rest = &replacements()[3..];
    let volume = with_batch_noted(dir.path(), &replacements());
    volume.apply_unwritten(PEER, &rest[..done], &mut Vec::new()).unwrap();
    if let Some(next) = rest.get(done).filter(|_| begun) {
        volume.note_begun(super::Doing::change(PEER, next.change.seq)).unwrap();
    }
    drop(volume);

    let volume = start(dir.path(), Origin::Existing);
    assert_eq!(volume.last(), Sequence(0), "after {done}: nothing was changed here");
    let seq = volume.applied(PEER);
    let rest: Vec<_> = rest.iter().filter(|i| i.change.seq > seq).cloned().collect();
    while let Err(ApplyError::Waiting(_)) = volume.apply(PEER, &rest) {
        fetch(&volume);
    }
    assert_eq!(volume.last(), Sequence(0), "after {done}");
    let mut below = std::fs::read_dir(dir.path().join("backing"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lockstep")
        .collect::<Vec<_>>();
    below.sort();
    assert_eq!(below, ["ref"], "after {done}");
    let bytes = std::fs::read(dir.path().join("backing/ref")).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), "version 5", "after {done}");
}

#[test]
fn a_batch_that_was_begun_and_not_written_down_is_no_edit_made_here() {
    for done in 0..=12 {
        ends_after(done, false);
    }
}

/// What does not tell how far the batch got tells nothing: the changes come again.
#[test]
fn a_damaged_note_of_how_far_a_batch_got_loses_nothing_of_it() {
    let mut too_far = [1_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
    let damages = [too_far.clone(), b"garbage".to_vec(), Vec::new(), {
        too_far.extend([0; 8]);
        too_far
    }];
    for damaged in damages {
        let dir = tempfile::TempDir::new().unwrap();
        let rest = &replacements()[3..];
        drop(with_batch_noted(dir.path(), &replacements()));
        std::fs::write(dir.path().join("backing/.lockstep/tmp/begun"), &damaged).unwrap();

        let volume = start(dir.path(), Origin::Existing);
        assert_eq!(volume.applied(PEER), Sequence(3), "{damaged:?}");
        volume.apply(PEER, rest).unwrap();
        let bytes = std::fs::read(dir.path().join("backing/ref")).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), "version 5", "{damaged:?}");
    }
}

#[test]
fn nor_is_one_whose_last_change_was_not_carried_out() {
    for done in 0..12 {
        ends_after(done, true);
    }
}
