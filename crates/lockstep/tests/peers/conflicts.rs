//! What both sides changed while apart: which rule applies, who lists it, and how it is settled.

use crate::merging::{both_kept, while_apart};
use crate::support::connected;
use crate::support::pair::Pair;
use crate::support::peer::Peer;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The conflicts that `peer` lists.
#[track_caller]
pub fn listed(peer: &Peer) -> Vec<Value> {
    let answer = peer.run(&["conflicts", "--json"]).success().json();
    answer["volumes"][0]["conflicts"].as_array().expect("a list").clone()
}

/// Path and copy of the one conflict, as both sides list it, below their roots.
#[track_caller]
pub fn the_conflict(pair: &Pair) -> (PathBuf, PathBuf) {
    let (on_a, on_b) = (listed(&pair.a), listed(&pair.b));
    assert_eq!((on_a.len(), on_b.len()), (1, 1), "{on_a:#?}\n{on_b:#?}");
    let below = |peer: &Peer, path: &Value| {
        let path = Path::new(path.as_str().expect("a path"));
        path.strip_prefix(peer.mnt()).expect("below the mount").to_owned()
    };
    for field in ["path", "copy"] {
        assert_eq!(below(&pair.a, &on_a[0][field]), below(&pair.b, &on_b[0][field]));
    }
    assert_eq!(on_a[0]["node"], on_b[0]["node"]);
    assert_eq!(on_a[0]["time"], on_b[0]["time"]);
    let mine = [&on_a[0]["mine"], &on_b[0]["mine"]];
    assert!(mine.contains(&&"path".into()) && mine.contains(&&"copy".into()), "{mine:?}");
    (below(&pair.a, &on_a[0]["path"]), below(&pair.a, &on_a[0]["copy"]))
}

#[track_caller]
fn no_conflicts(pair: &Pair) {
    pair.identical();
    for peer in [&pair.a, &pair.b] {
        assert_eq!(listed(peer), Vec::<Value>::new(), "on {}", peer.name);
    }
}

#[track_caller]
fn resolve(peer: &Peer, path: &Path, keep: &str) -> Value {
    let path = peer.at(path);
    let args = ["conflicts", "resolve", path.to_str().expect("text"), "--keep", keep, "--json"];
    peer.run(&args).success().json()
}

/// A pair where `name` holds `from a` and `from b`.
fn apart(name: &'static str, existing: bool) -> Option<Pair> {
    let pair = Pair::connected(Default::default())?;
    if existing {
        fs::write(pair.a.at(name), "before").unwrap();
        pair.identical();
    }
    let write = |text: &'static str| move |root: &Path| fs::write(root.join(name), text).unwrap();
    while_apart(&pair, write("from a"), write("from b"));
    both_kept(&pair, ["from a", "from b"]);
    Some(pair)
}

fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_same_name_created_on_both_sides_is_a_conflict_and_mine_or_theirs_settles_it() {
    for (keep, text) in [("mine", "from b"), ("theirs", "from a")] {
        let Some(pair) = apart("notes.txt", false) else { return };
        let (path, copy) = the_conflict(&pair);
        assert_eq!(path, Path::new("notes.txt"));
        assert!(copy.to_str().unwrap().starts_with("notes (conflict from "), "{copy:?}");
        assert_eq!(pair.a.volume()["conflicts"], 1);
        let resolved = resolve(&pair.b, &path, keep);
        assert_eq!(resolved["discarded"], 1);
        no_conflicts(&pair);
        for peer in [&pair.a, &pair.b] {
            assert_eq!(names(peer.mnt()), ["notes.txt"]);
            assert_eq!(fs::read_to_string(peer.at("notes.txt")).unwrap(), text);
        }
        let trash = pair.b.run(&["trash", "list", "--json"]).success().json();
        let entry = &trash["volumes"][0]["entries"][0];
        assert_eq!((&entry["reason"], &entry["size"]), (&"resolved".into(), &6.into()));
    }
}

#[test]
fn the_same_file_edited_on_both_sides_is_a_conflict_and_both_settles_it() {
    let Some(pair) = apart("notes.txt", true) else { return };
    let (path, copy) = the_conflict(&pair);
    let resolved = resolve(&pair.a, &copy, "both");
    assert_eq!(resolved["discarded"], 0);
    no_conflicts(&pair);
    both_kept(&pair, ["from a", "from b"]);
    assert!(pair.b.at(&path).is_file() && pair.b.at(&copy).is_file());
    let refused = ["conflicts", "resolve", path.to_str().unwrap(), "--keep", "mine"];
    pair.a.run(&refused).fails_with(1, &["in no volume"]);
    let at = pair.a.at(&path);
    let refused = ["conflicts", "resolve", at.to_str().unwrap(), "--keep", "mine"];
    pair.a.run(&refused).fails_with(1, &["no conflict about", "lockstep conflicts"]);
}

#[test]
fn a_conflict_follows_its_copy_and_ends_with_it() {
    let Some(pair) = apart("notes.txt", true) else { return };
    let (_, copy) = the_conflict(&pair);
    fs::create_dir(pair.a.at("aside")).unwrap();
    fs::rename(pair.a.at(&copy), pair.a.at("aside/other.txt")).unwrap();
    pair.wait();
    let moved = (PathBuf::from("notes.txt"), PathBuf::from("aside/other.txt"));
    assert_eq!(the_conflict(&pair), moved);
    pair.b.kill9();
    pair.b.start();
    pair.reconnected();
    assert_eq!(the_conflict(&pair), moved);
    fs::remove_file(pair.b.at("aside/other.txt")).unwrap();
    no_conflicts(&pair);
}

#[test]
fn a_conflict_ends_when_the_user_merges_it() {
    let Some(pair) = apart("one", true) else { return };
    let (_, copy) = the_conflict(&pair);
    fs::write(pair.a.at("one"), "merged").unwrap();
    pair.wait();
    the_conflict(&pair);
    fs::write(pair.b.at(&copy), "merged").unwrap();
    no_conflicts(&pair);
    let Some(pair) = apart("two", false) else { return };
    let (_, copy) = the_conflict(&pair);
    fs::rename(pair.b.at(&copy), pair.b.at("two")).unwrap();
    no_conflicts(&pair);
    assert_eq!(names(pair.a.mnt()), ["two"]);
}

#[test]
fn an_edit_that_beats_a_removal_is_no_conflict() {
    let pair = connected!();
    fs::write(pair.a.at("one"), "before").unwrap();
    pair.identical();
    let edit = |root: &Path| fs::write(root.join("one"), "edited").unwrap();
    let remove = |root: &Path| fs::remove_file(root.join("one")).unwrap();
    while_apart(&pair, edit, remove);
    no_conflicts(&pair);
    assert_eq!(fs::read_to_string(pair.b.at("one")).unwrap(), "edited");
}

#[test]
fn a_file_renamed_differently_on_both_sides_keeps_its_bytes_under_a_name() {
    let pair = connected!();
    fs::write(pair.a.at("old"), "the bytes").unwrap();
    pair.identical();
    let to = |name: &'static str| {
        move |root: &Path| fs::rename(root.join("old"), root.join(name)).unwrap()
    };
    while_apart(&pair, to("new-a"), to("new-b"));
    no_conflicts(&pair);
    let names = names(pair.b.mnt());
    assert!(!names.is_empty() && !names.contains(&"old".to_owned()), "{names:?}");
    for name in names {
        assert_eq!(fs::read_to_string(pair.b.at(name)).unwrap(), "the bytes");
    }
}

#[test]
fn directories_made_on_both_sides_are_joined_and_their_conflicts_listed() {
    let pair = connected!();
    let fill = |own: &'static str| {
        move |root: &Path| {
            fs::create_dir(root.join("dir")).unwrap();
            fs::write(root.join("dir/shared"), format!("from {own}")).unwrap();
            fs::write(root.join(format!("dir/only-{own}")), own).unwrap();
        }
    };
    while_apart(&pair, fill("a"), fill("b"));
    both_kept(&pair, ["from a", "from b"]);
    let (path, copy) = the_conflict(&pair);
    assert_eq!(path, Path::new("dir/shared"));
    assert_eq!(copy.parent(), Some(Path::new("dir")));
    assert_eq!(names(&pair.a.at("dir")).len(), 4);
    resolve(&pair.a, &path, "mine");
    no_conflicts(&pair);
    assert_eq!(fs::read_to_string(pair.b.at("dir/shared")).unwrap(), "from a");
}

#[test]
fn a_file_and_a_directory_of_one_name_are_settled_too() {
    let pair = connected!();
    let file = |root: &Path| fs::write(root.join("name"), "the file").unwrap();
    let dir = |root: &Path| {
        fs::create_dir_all(root.join("name/deep")).unwrap();
        fs::write(root.join("name/deep/inside"), "in the directory").unwrap();
    };
    while_apart(&pair, file, dir);
    both_kept(&pair, ["the file", "in the directory"]);
    let (path, _) = the_conflict(&pair);
    resolve(&pair.a, &path, "mine");
    no_conflicts(&pair);
    assert_eq!(fs::read_to_string(pair.b.at("name")).unwrap(), "the file");
    let trash = pair.a.run(&["trash", "list", "--json"]).success().json();
    let trashed = trash["volumes"][0]["entries"][0]["path"].as_str().unwrap().to_owned();
    assert!(trashed.ends_with("/deep/inside"), "{trashed}");
}

#[test]
fn a_copy_of_a_file_that_the_peer_edited_and_then_replaced_is_a_conflict() {
    let pair = connected!();
    fs::write(pair.a.at("notes"), "before").unwrap();
    pair.identical();
    let edit = |root: &Path| fs::write(root.join("notes"), "from a").unwrap();
    let edit_and_replace = |root: &Path| {
        fs::write(root.join("notes"), "from b").unwrap();
        fs::write(root.join("notes.new"), "from b, replaced").unwrap();
        fs::rename(root.join("notes.new"), root.join("notes")).unwrap();
    };
    while_apart(&pair, edit, edit_and_replace);
    both_kept(&pair, ["from a", "from b, replaced"]);
    let (path, _) = the_conflict(&pair);
    assert_eq!(path, Path::new("notes"));
    resolve(&pair.b, &path, "theirs");
    no_conflicts(&pair);
    assert_eq!(fs::read_to_string(pair.a.at("notes")).unwrap(), "from a");
}
