//! What becomes of a file whose newest bytes a power cut took before any peer had them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::{Caller, Origin, Volume};
use lockstep_core::{NodeId, Shown, Slot};
use lockstep_disk::state::StateDb;
use lockstep_disk::{PlainDisk, describe_bytes};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// `O_CREAT | O_WRONLY | O_TRUNC`.
const WRITES: i32 = 0o1101;
const LEFT: &[u8] = b"what the cut left";

/// Writes `bytes` as the next version of `f`, in the log for itself.
fn write(volume: &Volume, bytes: &[u8]) -> (NodeId, Shown) {
    let caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
    let (node, fh) = match volume.lookup(NodeId::ROOT, b"f") {
        Ok(stat) => (stat.node, volume.open(stat.node, WRITES).unwrap().fh),
        Err(_) => {
            let (stat, opened) = volume.create(&caller, NodeId::ROOT, b"f", 0o644, WRITES).unwrap();
            (stat.node, opened.fh)
        }
    };
    volume.write(fh, 0, bytes, false, false).unwrap();
    volume.fsync(fh, false).unwrap();
    volume.release(fh);
    while let Some(due) = volume.announce_due() {
        std::thread::sleep(due);
    }
    volume.commit().unwrap();
    let state = volume.read_state();
    let file = state.replica.tree.node(node).unwrap().file().unwrap();
    assert_eq!(file.content, describe_bytes(bytes).content, "announced");
    (node, Shown { content: file.content, version: file.version })
}

/// Bytes of `f` once a cut has taken the last of `versions`, of which the peer has the first.
fn stands_after_a_cut(dir: &Path, versions: &[&[u8]]) -> Vec<u8> {
    std::fs::create_dir(dir.join("backing")).unwrap();
    let disk = Arc::new(PlainDisk::open(&dir.join("backing")).unwrap());
    let db = StateDb::open(&dir.join("state")).unwrap();
    let volume = Volume::start(disk, db, Slot(2), "here", Origin::Created).unwrap();
    volume.add_peer(Slot(1), "there");
    let written: Vec<_> = versions.iter().map(|bytes| write(&volume, bytes)).collect();
    let (node, at_the_peer) = written[0];

    std::fs::write(dir.join("backing/f"), LEFT).unwrap();
    let mut stat = volume.disk.stat(Path::new("f")).unwrap();
    stat.mtime = lockstep_core::Timespec::default();
    assert!(volume.write_state().take_lost(node, describe_bytes(LEFT).content, &stat));
    volume.queue_wanted();
    let next =
        || std::iter::repeat_with(|| volume.next_fetch(Duration::ZERO)).take(100).flatten().next();
    volume.content_gone(&next().unwrap(), Some(at_the_peer));
    if let Some(job) = next() {
        assert!(volume.begin(&job, describe_bytes(versions[0]).manifest).unwrap());
        assert!(job.transfer.put_chunk(0, versions[0]).unwrap());
        assert!(volume.install(&job).unwrap());
        let kept = volume.trash_list();
        assert_eq!(kept.len(), 1, "what the cut left is in the trash");
    }
    assert_eq!(volume.status().absent, 0);
    std::fs::read(dir.join("backing/f")).unwrap()
}

#[test]
fn the_version_that_was_written_over_stands_and_what_is_left_goes_to_the_trash() {
    let dir = tempfile::TempDir::new().unwrap();
    assert_eq!(stands_after_a_cut(dir.path(), &[b"first", b"lost"]), b"first");
}

#[test]
fn what_is_left_stands_if_the_peer_has_not_even_what_was_written_over() {
    let dir = tempfile::TempDir::new().unwrap();
    assert_eq!(stands_after_a_cut(dir.path(), &[b"first", b"second", b"lost"]), LEFT);
}
