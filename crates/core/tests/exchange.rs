//! Two replicas that meet by state instead of by their logs end with one tree and lose nothing.
#![allow(missing_docs, clippy::unwrap_used)]

use lockstep_core::branch::LogCursor;
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::tree::NodeBody;
use lockstep_core::*;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

const A: Slot = Slot(1);
const B: Slot = Slot(2);

fn replica(slot: Slot, counters: Counters, run: u64) -> Replica {
    let mut tree = Tree::new(Perm { mode: 0o755, uid: 0, gid: 0 }, Times::default());
    tree.name_host(A, "one");
    tree.name_host(B, "two");
    let mut replica = Replica::new(slot, tree, counters);
    replica.start(Start { incarnation: run, node: run << 32, lamport: run << 32 });
    replica
}

fn drain(replica: &mut Replica) -> Vec<Change> {
    let changes = replica.drain().changes;
    replica.log.append(changes.iter().cloned());
    changes
}

fn index(replica: &Replica) -> DigestIndex {
    let digest = |id| {
        let state = replica.tree.state(id).unwrap();
        let mut hasher = DefaultHasher::new();
        format!("{state:?}").hash(&mut hasher);
        (id, u128::from(hasher.finish()))
    };
    let living = replica.tree.iter().filter(|(_, node)| !node.is_unlinked());
    DigestIndex::new(living.map(|(id, _)| digest(id)).collect())
}

/// Brings `to` up to date with `from`; how many nodes and removals were sent.
fn tell(from: &mut Replica, to: &mut Replica, lost: bool) -> usize {
    let mut plan = from.tells(to.slot());
    let (ours, theirs) = (index(from), index(to));
    let mut comparison = Comparison::new(&ours);
    loop {
        let asked = comparison.ask();
        if asked.is_empty() {
            break;
        }
        let parts: Vec<Part> = asked.iter().map(|range| theirs.part(*range)).collect();
        comparison.answer(&asked, &parts).unwrap();
    }
    from.plan(&mut plan, &comparison.differing, &comparison.only_there, lost);
    let mut changes = vec![plan.begin];
    changes.extend(plan.nodes.iter().filter_map(|node| from.tell_node(*node, lost)));
    changes.extend(plan.gone.iter().filter_map(|node| from.tell_gone(*node)));
    changes.push(plan.end);
    for change in &changes {
        to.apply_remote(from.slot(), change).unwrap();
        to.tree.check().unwrap();
    }
    arrive(to);
    changes.len() - 2
}

fn arrive(replica: &mut Replica) {
    let wanted: Vec<_> =
        replica.tree.iter().filter_map(|(id, node)| Some((id, node.file()?.wanted()?.1))).collect();
    for (id, version) in wanted {
        replica.tree.content_arrived(id, version);
    }
}

fn content(n: u64) -> ContentRef {
    let mut hash = [1; 32];
    hash[..8].copy_from_slice(&n.to_le_bytes());
    ContentRef { size_bytes: n + 1, hash: ContentHash(hash) }
}

fn name(n: usize) -> EntryName {
    EntryName::new(&[b'a' + n as u8]).unwrap()
}

fn living(replica: &Replica, dirs: bool) -> Vec<NodeId> {
    let mut all: Vec<NodeId> = replica
        .tree
        .iter()
        .filter(|(id, node)| {
            (*id == NodeId::ROOT || !node.is_unlinked()) && node.dir().is_some() == dirs
        })
        .map(|(id, _)| id)
        .collect();
    all.sort_unstable();
    all
}

fn create(replica: &mut Replica, dir: NodeId, called: EntryName, body: Body) -> NodeId {
    let node = replica.new_node();
    let times = Times::default();
    let perm = Perm { mode: 0o644, uid: 1, gid: 1 };
    let op = Op::Create {
        node,
        parent: dir,
        name: called,
        body,
        perm,
        times,
        xattrs: Vec::new(),
        at: times.ctime,
    };
    replica.local(op);
    node
}

fn write(replica: &mut Replica, node: NodeId, new: ContentRef) {
    let stands = replica.tree.node(node).unwrap();
    let (perm, times, base) = (stands.perm, stands.times, stands.content_version());
    replica.local(Op::Content { node, base, content: new, times, perm });
}

fn act(replica: &mut Replica, dice: &mut Dice, moment: u64) {
    let (dirs, files) = (living(replica, true), living(replica, false));
    let dir = dirs[dice.below(dirs.len())];
    let called = name(dice.below(5));
    let free = replica.tree.lookup(dir, called.as_bytes()).is_none();
    let at = Timespec { secs: moment as i64, nanos: 0 };
    let any = |dice: &mut Dice, of: &[NodeId]| (!of.is_empty()).then(|| of[dice.below(of.len())]);
    match dice.below(7) {
        0 if free => drop(create(replica, dir, called, Body::Dir)),
        1 | 2 if free => {
            let node = create(replica, dir, called, Body::File(ContentRef::default()));
            write(replica, node, content(moment));
        }
        3 => {
            if let Some(node) = any(dice, &files) {
                write(replica, node, content(moment));
            }
        }
        4 | 5 if free => {
            let of = if dice.below(3) == 0 { &dirs } else { &files };
            let Some(node) = any(dice, of).filter(|node| *node != NodeId::ROOT) else { return };
            let from = replica.tree.node(node).unwrap().links[0].clone();
            let mut up = dir;
            while up != NodeId::ROOT {
                if up == node {
                    return;
                }
                up = replica.tree.parent(up);
            }
            let (from, to) = ((from.parent, from.name), (dir, called));
            replica.local(Op::Rename { node, from, to, target: RenameTarget::Free, at });
        }
        _ => {
            let Some(node) = any(dice, &files) else { return };
            let link = replica.tree.node(node).unwrap().links[0].clone();
            let (parent, seen) = (link.parent, replica.seen(node));
            replica.local(Op::Unlink { node, parent, name: link.name, seen, at });
        }
    }
}

fn view(replica: &Replica) -> BTreeMap<std::path::PathBuf, String> {
    let mut all = BTreeMap::new();
    for (id, node) in replica.tree.iter() {
        let body = match &node.body {
            NodeBody::File(file) => format!("{:?}", file.content),
            other => format!("{:?}", std::mem::discriminant(other)),
        };
        for link in &node.links {
            let path = replica.tree.path_in(link.parent, link.shown.as_bytes()).unwrap();
            all.insert(path, format!("{id} {body} {:?} {:?}", node.perm, node.times));
        }
    }
    all
}

fn contents(replica: &Replica) -> BTreeSet<ContentHash> {
    let living = replica.tree.iter().filter(|(_, node)| !node.is_unlinked());
    living.filter_map(|(_, node)| Some(node.file()?.content.hash)).collect()
}

/// Both do `apart` things each after `together` things that both know; then they meet by state.
fn meet_by_state(seed: u64, both_ways: bool) {
    let mut dice = Dice(seed);
    let (mut a, mut b) = (replica(A, Counters::default(), 1), replica(B, Counters::default(), 2));
    let mut moment = 0;
    for _ in 0..20 {
        for who in 0..2 {
            moment += 1;
            let (from, to) = if who == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            act(from, &mut dice, moment);
            for change in drain(from) {
                to.apply_remote(from.slot(), &change).unwrap();
            }
            arrive(to);
            drain(to);
        }
    }
    assert_eq!(view(&a), view(&b), "seed {seed}: the common history");
    for _ in 0..dice.below(8) {
        moment += 1;
        act(&mut a, &mut dice, moment);
    }
    for _ in 0..if both_ways { dice.below(8) } else { 0 } {
        moment += 1;
        act(&mut b, &mut dice, moment);
    }
    drain(&mut a);
    drain(&mut b);
    let before = contents(&a);
    tell(&mut a, &mut b, false);
    drain(&mut b);
    if both_ways {
        tell(&mut b, &mut a, false);
        drain(&mut a);
        // What came of one meeting is news for the other, until nothing differs.
        for _ in 0..3 {
            tell(&mut a, &mut b, false);
            drain(&mut b);
            tell(&mut b, &mut a, false);
            drain(&mut a);
        }
    } else {
        assert_eq!(before, contents(&b), "seed {seed}");
    }
    assert_eq!(view(&a), view(&b), "seed {seed}: after meeting by state");
    let states = |replica: &Replica| -> BTreeMap<NodeId, String> {
        let living = replica.tree.iter().filter(|(_, node)| !node.is_unlinked());
        living.map(|(id, _)| (id, format!("{:?}", replica.tree.state(id).unwrap()))).collect()
    };
    for (id, state) in states(&a) {
        assert_eq!(Some(&state), states(&b).get(&id), "seed {seed}: {id}");
    }
    assert_eq!(tell(&mut a, &mut b, false), 0, "seed {seed}: equal trees have nothing to tell");
}

#[test]
fn a_peer_that_was_away_gets_exactly_what_changed_removals_too() {
    (0..2000).for_each(|seed| meet_by_state(seed, false));
}

#[test]
fn edits_of_both_sides_meet_by_state() {
    (0..2000).for_each(|seed| meet_by_state(seed, true));
}

/// `b` starts without its state over a backing tree that equals `a`'s but for its own edits.
fn found(b: &mut Replica, a: &Replica, dir_a: NodeId, dir_b: NodeId, skip: &[NodeId]) {
    let entries: Vec<_> = a.tree.node(dir_a).unwrap().dir().unwrap().after(0).collect();
    for (_, called, id) in entries {
        if skip.contains(&id) {
            continue;
        }
        let node = a.tree.node(id).unwrap();
        let body = match &node.body {
            NodeBody::File(file) => Body::File(file.content),
            _ => Body::Dir,
        };
        let is_dir = node.dir().is_some();
        let new = b.new_node();
        b.local_found(Op::Create {
            node: new,
            parent: dir_b,
            name: called.clone(),
            body,
            perm: node.perm,
            times: Times::default(),
            xattrs: Vec::new(),
            at: Timespec::default(),
        });
        if is_dir {
            found(b, a, id, new, skip);
        }
    }
}

#[test]
fn a_replica_without_its_state_takes_equal_files_for_the_peers_and_keeps_its_own() {
    for seed in 0..500 {
        let mut dice = Dice(seed);
        let mut a = replica(A, Counters::default(), 1);
        (0..30).for_each(|moment| act(&mut a, &mut dice, moment));
        drain(&mut a);
        let files = living(&a, false);
        let mut b = replica(B, Counters::default(), 3);
        b.start_without_state();
        found(&mut b, &a, NodeId::ROOT, NodeId::ROOT, &[]);
        // Meanwhile one file goes at `a`, and `b` makes one of its own.
        if let Some(gone) = files.first() {
            let link = a.tree.node(*gone).unwrap().links[0].clone();
            let seen = a.seen(*gone);
            let at = Timespec::default();
            a.local(Op::Unlink { node: *gone, parent: link.parent, name: link.name, seen, at });
        }
        let own = create(&mut b, NodeId::ROOT, EntryName::new(b"own").unwrap(), Body::Dir);
        drain(&mut a);
        drain(&mut b);
        assert_eq!(b.meet(A, LogCursor::default(), true), Met::Behind);
        assert!(b.listens_first(A));
        tell(&mut a, &mut b, true);
        drain(&mut b);
        assert!(!b.listens_first(A));
        let sent = tell(&mut b, &mut a, false);
        assert_eq!(view(&a), view(&b), "seed {seed}");
        assert!(sent <= 2, "seed {seed}: {sent} nodes instead of the new one and the root");
        assert!(a.tree.node(own).is_some());
        assert!(a.tree.iter().all(|(id, _)| id == own || id.slot() != B), "seed {seed}");
    }
}

#[test]
fn a_replica_put_back_gets_its_own_later_work_back_and_loses_none() {
    for seed in 0..500 {
        let mut dice = Dice(seed);
        let (mut a, mut b) =
            (replica(A, Counters::default(), 1), replica(B, Counters::default(), 2));
        let (mut rows, mut copy) = (BTreeMap::new(), None);
        a.reads_log_of(B, b.incarnation());
        for moment in 0..24 {
            act(&mut b, &mut dice, moment);
            let drained = b.drain();
            rows.extend(drained.rows);
            b.log.append(drained.changes.iter().cloned());
            for change in &drained.changes {
                a.apply_remote(B, change).unwrap();
            }
            arrive(&mut a);
            if moment == 11 {
                copy = Some((rows.clone(), drained.counters));
            }
        }
        let overtaken = b.last() > copy.as_ref().unwrap().1.last;
        let (rows, counters) = copy.unwrap();
        let mut back = replica(B, counters, 5);
        back.tree = Tree::load(rows.into_values().flatten());
        let mine = create(&mut back, NodeId::ROOT, EntryName::new(b"new").unwrap(), Body::Dir);
        drain(&mut back);
        let expected = if overtaken { Met::Overtaken } else { Met::Continues };
        assert_eq!(back.meet(A, a.cursor(B), true), expected, "seed {seed}");
        tell(&mut a, &mut back, true);
        drain(&mut back);
        back.tree.check().unwrap();
        tell(&mut back, &mut a, false);
        a.reads_log_of(B, back.incarnation());
        assert_eq!(view(&a), view(&back), "seed {seed}");
        assert!(a.tree.node(mine).is_some());
        let later = create(&mut back, NodeId::ROOT, EntryName::new(b"later").unwrap(), Body::Dir);
        assert_eq!(back.meet(A, a.cursor(B), true), Met::Continues, "seed {seed}");
        for change in drain(&mut back) {
            a.apply_remote(B, &change).unwrap();
        }
        assert!(a.tree.node(later).is_some(), "seed {seed}: the log goes on");
    }
}

#[test]
fn what_changes_while_two_states_are_compared_comes_by_the_log_after_the_end() {
    let (mut a, mut b) = (replica(A, Counters::default(), 1), replica(B, Counters::default(), 2));
    create(&mut a, NodeId::ROOT, name(0), Body::Dir);
    drain(&mut a);
    let mut plan = a.tells(B);
    let (ours, theirs) = (index(&a), index(&b));
    let mut comparison = Comparison::new(&ours);
    let asked = comparison.ask();
    comparison.answer(&asked, &[theirs.part(asked[0])]).unwrap();
    create(&mut a, NodeId::ROOT, name(1), Body::Dir);
    let meanwhile = drain(&mut a);
    a.plan(&mut plan, &comparison.differing, &comparison.only_there, false);
    let nodes: Vec<Change> = plan.nodes.iter().filter_map(|n| a.tell_node(*n, false)).collect();
    for change in [vec![plan.begin], nodes, vec![plan.end], meanwhile].concat() {
        b.apply_remote(A, &change).unwrap();
    }
    assert_eq!(view(&a), view(&b));
}
