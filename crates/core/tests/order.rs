//! The names of a tree follow from the changes applied, not from their order: concurrent changes
//! are applied in every order that keeps each author's own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::{
    Change, ContentHash, ContentRef, Counters, Effect, EntryName, NodeId, Op, Perm, Replica,
    Sequence, Slot, Times, Timespec, Tree, Version,
};
use std::collections::BTreeMap;

const ROOT: NodeId = NodeId::ROOT;
const AT: Timespec = Timespec { secs: 0, nanos: 0 };

fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

fn version(lamport: u64, slot: u16) -> Version {
    Version { lamport, slot: Slot(slot) }
}

fn change(lamport: u64, slot: u16, op: Op) -> Change {
    Change { seq: Sequence(lamport), version: version(lamport, slot), op }
}

fn create(node: u64, parent: NodeId, at: &str, body: Body) -> Op {
    let (perm, times, xattrs) = (Perm::default(), Times::default(), Vec::new());
    Op::Create { node: NodeId(node), parent, name: name(at), body, perm, times, xattrs, at: AT }
}

fn file(node: u64, at: &str) -> Op {
    create(node, ROOT, at, Body::File(ContentRef::default()))
}

fn dir(node: u64, at: &str) -> Op {
    create(node, ROOT, at, Body::Dir)
}

fn rename(node: u64, from: (u64, &str), to: (u64, &str), target: RenameTarget) -> Op {
    let place = |(dir, at): (u64, &str)| (NodeId(dir), name(at));
    Op::Rename { node: NodeId(node), from: place(from), to: place(to), target, at: AT }
}

fn moved(node: u64, from: (u64, &str), to: (u64, &str)) -> Op {
    rename(node, from, to, RenameTarget::Free)
}

fn unlink(node: u64, parent: u64, at: &str, seen: Version) -> Op {
    Op::Unlink { node: NodeId(node), parent: NodeId(parent), name: name(at), seen, at: AT }
}

fn link(node: u64, at: &str) -> Op {
    Op::Link { node: NodeId(node), parent: ROOT, name: name(at), at: AT }
}

fn edit(node: u64, base: Version) -> Op {
    let content = ContentRef { size_bytes: 1, hash: ContentHash([7; 32]) };
    let (times, perm) = (Times::default(), Perm::default());
    Op::Content { node: NodeId(node), base, content, times, perm }
}

/// Every path with its node, under `common` and then `apart`, which are the changes of as many
/// authors, in one of their interleavings.
fn show(changes: &[Change]) -> BTreeMap<String, NodeId> {
    let mut tree = Tree::new(Perm::default(), Times::default());
    for change in changes {
        tree.apply_remote(change);
        tree.check().unwrap();
    }
    let mut shown = BTreeMap::new();
    for (id, node) in tree.iter() {
        for link in &node.links {
            let path = tree.path_in(link.parent, link.shown.as_bytes()).unwrap();
            shown.insert(path.to_string_lossy().into_owned(), id);
        }
    }
    shown
}

/// Applies `apart` in every order and answers what all orders show.
fn all_orders(common: &[Change], apart: &[&[Change]]) -> BTreeMap<String, NodeId> {
    let mut results = Vec::new();
    interleave(&mut common.to_vec(), &mut apart.to_vec(), &mut results);
    for (order, shown) in &results {
        assert_eq!(*shown, results[0].1, "{order:#?}\nagainst\n{:#?}", results[0].0);
    }
    results.swap_remove(0).1
}

type Results = Vec<(Vec<Change>, BTreeMap<String, NodeId>)>;

fn interleave(done: &mut Vec<Change>, left: &mut Vec<&[Change]>, results: &mut Results) {
    if left.iter().all(|changes| changes.is_empty()) {
        results.push((done.clone(), show(done)));
        return;
    }
    for author in 0..left.len() {
        let Some((first, rest)) = left[author].split_first() else { continue };
        let before = left[author];
        left[author] = rest;
        done.push(first.clone());
        interleave(done, left, results);
        done.pop();
        left[author] = before;
    }
}

fn paths(shown: &BTreeMap<String, NodeId>) -> Vec<&str> {
    shown.keys().map(String::as_str).collect()
}

#[test]
fn a_removal_a_rename_and_an_edit_of_one_file_keep_it_under_its_new_name() {
    let made = version(1, 1);
    let shown = all_orders(
        &[change(1, 1, file(7, "a"))],
        &[
            &[change(9, 1, unlink(7, 1, "a", made))],
            &[change(2, 2, moved(7, (1, "a"), (1, "b")))],
            &[change(5, 3, edit(7, made))],
        ],
    );
    assert_eq!(paths(&shown), ["b"]);
}

#[test]
fn an_edit_keeps_the_last_name_that_removals_took() {
    let made = version(1, 1);
    let shown = all_orders(
        &[change(1, 1, file(7, "a")), change(2, 1, link(7, "b"))],
        &[
            &[
                change(3, 1, unlink(7, 1, "a", Version::default())),
                change(4, 1, unlink(7, 1, "b", made)),
            ],
            &[change(3, 2, edit(7, made))],
        ],
    );
    assert_eq!(paths(&shown), ["b"]);
}

#[test]
fn a_removal_that_has_seen_the_edit_stands() {
    let made = version(1, 1);
    let shown = all_orders(
        &[change(1, 1, file(7, "a")), change(2, 2, edit(7, made))],
        &[
            &[change(3, 1, unlink(7, 1, "a", version(2, 2)))],
            &[change(3, 2, unlink(7, 1, "a", version(2, 2)))],
        ],
    );
    assert!(shown.is_empty(), "{shown:?}");
}

#[test]
fn two_who_each_leave_the_other_name_keep_the_file() {
    let shown = all_orders(
        &[change(1, 1, file(7, "a")), change(2, 1, link(7, "b"))],
        &[
            &[change(3, 1, unlink(7, 1, "a", Version::default()))],
            &[change(3, 2, unlink(7, 1, "b", Version::default()))],
        ],
    );
    assert_eq!(paths(&shown), ["b"]);
}

#[test]
fn a_file_renamed_by_two_has_both_names() {
    let shown = all_orders(
        &[change(1, 1, file(7, "a"))],
        &[
            &[change(2, 1, moved(7, (1, "a"), (1, "b")))],
            &[change(2, 2, moved(7, (1, "a"), (1, "c")))],
        ],
    );
    assert_eq!(paths(&shown), ["b", "c"]);
}

#[test]
fn a_directory_moved_by_three_is_where_the_newest_move_put_it() {
    let shown = all_orders(
        &[change(1, 1, dir(7, "a"))],
        &[
            &[
                change(2, 1, moved(7, (1, "a"), (1, "b"))),
                change(3, 1, moved(7, (1, "b"), (1, "e"))),
            ],
            &[change(5, 2, moved(7, (1, "a"), (1, "c")))],
            &[change(4, 3, moved(7, (1, "a"), (1, "d")))],
        ],
    );
    assert_eq!(paths(&shown), ["c"]);
}

#[test]
fn of_directories_moved_below_each_other_the_oldest_move_gives_way() {
    let made = [change(1, 1, dir(7, "x")), change(2, 1, dir(8, "y")), change(3, 1, dir(9, "z"))];
    let shown = all_orders(
        &made,
        &[
            &[change(4, 1, moved(7, (1, "x"), (8, "x")))],
            &[change(5, 2, moved(8, (1, "y"), (9, "y")))],
            &[change(6, 3, moved(9, (1, "z"), (7, "z")))],
        ],
    );
    assert_eq!(paths(&shown), ["x", "x/z", "x/z/y"]);
}

#[test]
fn a_removed_directory_stays_for_what_is_made_in_it_and_goes_with_it() {
    let made = [change(1, 1, dir(7, "d")), change(2, 1, dir(8, "e"))];
    let inside = create(9, NodeId(7), "f", Body::File(ContentRef::default()));
    let removed = [change(9, 1, unlink(7, 1, "d", version(0, 1)))];
    let kept = all_orders(&made, &[&removed, &[change(3, 2, inside.clone())]]);
    assert_eq!(paths(&kept), ["d", "d/f", "e"]);
    let left = all_orders(
        &made,
        &[&removed, &[change(3, 2, inside), change(4, 2, moved(9, (7, "f"), (8, "f")))]],
    );
    assert_eq!(paths(&left), ["e", "e/f"]);
}

#[test]
fn three_files_under_one_name_are_shown_alike_whatever_came_first() {
    let made = version(2, 1);
    let shown = all_orders(
        &[],
        &[
            &[change(2, 1, file(7, "a")), change(3, 1, unlink(7, 1, "a", made))],
            &[change(1, 2, file(8, "a")), change(5, 2, link(8, "b"))],
            &[change(4, 3, file(9, "a")), change(6, 3, file(10, "b"))],
        ],
    );
    assert_eq!(shown.len(), 4);
    assert_eq!((shown["a"], shown["b"]), (NodeId(9), NodeId(10)));
}

#[test]
fn a_conflict_name_that_somebody_wants_is_avoided_until_it_is_free() {
    let conflict = "a (conflict from a peer 7).lock";
    let taken =
        [change(3, 3, file(9, conflict)), change(4, 3, unlink(9, 1, conflict, version(3, 3)))];
    let lost: &[Change] = &[change(1, 1, file(7, "a"))];
    let won: &[Change] = &[change(2, 2, file(8, "a"))];
    let shown = all_orders(&[], &[lost, won, &taken[..1]]);
    assert_eq!((shown["a"], shown[conflict], shown.len()), (NodeId(8), NodeId(9), 3));
    let free = all_orders(&[], &[lost, won, &taken]);
    assert_eq!((free["a"], free[conflict], free.len()), (NodeId(8), NodeId(7), 2));
}

#[test]
fn a_replacement_removes_what_its_author_saw_and_no_more() {
    let made = version(1, 1);
    let over = RenameTarget::Replaced { node: NodeId(7), seen: made };
    let common = [change(1, 1, file(7, "ref")), change(2, 1, file(8, "lock"))];
    let replace = [change(3, 1, rename(8, (1, "lock"), (1, "ref"), over))];
    let plain = all_orders(&common, &[&replace, &[change(3, 2, link(7, "copy"))]]);
    assert_eq!((plain["ref"], plain["copy"], plain.len()), (NodeId(8), NodeId(7), 2));
    let edited = all_orders(&common, &[&replace, &[change(3, 2, edit(7, made))]]);
    assert_eq!((edited["ref"], edited.len()), (NodeId(8), 2));
}

#[test]
fn a_name_kept_by_an_edit_stays_when_the_file_gets_another() {
    let tree = Tree::new(Perm::default(), Times::default());
    let mut replica = Replica::new(Slot(1), tree, Counters::default());
    let made = version(1, 2);
    for (seq, op) in [file(7, "a"), edit(7, made)].into_iter().enumerate() {
        let version = version(1 + 8 * seq as u64, 2);
        let change = Change { seq: Sequence(1 + seq as u64), version, op };
        replica.apply_remote(Slot(2), &change).unwrap();
    }
    let removed = Change { seq: Sequence(1), version: version(9, 3), op: unlink(7, 1, "a", made) };
    replica.apply_remote(Slot(3), &removed).unwrap();
    replica.local(link(7, "b"));
    let names: Vec<String> =
        replica.tree.node(NodeId(7)).unwrap().links.iter().map(|l| l.shown.to_string()).collect();
    assert_eq!((names, replica.take_consequences()), (vec!["a".into(), "b".into()], vec![]));
}

#[test]
fn a_conflict_name_is_freed_by_the_replacement_of_its_other_name() {
    let tree = Tree::new(Perm::default(), Times::default());
    let mut replica = Replica::new(Slot(1), tree, Counters::default());
    let ops = [file(7, "b"), link(7, "c"), file(8, "b")];
    for (at, op) in ops.into_iter().enumerate() {
        let seq = Sequence(1 + at as u64);
        let change = Change { seq, version: version(seq.0, 2), op };
        replica.apply_remote(Slot(2), &change).unwrap();
    }
    let over = replica.rename_target(ROOT, b"c");
    replica.local(rename(8, (1, "b"), (1, "c"), over));
    let consequences = replica.take_consequences();
    let freed = |effect: &Effect| matches!(effect, Effect::Moved { node, to, .. } if *node == NodeId(7) && to.name == name("b"));
    assert!(consequences.len() == 1 && freed(&consequences[0]), "{consequences:?}");
}
