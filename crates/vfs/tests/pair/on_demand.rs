//! A side that has only what was asked for there: what it asked for comes, whatever becomes of it
//! meanwhile.

use crate::calls::{close, write_new};
use crate::side::Side;
use lockstep_core::NodeId;
use lockstep_vfs::{Policy, RenameMode};

const LARGE: usize = 200_000;

fn sides() -> [Side; 2] {
    let sides = [Side::new(1), Side::new(2)];
    sides[1].volume.set_policy(Policy::OnDemand);
    sides
}

/// What replaces a file whose bytes are here is asked for. If it is superseded before it came, its
/// successor is waited for in its place.
#[test]
fn what_supersedes_a_content_that_was_asked_for_is_asked_for_too() {
    let [one, two] = sides();
    write_new(&one.volume, b"old", &[b'o'; 100]);
    one.announce();
    while two.receive(&one, 64) {}
    let node = write_new(&one.volume, b"new", &[b'1'; LARGE]);
    one.announce();
    one.volume.link(node, NodeId::ROOT, b"other name").unwrap();
    one.volume.rename(NodeId::ROOT, b"new", NodeId::ROOT, b"old", RenameMode::Replace).unwrap();
    one.announce();
    let opened = one.volume.open(node, 0o1 | 0o1000).unwrap();
    one.volume.write(opened.fh, 0, &[b'2'; LARGE], false, false).unwrap();
    close(&one.volume, opened.fh);
    one.announce();
    for _ in 0..8 {
        // Before it is tried again.
        while two.receive(&one, 64) {}
        two.retry();
        while two.fetch_one(&one) {}
    }
    assert_eq!(two.volume.status().absent, 0, "it is waited for, and nobody fetches it");
    let opened = two.volume.open(node, 0).unwrap();
    let bytes = two.volume.read(opened.fh, 0, 1 << 20).unwrap();
    two.volume.release(opened.fh);
    assert!(bytes == [b'2'; LARGE]);
}
