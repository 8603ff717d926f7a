//! What a user of one replica may do: the operations of `vfs`, reduced to what reaches `core`.

use crate::rng::Rng;
use crate::side::Side;
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::{
    ContentHash, ContentRef, EntryName, Kind, NodeId, Op, Perm, Replica, Times, Timespec,
};

/// Few names, so that they collide.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Does one random thing.
pub fn act(side: &mut Side, rng: &mut Rng, at: Timespec) -> Result<(), String> {
    let ops = choose(&mut side.replica, rng, at);
    ops.into_iter().try_for_each(|op| side.local(op))
}

fn choose(replica: &mut Replica, rng: &mut Rng, at: Timespec) -> Vec<Op> {
    match rng.below(12) {
        0 | 1 => create(replica, rng, at, Body::File(ContentRef::default())),
        2 => create(replica, rng, at, Body::Dir),
        10 => create(replica, rng, at, Body::Symlink(b"target".to_vec())),
        11 => set_xattr(replica, rng, at),
        3 | 4 => write(replica, rng, at),
        5 | 6 => rename(replica, rng, at),
        7 => link(replica, rng, at),
        8 => remove(replica, rng, at),
        _ => chmod(replica, rng, at),
    }
}

fn name(rng: &mut Rng) -> EntryName {
    let name = rng.pick(&NAMES).expect("there are names");
    EntryName::new(name.as_bytes()).expect("they are valid")
}

/// Every shown name: (directory, name, node).
fn entries(replica: &Replica) -> Vec<(NodeId, EntryName, NodeId)> {
    let mut all = Vec::new();
    for dir in dirs(replica) {
        let entries = replica.tree.node(dir).and_then(|n| n.dir());
        all.extend(entries.into_iter().flat_map(|d| {
            d.after(0).map(move |(_, name, id)| (dir, name.clone(), id)).collect::<Vec<_>>()
        }));
    }
    all.sort();
    all
}

fn dirs(replica: &Replica) -> Vec<NodeId> {
    let named = |id, node: &lockstep_core::tree::Node| {
        node.dir().is_some() && (id == NodeId::ROOT || !node.links.is_empty())
    };
    let mut all: Vec<NodeId> = replica
        .tree
        .iter()
        .filter(|(id, node)| named(*id, node) && replica.tree.path(*id).is_some())
        .map(|(id, _)| id)
        .collect();
    all.sort();
    all
}

fn create(replica: &mut Replica, rng: &mut Rng, at: Timespec, body: Body) -> Vec<Op> {
    let dirs = dirs(replica);
    let Some(parent) = rng.pick(&dirs).copied() else { return Vec::new() };
    let name = name(rng);
    if replica.tree.lookup(parent, name.as_bytes()).is_some() {
        return Vec::new();
    }
    let (node, perm) = (replica.new_node(), Perm { mode: 0o644, uid: 0, gid: 0 });
    let (times, xattrs) = (Times::at(at), Vec::new());
    vec![Op::Create { node, parent, name, body, perm, times, xattrs, at }]
}

fn write(replica: &mut Replica, rng: &mut Rng, at: Timespec) -> Vec<Op> {
    let entries = entries(replica);
    let files: Vec<NodeId> = entries
        .iter()
        .filter(|(_, _, id)| replica.tree.node(*id).is_some_and(|n| n.kind() == Kind::File))
        .map(|(_, _, id)| *id)
        .collect();
    let Some(node) = rng.pick(&files).copied() else { return Vec::new() };
    let Some(stands) = replica.tree.node(node) else { return Vec::new() };
    let Some(file) = stands.file() else { return Vec::new() };
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&rng.bits().to_le_bytes());
    let content = ContentRef { size_bytes: 1 + rng.below(9) as u64, hash: ContentHash(hash) };
    let (base, perm) = (file.version, stands.perm);
    let times = Times { mtime: at, ctime: at, ..stands.times };
    vec![Op::Content { node, base, content, times, perm }]
}

fn rename(replica: &mut Replica, rng: &mut Rng, at: Timespec) -> Vec<Op> {
    let (entries, dirs) = (entries(replica), dirs(replica));
    let Some((from_dir, shown, node)) = rng.pick(&entries).cloned() else { return Vec::new() };
    let Some(to_dir) = rng.pick(&dirs).copied() else { return Vec::new() };
    // Sometimes a name that is shown somewhere, conflict names included.
    let shown_name = rng.pick(&entries).map(|(_, shown, _)| shown.clone());
    let to_name = shown_name.filter(|_| rng.chance(10)).unwrap_or_else(|| name(rng));
    let target = replica.tree.lookup(to_dir, to_name.as_bytes());
    let is_dir = |id| replica.tree.node(id).is_some_and(|n| n.dir().is_some());
    let mut up = to_dir;
    while up != NodeId::ROOT {
        if up == node {
            return Vec::new();
        }
        up = replica.tree.parent(up);
    }
    let Some((_, from_name)) = replica.own_name(from_dir, shown.as_bytes()) else {
        return Vec::new();
    };
    let (from, to) = ((from_dir, from_name), (to_dir, to_name.clone()));
    if target == Some(node) || replica.tree.has_name(node, to.0, &to.1) {
        return Vec::new();
    }
    let moved = |from, to, target| Op::Rename { node, from, to, target, at };
    let Some(other) = target else { return vec![moved(from, to, RenameTarget::Free)] };
    let Some((_, own)) = replica.own_name(to_dir, to_name.as_bytes()) else { return Vec::new() };
    if rng.chance(20) && from_dir == to_dir {
        let plain = own == to_name && from.1 == shown;
        let crossed = replica.tree.has_name(other, from.0, &from.1);
        let exchanged = RenameTarget::Exchanged { node: other };
        return Vec::from_iter((plain && !crossed).then(|| moved(from, to, exchanged)));
    }
    let full = replica.tree.node(other).and_then(|n| n.dir()).is_some_and(|d| !d.is_empty());
    if is_dir(node) != is_dir(other) || full {
        return Vec::new();
    }
    if own == to_name {
        let found = replica.rename_target(to_dir, to_name.as_bytes());
        return vec![moved(from, to, found)];
    }
    let seen = replica.seen(other);
    let aside = Op::Unlink { node: other, parent: to_dir, name: own, seen, at };
    vec![aside, moved(from, to, RenameTarget::Free)]
}

fn link(replica: &mut Replica, rng: &mut Rng, at: Timespec) -> Vec<Op> {
    let (entries, dirs) = (entries(replica), dirs(replica));
    let Some((_, _, node)) = rng.pick(&entries).cloned() else { return Vec::new() };
    let Some(parent) = rng.pick(&dirs).copied() else { return Vec::new() };
    let name = name(rng);
    let is_dir = replica.tree.node(node).is_some_and(|n| n.dir().is_some());
    if !is_dir && replica.tree.lookup(parent, name.as_bytes()).is_none() {
        return vec![Op::Link { node, parent, name, at }];
    }
    Vec::new()
}

fn remove(replica: &mut Replica, rng: &mut Rng, at: Timespec) -> Vec<Op> {
    let entries = entries(replica);
    let Some((parent, shown, node)) = rng.pick(&entries).cloned() else { return Vec::new() };
    let full = replica.tree.node(node).and_then(|n| n.dir()).is_some_and(|d| !d.is_empty());
    let Some((_, name)) = replica.own_name(parent, shown.as_bytes()) else { return Vec::new() };
    if !full {
        let seen = replica.seen(node);
        return vec![Op::Unlink { node, parent, name, seen, at }];
    }
    Vec::new()
}

fn chmod(replica: &mut Replica, rng: &mut Rng, at: Timespec) -> Vec<Op> {
    let entries = entries(replica);
    let Some((_, _, node)) = rng.pick(&entries).cloned() else { return Vec::new() };
    let perm = Perm { mode: rng.below(0o1000) as u16, uid: 0, gid: 0 };
    vec![Op::SetPerm { node, perm, ctime: at }]
}

fn set_xattr(replica: &mut Replica, rng: &mut Rng, at: Timespec) -> Vec<Op> {
    let entries = entries(replica);
    let Some((_, _, node)) = rng.pick(&entries).cloned() else { return Vec::new() };
    let value = rng.chance(70).then(|| rng.bits().to_le_bytes().to_vec());
    vec![Op::SetXattr { node, name: b"user.mark".to_vec(), value, ctime: at }]
}
