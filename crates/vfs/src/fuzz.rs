//! Everything that this crate decodes: what the state database holds, names of private files, marks
//! of conflicts, files of git. `fuzz/` and the test below run all of it over altered bytes.

use crate::begun::Doing;
use crate::commit::Below;
use crate::{conflicts, residency, serve, trash};
use lockstep_core::change::Body;
use lockstep_core::tree::NodeRow;
use lockstep_core::{
    Change, Counters, EntryName, NodeId, Op, Perm, Replica, Sequence, Slot, Times, Timespec, Tree,
};
use lockstep_disk::Holding;
use serde::Serialize;

/// A decoder: its name, inputs that it accepts, and whether it accepts an input.
pub type Decoder = (&'static str, Vec<Vec<u8>>, fn(&[u8]) -> bool);

const BELOW: Below = Below { inode: 77, written: Timespec { secs: 7, nanos: 7 } };

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    let mut replica = written();
    let drained = replica.drain();
    let rows: Vec<(NodeRow, Below)> =
        drained.rows.into_iter().filter_map(|(_, row)| Some((row?, BELOW))).collect();
    let kept = serve::kept_name(&Holding { node: NodeId(7), content: [3; 8] });
    let mut all: Vec<Decoder> = vec![
        ("rows", vec![encoded(&rows)], tree),
        ("counters", vec![encoded(&drained.counters)], |b| {
            postcard::from_bytes::<Counters>(b).is_ok_and(|counters| counters.can_go_on())
        }),
        ("log entry", drained.changes.iter().map(encoded).collect(), |b| {
            postcard::from_bytes::<Change>(b).is_ok()
        }),
        ("residency", vec![vec![0], vec![1]], residency::is_mark),
        ("batch begun", vec![Doing::change(Slot(2), Sequence(9)).encode().to_vec()], |b| {
            Doing::decode(b).is_some_and(|doing| {
                assert_eq!(doing.encode(), *b, "nothing else is taken for it");
                true
            })
        }),
        ("trash record", trash::samples(), trash::takes),
        ("kept name", vec![kept.into()], |b| {
            std::str::from_utf8(b).is_ok_and(|name| serve::holding_of(name).is_some())
        }),
    ];
    all.extend(conflicts::fuzz::decoders());
    all
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("it always encodes")
}

/// A tree that was loaded is either refused or can be worked on.
fn tree(bytes: &[u8]) -> bool {
    let Ok(rows) = postcard::from_bytes::<Vec<(NodeRow, Below)>>(bytes) else { return false };
    let tree = Tree::load(rows.into_iter().map(|(row, _)| row));
    if tree.check().is_err() {
        return false;
    }
    let mut replica = Replica::new(Slot(1), tree, Counters::default());
    let node = replica.new_node();
    replica.local(made(node, NodeId::ROOT, "works", Body::Dir));
    let _ = replica.tree.path(node);
    true
}

fn made(node: NodeId, parent: NodeId, name: &str, body: Body) -> Op {
    let name = EntryName::new(name.as_bytes()).expect("a name");
    let (perm, times, at) = (Perm::default(), Times::default(), Timespec::default());
    let xattrs = vec![(b"user.a".to_vec(), b"v".to_vec())];
    Op::Create { node, parent, name, body, perm, times, xattrs, at }
}

fn written() -> Replica {
    let tree = Tree::new(Perm::default(), Times::default());
    let mut replica = Replica::new(Slot(1), tree, Counters::default());
    let dir = replica.new_node();
    replica.local(made(dir, NodeId::ROOT, "dir", Body::Dir));
    for (name, body) in
        [("file", Body::File(Default::default())), ("link", Body::Symlink(b"x".to_vec()))]
    {
        let node = replica.new_node();
        replica.local(made(node, dir, name, body));
        let (name, at) = (EntryName::new(b"other").expect("a name"), Timespec::default());
        replica.local(Op::Link { node, parent: NodeId::ROOT, name, at });
    }
    replica
}

#[cfg(test)]
#[path = "../../../fuzz/mutated.rs"]
mod mutated;

#[cfg(test)]
mod tests {
    #[test]
    fn no_decoder_breaks_over_altered_bytes() {
        super::mutated::run(&super::decoders(), 5_000);
    }
}
