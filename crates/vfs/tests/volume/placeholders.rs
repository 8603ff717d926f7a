//! What stands below for absent bytes, when they turn out not to be absent.

use super::{PEER, Replica, entry, node, perm};
use lockstep_core::{ContentRef, NodeId, Op, Times, Timespec};
use std::os::unix::fs::PermissionsExt;

#[test]
fn an_absent_file_that_its_author_empties_is_an_empty_file_below() {
    let mut replica = Replica::new();
    let (changes, base) = replica.file(node(10), "f", b"never sent", false);
    replica.volume.apply(PEER, &changes).unwrap();
    assert_eq!(std::fs::metadata(replica.below("f")).unwrap().len(), 10, "a placeholder");

    let (content, times, perm) = (ContentRef::default(), Times::default(), perm());
    let emptied = Op::Content { node: node(10), base, content, times, perm };
    let emptied = replica.next(emptied, None);
    replica.volume.apply(PEER, &[emptied]).unwrap();
    let stat = std::fs::metadata(replica.below("f")).unwrap();
    assert_eq!((stat.len(), stat.permissions().mode() & 0o777), (0, 0o644));
    assert_eq!(replica.read("f").unwrap(), b"");
    assert_eq!(replica.volume.verify(&|_| true).differences, []);
}

#[test]
fn a_placeholder_moved_over_one_name_of_a_file_does_not_take_the_bytes_of_its_other_names() {
    let mut replica = Replica::new();
    // While a name waits for another to go, the scan does not follow moves.
    replica.volume.mkdir(&super::caller(), NodeId::ROOT, b"contended", 0o755).unwrap();
    let (changes, _) = replica.file(node(9), "contended", b"older", true);
    replica.volume.apply(PEER, &changes).unwrap();
    let (changes, _) = replica.file(node(10), "a", b"bytes", true);
    replica.volume.apply(PEER, &changes).unwrap();
    let (at, parent) = (Timespec::default(), NodeId::ROOT);
    let link = replica.next(Op::Link { node: node(10), parent, name: entry("b"), at }, None);
    let (absent, _) = replica.file(node(11), "absent", b"never sent", false);
    replica.volume.apply(PEER, &[vec![link], absent].concat()).unwrap();

    // A crash came between this rename and its being written down.
    let replica = replica.restart(|backing| {
        std::fs::rename(backing.join("absent"), backing.join("a")).unwrap();
    });
    assert_eq!(replica.read("b").unwrap(), b"bytes");
}
