//! What a user of one replica may do: the operations of `vfs`, reduced to what reaches `core`.

use crate::rng::Rng;
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::{
    ContentHash, ContentRef, EntryName, Kind, NodeId, Op, Perm, Replica, Times, Timespec,
};

/// Few names, so that they collide.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Does one random thing at time `now`.
pub fn act(replica: &mut Replica, rng: &mut Rng, now: u64) {
    let at = Timespec { secs: now as i64, nanos: 0 };
    match rng.below(10) {
        0 | 1 => create(replica, rng, at, Body::File(ContentRef::default())),
        2 => create(replica, rng, at, Body::Dir),
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

fn create(replica: &mut Replica, rng: &mut Rng, at: Timespec, body: Body) {
    let dirs = dirs(replica);
    let Some(parent) = rng.pick(&dirs).copied() else { return };
    let name = name(rng);
    if replica.tree.lookup(parent, name.as_bytes()).is_some() {
        return;
    }
    let (node, perm) = (replica.new_node(), Perm { mode: 0o644, uid: 0, gid: 0 });
    let (times, xattrs) = (Times::at(at), Vec::new());
    replica.local(Op::Create { node, parent, name, body, perm, times, xattrs, at });
}

fn write(replica: &mut Replica, rng: &mut Rng, at: Timespec) {
    let entries = entries(replica);
    let files: Vec<NodeId> = entries
        .iter()
        .filter(|(_, _, id)| replica.tree.node(*id).is_some_and(|n| n.kind() == Kind::File))
        .map(|(_, _, id)| *id)
        .collect();
    let Some(node) = rng.pick(&files).copied() else { return };
    let Some(stands) = replica.tree.node(node) else { return };
    let Some(file) = stands.file() else { return };
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&rng.bits().to_le_bytes());
    let content = ContentRef { size_bytes: 1 + rng.below(9) as u64, hash: ContentHash(hash) };
    let (base, perm) = (file.version, stands.perm);
    let times = Times { mtime: at, ctime: at, ..stands.times };
    replica.local(Op::Content { node, base, content, times, perm });
}

fn rename(replica: &mut Replica, rng: &mut Rng, at: Timespec) {
    let (entries, dirs) = (entries(replica), dirs(replica));
    let Some((from_dir, shown, node)) = rng.pick(&entries).cloned() else { return };
    let Some(to_dir) = rng.pick(&dirs).copied() else { return };
    let to_name = name(rng);
    let target = replica.tree.lookup(to_dir, to_name.as_bytes());
    let is_dir = |id| replica.tree.node(id).is_some_and(|n| n.dir().is_some());
    let mut up = to_dir;
    while up != NodeId::ROOT {
        if up == node {
            return;
        }
        up = replica.tree.parent(up);
    }
    let Some((_, from_name)) = replica.own_name(from_dir, shown.as_bytes()) else { return };
    let (to_name, found) = match target {
        Some(other) if other == node => return,
        Some(other) if rng.chance(20) && from_dir == to_dir => {
            let own = replica.own_name(to_dir, to_name.as_bytes());
            (own.map_or(to_name, |own| own.1), RenameTarget::Exchanged { node: other })
        }
        Some(other) => {
            let full =
                replica.tree.node(other).and_then(|n| n.dir()).is_some_and(|d| !d.is_empty());
            if is_dir(node) != is_dir(other) || full {
                return;
            }
            let own = replica.own_name(to_dir, to_name.as_bytes());
            let found = replica.rename_target(to_dir, to_name.as_bytes());
            (own.map_or(to_name, |own| own.1), found)
        }
        None => (to_name, RenameTarget::Free),
    };
    let (from, to) = ((from_dir, from_name), (to_dir, to_name));
    let crossed = match found {
        RenameTarget::Exchanged { node: other } => replica.tree.has_name(other, from.0, &from.1),
        RenameTarget::Free | RenameTarget::Replaced { .. } => false,
    };
    if crossed || replica.tree.has_name(node, to.0, &to.1) {
        return;
    }
    replica.local(Op::Rename { node, from, to, target: found, at });
}

fn link(replica: &mut Replica, rng: &mut Rng, at: Timespec) {
    let (entries, dirs) = (entries(replica), dirs(replica));
    let Some((_, _, node)) = rng.pick(&entries).cloned() else { return };
    let Some(parent) = rng.pick(&dirs).copied() else { return };
    let name = name(rng);
    let is_dir = replica.tree.node(node).is_some_and(|n| n.dir().is_some());
    if !is_dir && replica.tree.lookup(parent, name.as_bytes()).is_none() {
        replica.local(Op::Link { node, parent, name, at });
    }
}

fn remove(replica: &mut Replica, rng: &mut Rng, at: Timespec) {
    let entries = entries(replica);
    let Some((parent, shown, node)) = rng.pick(&entries).cloned() else { return };
    let full = replica.tree.node(node).and_then(|n| n.dir()).is_some_and(|d| !d.is_empty());
    let Some((_, name)) = replica.own_name(parent, shown.as_bytes()) else { return };
    if !full {
        let seen = replica.seen(node);
        replica.local(Op::Unlink { node, parent, name, seen, at });
    }
}

fn chmod(replica: &mut Replica, rng: &mut Rng, at: Timespec) {
    let entries = entries(replica);
    let Some((_, _, node)) = rng.pick(&entries).cloned() else { return };
    let perm = Perm { mode: rng.below(0o1000) as u16, uid: 0, gid: 0 };
    replica.local(Op::SetPerm { node, perm, ctime: at });
}
