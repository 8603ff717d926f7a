//! Files that a peer replaces by others whose bytes nobody has any more.

use super::{Replica, node};
use lockstep_core::NodeId;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_replacement_whose_bytes_are_gone_shows_the_bytes_it_replaced_until_its_successor_comes() {
    let mut replica = Replica::new();
    let (changes, first) = replica.file(node(10), "ref", b"first", true);
    replica.volume.apply(super::PEER, &changes).unwrap();
    assert_eq!(replica.read("ref").unwrap(), b"first");

    // The second version was replaced by the third before its bytes were sent.
    let (changes, second) = replica.file(node(11), "ref.lock", b"second", false);
    replica.volume.apply(super::PEER, &changes).unwrap();
    let job = std::iter::repeat_with(|| replica.volume.next_fetch(SOON)).flatten().next().unwrap();
    replica.volume.content_gone(&job, None);
    let moved = replica.moved_over(node(11), "ref.lock", "ref", (node(10), first));
    replica.volume.apply(super::PEER, &[moved]).unwrap();
    assert_eq!(replica.read("ref").unwrap(), b"first");
    let stat = replica.volume.lookup(NodeId::ROOT, b"ref").unwrap();
    assert_eq!((stat.node, stat.size_bytes), (node(11), 5));
    assert_eq!(replica.volume.status().absent, 1, "it is still wanted");

    let (changes, _) = replica.file(node(12), "ref.lock", b"the third", true);
    replica.volume.apply(super::PEER, &changes).unwrap();
    let moved = replica.moved_over(node(12), "ref.lock", "ref", (node(11), second));
    replica.volume.apply(super::PEER, &[moved]).unwrap();
    assert_eq!(replica.read("ref").unwrap(), b"the third");
    assert_eq!(replica.volume.status().absent, 0);
}
