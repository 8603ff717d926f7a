//! The reference: what a tree must be, worked out the naive way from the set of all changes ever
//! made, without regard to their order, without increments, and without the code under test.

use crate::failure::{Check, FailureKind};
use crate::side::{Made, Side};
use crate::world::World;
use lockstep_core::change::RenameTarget;
use lockstep_core::{
    ContentRef, EntryName, Kind, NodeId, Op, Perm, Times, Timespec, Tree, Version,
};
use std::collections::{BTreeMap, BTreeSet};

type At = (NodeId, EntryName);
type Xattr = (Version, Option<Vec<u8>>);

/// One node: for each register the newest version and its value.
#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    /// Per name the newest change that gave it and the newest that took it.
    names: BTreeMap<At, (Version, Version)>,
    /// Newest content seen by one who removed the node.
    removed_at: Version,
    content: (Version, ContentRef),
    perm: (Version, Perm),
    times: [(Version, Timespec); 3],
    xattrs: BTreeMap<Vec<u8>, Xattr>,
}

/// A name that is due: (directory, the author's name), version, node.
type Due = (At, Version, NodeId);

/// All nodes.
#[derive(Default)]
struct Model(BTreeMap<NodeId, Node>);

/// What is compared: of each name, who has it and whether it is shown as it is; of each node with
/// a name, its registers.
#[derive(PartialEq, Debug, Default)]
struct Picture {
    names: BTreeSet<(At, NodeId, bool)>,
    nodes: BTreeMap<NodeId, String>,
}

/// The trees are what the reference says.
pub fn agrees(world: &World<'_>) -> Check {
    let expected = Model::of(&world.made).picture();
    for side in &world.sides {
        let shown = shown(side);
        if shown != expected {
            let only = |a: &Picture, b: &Picture| {
                let names: Vec<_> = a.names.difference(&b.names).collect();
                let nodes: Vec<_> =
                    a.nodes.iter().filter(|(id, text)| b.nodes.get(id) != Some(text)).collect();
                format!("{names:?} {nodes:?}")
            };
            let (here, there) = (only(&shown, &expected), only(&expected, &shown));
            let what = format!("{:?} shows\n{here}\nwhere\n{there}\nis due", side.slot);
            return Err((FailureKind::Wrong, what));
        }
    }
    Ok(())
}

fn shown(side: &Side) -> Picture {
    let tree: &Tree = &side.replica.tree;
    let mut picture = Picture::default();
    for (id, node) in tree.iter().filter(|(id, n)| *id != NodeId::ROOT && !n.is_unlinked()) {
        for link in &node.links {
            let plain = link.shown == link.name;
            picture.names.insert(((link.parent, link.name.clone()), id, plain));
        }
        // As it will be once content on its way is here, which may be never.
        let Some(state) = tree.state(id) else { continue };
        let content = (state.content_version, state.content().unwrap_or_default());
        let xattrs: Vec<_> =
            node.xattrs.iter().filter_map(|(n, (_, v))| Some((n, v.as_ref()?))).collect();
        let (perm, times) = (state.perm.0, state.times.0);
        picture.nodes.insert(id, registers(content, perm, times, &xattrs));
    }
    picture
}

fn registers(
    content: (Version, ContentRef),
    perm: Perm,
    times: Times,
    xattrs: &[(&Vec<u8>, &Vec<u8>)],
) -> String {
    format!("{content:?} {perm:?} {times:?} {xattrs:?}")
}

fn newer<T>(register: &mut (Version, T), version: Version, value: T) {
    if version > register.0 {
        *register = (version, value);
    }
}

impl Model {
    fn of(made: &[Made]) -> Model {
        let mut model = Model::default();
        let op = |m: &Made| (m.change.op.clone(), m.change.version);
        let (created, rest): (Vec<_>, Vec<_>) =
            made.iter().map(op).partition(|(op, _)| matches!(op, Op::Create { .. }));
        for (op, version) in created.into_iter().chain(rest) {
            model.take_in(&op, version);
        }
        model
    }

    fn take_in(&mut self, op: &Op, version: Version) {
        match op {
            Op::Create { node, parent, name, body, perm, times, at, .. } => {
                let content = match body {
                    lockstep_core::change::Body::File(content) => (version, *content),
                    _ => Default::default(),
                };
                let times = [times.atime, times.mtime, times.ctime].map(|time| (version, time));
                self.0.entry(*node).or_insert(Node {
                    kind: body.kind(),
                    names: BTreeMap::new(),
                    removed_at: Version::default(),
                    content,
                    perm: (version, *perm),
                    times,
                    xattrs: BTreeMap::new(),
                });
                self.give(*node, (*parent, name.clone()), version);
                self.touch(*parent, *at, version, true);
            }
            Op::Link { node, parent, name, at } => {
                self.give(*node, (*parent, name.clone()), version);
                self.touch(*node, *at, version, false);
                self.touch(*parent, *at, version, true);
            }
            Op::Unlink { node, parent, name, seen, at } => {
                self.take(*node, (*parent, name.clone()), version, *seen);
                self.touch(*node, *at, version, false);
                self.touch(*parent, *at, version, true);
            }
            Op::Rename { node, from, to, target, at } => {
                self.rename(*node, (from, to), target, *at, version);
            }
            Op::SetPerm { node, perm, ctime } => {
                if let Some(stands) = self.0.get_mut(node) {
                    newer(&mut stands.perm, version, *perm);
                }
                self.touch(*node, *ctime, version, false);
            }
            Op::SetTimes { node, times } => self.set_times(*node, *times, version),
            Op::SetXattr { node, name, value, ctime } => {
                if let Some(stands) = self.0.get_mut(node) {
                    let register = stands.xattrs.entry(name.clone()).or_default();
                    newer(register, version, value.clone());
                }
                self.touch(*node, *ctime, version, false);
            }
            Op::Content { node, content, times, perm, .. } => {
                if let Some(stands) = self.0.get_mut(node) {
                    newer(&mut stands.content, version, *content);
                    newer(&mut stands.perm, version, *perm);
                }
                self.set_times(*node, *times, version);
            }
            #[allow(unreachable_patterns, reason = "what is no change of a log says nothing")]
            _ => {}
        }
    }

    fn rename(
        &mut self,
        node: NodeId,
        (from, to): (&At, &At),
        target: &RenameTarget,
        at: Timespec,
        version: Version,
    ) {
        let mut moved = vec![(node, from, to)];
        match target {
            RenameTarget::Free => {}
            RenameTarget::Replaced { node, seen } => {
                self.take(*node, to.clone(), version, *seen);
                self.touch(*node, at, version, false);
            }
            RenameTarget::Exchanged { node } => moved.push((*node, to, from)),
        }
        for (node, from, to) in moved {
            if from != to {
                self.touch(node, at, version, false);
                self.touch(from.0, at, version, true);
                self.touch(to.0, at, version, true);
                if self.0.get(&node).is_some_and(|n| n.kind != Kind::Dir) {
                    self.take(node, from.clone(), version, Version::default());
                }
            }
            self.give(node, to.clone(), version);
        }
    }

    fn give(&mut self, node: NodeId, at: At, version: Version) {
        if let Some(node) = self.0.get_mut(&node) {
            let given = &mut node.names.entry(at).or_default().0;
            *given = (*given).max(version);
        }
    }

    fn take(&mut self, node: NodeId, at: At, version: Version, seen: Version) {
        if let Some(node) = self.0.get_mut(&node) {
            let taken = &mut node.names.entry(at).or_default().1;
            *taken = (*taken).max(version);
            node.removed_at = node.removed_at.max(seen);
        }
    }

    fn touch(&mut self, node: NodeId, at: Timespec, version: Version, mtime: bool) {
        if let Some(node) = self.0.get_mut(&node) {
            newer(&mut node.times[2], version, at);
            if mtime {
                newer(&mut node.times[1], version, at);
            }
        }
    }

    fn set_times(&mut self, node: NodeId, times: Times, version: Version) {
        if let Some(node) = self.0.get_mut(&node) {
            for (register, time) in
                node.times.iter_mut().zip([times.atime, times.mtime, times.ctime])
            {
                newer(register, version, time);
            }
        }
    }

    fn is_dir(&self, id: NodeId) -> bool {
        id == NodeId::ROOT || self.0.get(&id).is_some_and(|node| node.kind == Kind::Dir)
    }

    /// Where the newest move put a directory, and whether no newer change removed it.
    fn place(&self, dir: NodeId) -> Option<(At, Version, bool)> {
        let node = self.0.get(&dir)?;
        let (at, (given, _)) = node.names.iter().max_by_key(|(_, (given, _))| *given)?;
        let taken = node.names.values().map(|(_, taken)| *taken).max()?;
        Some((at.clone(), *given, *given >= taken))
    }

    /// Directories that hang below themselves and go to the root instead.
    fn displaced(&self) -> BTreeSet<NodeId> {
        let mut displaced = BTreeSet::new();
        for dir in self.0.keys().filter(|id| self.is_dir(**id)) {
            let mut cycle = Vec::new();
            let mut up = *dir;
            while let Some(((parent, _), version, _)) = self.place(up) {
                cycle.push((version, up));
                up = parent;
                if up == *dir || cycle.len() > self.0.len() {
                    break;
                }
            }
            if up == *dir {
                displaced.extend(cycle.iter().min().map(|(_, id)| *id));
            }
        }
        displaced
    }

    fn due_of_file(&self, id: NodeId, node: &Node) -> Vec<Due> {
        let seen_all = match node.kind {
            Kind::File => node.content.0,
            _ => Version { lamport: 0, slot: id.slot() },
        };
        let standing = node.names.iter().filter(|(_, (given, taken))| given >= taken);
        let mut standing: Vec<_> = standing.collect();
        if standing.is_empty() && node.removed_at < seen_all {
            let last = |(at, (_, taken)): &(&At, &(Version, Version))| (*taken, (*at).clone());
            standing.extend(node.names.iter().max_by_key(last));
        }
        standing.into_iter().map(|(at, (given, _))| (at.clone(), *given, id)).collect()
    }

    fn due(&self) -> Vec<Due> {
        let displaced = self.displaced();
        let mut due: Vec<Due> = Vec::new();
        for (id, node) in self.0.iter().filter(|(id, _)| !self.is_dir(**id)) {
            due.extend(self.due_of_file(*id, node));
        }
        let mut dirs: BTreeMap<NodeId, (At, Version, bool)> = BTreeMap::new();
        for id in self.0.keys().filter(|id| self.is_dir(**id)) {
            if let Some(((parent, name), version, stands)) = self.place(*id) {
                let parent = if displaced.contains(id) { NodeId::ROOT } else { parent };
                dirs.insert(*id, ((parent, name), version, stands));
            }
        }
        for ((parent, _), _, _) in due.iter_mut() {
            *parent = if self.is_dir(*parent) { *parent } else { NodeId::ROOT };
        }
        // A directory stands if nobody removed it, or for what stands in it.
        loop {
            let held: Vec<NodeId> = dirs
                .iter()
                .filter(|(id, (_, _, stands))| {
                    let inside = |at: &At| at.0 == **id;
                    !stands
                        && (due.iter().any(|(at, _, _)| inside(at))
                            || dirs.values().any(|(at, _, stands)| *stands && inside(at)))
                })
                .map(|(id, _)| *id)
                .collect();
            if held.is_empty() {
                break;
            }
            for id in held {
                if let Some(dir) = dirs.get_mut(&id) {
                    dir.2 = true;
                }
            }
        }
        let dirs = dirs.into_iter().filter(|(_, (_, _, stands))| *stands);
        due.extend(dirs.map(|(id, (at, version, _))| (at, version, id)));
        due
    }

    fn picture(&self) -> Picture {
        let mut by_name: BTreeMap<At, BTreeSet<(Version, NodeId)>> = BTreeMap::new();
        for (at, version, id) in self.due() {
            by_name.entry(at).or_default().insert((version, id));
        }
        let mut picture = Picture::default();
        for (at, wanting) in by_name {
            let winner = wanting.last().map(|(_, id)| *id);
            for (_, id) in wanting {
                picture.names.insert((at.clone(), id, Some(id) == winner));
                let Some(node) = self.0.get(&id) else { continue };
                let [atime, mtime, ctime] = node.times.map(|(_, time)| time);
                let xattrs: Vec<_> =
                    node.xattrs.iter().filter_map(|(n, (_, v))| Some((n, v.as_ref()?))).collect();
                let times = Times { atime, mtime, ctime };
                picture.nodes.insert(id, registers(node.content, node.perm.1, times, &xattrs));
            }
        }
        picture
    }
}
