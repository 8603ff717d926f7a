//! What one side deletes or overwrites stays in the other side's trash, and comes back from it.

use crate::support::connected;
use crate::support::pair::Layout;
use crate::support::peer::{Peer, Placing};
use crate::support::repository::noise;
use crate::support::{SOON, eventually};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// The entries of `lockstep trash list --json`, newest first.
#[track_caller]
fn listed(peer: &Peer) -> Vec<Value> {
    let answer = peer.run(&["trash", "list", "--json"]).success().json();
    answer["volumes"][0]["entries"].as_array().expect("a list").clone()
}

#[track_caller]
fn names(peer: &Peer) -> Vec<(String, String)> {
    let word = |entry: &Value, field: &str| entry[field].as_str().expect("text").to_owned();
    let name = |entry: &Value| word(entry, "path").rsplit('/').next().map(str::to_owned);
    listed(peer).iter().map(|e| (name(e).expect("a name"), word(e, "reason"))).collect()
}

#[track_caller]
fn restore(peer: &Peer, name: &str) -> String {
    let path = peer.at(name);
    let args = ["trash", "restore", path.to_str().expect("text"), "--json"];
    let answer = peer.run(&args).success().json();
    answer["restored"].as_str().expect("a path").to_owned()
}

#[test]
fn what_the_peer_deletes_or_overwrites_can_be_restored_and_replicates() {
    let pair = connected!();
    fs::create_dir(pair.b.at("dir")).unwrap();
    fs::write(pair.b.at("dir/deleted.txt"), "written on b, deleted on a").unwrap();
    fs::write(pair.b.at("overwritten"), noise(3, 300_000)).unwrap();
    fs::write(pair.b.at("replaced"), "the old one").unwrap();
    pair.identical();
    fs::remove_dir_all(pair.a.at("dir")).unwrap();
    fs::write(pair.a.at("overwritten"), "by a").unwrap();
    fs::write(pair.a.at("replaced.new"), "the new one").unwrap();
    fs::rename(pair.a.at("replaced.new"), pair.a.at("replaced")).unwrap();
    pair.identical();
    let expected = [("replaced", "replaced"), ("overwritten", "overwritten")];
    let mut found = names(&pair.b);
    found.sort();
    let mut all = vec![("deleted.txt".to_owned(), "removed".to_owned())];
    all.extend(expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    all.sort();
    assert_eq!(found, all);
    assert_eq!(names(&pair.a), [], "a did it itself");

    assert_eq!(restore(&pair.b, "dir/deleted.txt"), pair.b.at("dir/deleted.txt").to_str().unwrap());
    let beside = restore(&pair.b, "overwritten");
    assert!(beside.contains("overwritten (restored "), "{beside}");
    pair.identical();
    let text = fs::read_to_string(pair.a.at("dir/deleted.txt")).unwrap();
    assert_eq!(text, "written on b, deleted on a");
    let name = std::path::Path::new(&beside).file_name().unwrap();
    assert!(fs::read(pair.a.at(name)).unwrap() == noise(3, 300_000));
    assert_eq!(fs::read_to_string(pair.a.at("overwritten")).unwrap(), "by a");

    let status = pair.b.volume()["trash"].clone();
    assert_eq!((status["entries"].as_u64(), status["kept"].as_u64()), (Some(1), Some(3)));
    assert!(status["bytes_max"].as_u64() > Some(1 << 20), "{status}");
    let emptied = pair.b.run(&["trash", "empty", "--json"]).success().json();
    assert_eq!(emptied["volumes"][0]["removed"], 1);
    assert_eq!(names(&pair.b), []);
}

#[test]
fn the_trash_survives_a_kill_and_names_what_it_does_not_have() {
    let pair = connected!();
    fs::write(pair.b.at("notes"), "of b").unwrap();
    pair.identical();
    fs::remove_file(pair.a.at("notes")).unwrap();
    pair.wait();
    let before = listed(&pair.b);
    assert_eq!(before.len(), 1);
    pair.b.kill9();
    pair.b.start();
    pair.reconnected();
    assert_eq!(listed(&pair.b), before);
    let unknown = pair.b.at("never-was");
    let refused = pair.b.run(&["trash", "restore", unknown.to_str().unwrap()]);
    refused.fails_with(1, &["never-was", "trash list"]);
    pair.b.run(&["trash", "restore", "/nowhere/at-all"]).fails_with(1, &["in no volume"]);
    pair.b.run(&["trash", "list", "no-such-volume"]).fails_with(1, &["no volume"]);
    restore(&pair.b, "notes");
    pair.identical();
    assert_eq!(fs::read_to_string(pair.a.at("notes")).unwrap(), "of b");
}

/// What somebody took out of `.lockstep/keep` is not listed as if it could be restored.
#[test]
fn a_kept_file_that_is_gone_is_no_longer_in_the_trash() {
    let pair = connected!();
    for name in ["first", "second"] {
        fs::write(pair.b.at(name), format!("the {name} of b")).unwrap();
    }
    pair.identical();
    for name in ["first", "second"] {
        fs::remove_file(pair.a.at(name)).unwrap();
    }
    pair.wait();
    assert_eq!(names(&pair.b).len(), 2);
    let keep = pair.b.backing.join(".lockstep/keep");
    let take = |wanted: &[u8]| {
        pair.b.stop();
        for entry in fs::read_dir(&keep).unwrap() {
            let path = entry.unwrap().path();
            if fs::read(&path).unwrap() == wanted {
                fs::remove_file(path).unwrap();
            }
        }
    };
    take(b"the first of b");
    pair.b.start();
    let left = names(&pair.b);
    assert!(left.len() == 1 && left[0].0 == "second", "{left:?}");
    pair.b.stop();
    fs::remove_dir_all(&keep).unwrap();
    pair.b.start();
    assert!(names(&pair.b).is_empty());
    pair.reconnected();
}

#[test]
fn slow_five_thousand_files_deleted_by_the_peer_go_to_the_trash_at_once() {
    let pair = connected!();
    fs::create_dir(pair.b.at("many")).unwrap();
    for number in 0..5_000 {
        fs::write(pair.b.at(format!("many/{number}")), format!("number {number}")).unwrap();
    }
    pair.wait();
    let start = Instant::now();
    fs::remove_dir_all(pair.a.at("many")).unwrap();
    pair.wait();
    let took = start.elapsed();
    println!("5,000 removals replicated, all into the trash: {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(!pair.b.at("many").exists());
    assert_eq!(pair.b.volume()["trash"]["entries"], 5_000);
    assert_eq!(restore(&pair.b, "many"), pair.b.at("many").to_str().unwrap());
    pair.wait();
    assert_eq!(fs::read_dir(pair.a.at("many")).unwrap().count(), 5_000);
    assert_eq!(fs::read_to_string(pair.a.at("many/4321")).unwrap(), "number 4321");
    fs::remove_dir_all(pair.a.at("many")).unwrap();
    pair.wait();
    let emptied = pair.b.run(&["trash", "empty", "--json"]).success().json();
    assert_eq!(emptied["volumes"][0]["removed"], 5_000);
}

#[test]
fn a_peer_without_a_mount_has_a_trash_too() {
    let pair = connected!(Layout { b: Placing::Nowhere, ..Layout::default() });
    fs::write(pair.a.at("notes"), "written and removed on a").unwrap();
    pair.wait();
    let born = fs::metadata(pair.b.at("notes")).unwrap().created().unwrap();
    eventually("the file has stood on b for a second", SOON, || {
        born.elapsed().is_ok_and(|age| age > Duration::from_millis(1_100))
    });
    fs::remove_file(pair.a.at("notes")).unwrap();
    pair.wait();
    assert_eq!(names(&pair.b), [("notes".to_owned(), "removed".to_owned())]);
    assert_eq!(restore(&pair.b, "notes"), pair.b.at("notes").to_str().unwrap());
    pair.wait();
    for peer in [&pair.a, &pair.b] {
        assert_eq!(fs::read_to_string(peer.at("notes")).unwrap(), "written and removed on a");
    }
}
