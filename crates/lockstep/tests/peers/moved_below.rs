//! What is moved in the backing directory while its daemon is down is a move for everybody.

use crate::support::connected;
use crate::support::pair::Pair;
use crate::support::repository::noise;
use std::fs;
use std::os::unix::fs::MetadataExt;

fn ino(pair: &Pair, name: &str) -> (u64, u64) {
    let of = |at: std::path::PathBuf| at.symlink_metadata().unwrap().ino();
    (of(pair.a.at(name)), of(pair.b.at(name)))
}

/// Bytes of content that a has received so far.
fn received(pair: &Pair) -> u64 {
    pair.a.volume()["counters"]["content_bytes_received"].as_u64().unwrap()
}

#[test]
fn files_and_directories_moved_below_while_the_daemon_was_down_keep_their_inodes() {
    let pair = connected!();
    for dir in ["dir", "dir/deep", "other"] {
        fs::create_dir(pair.a.at(dir)).unwrap();
    }
    for (number, name) in
        ["file", "dir/one", "dir/deep/two", "x", "y", "1", "2", "3", "atomic"].iter().enumerate()
    {
        fs::write(pair.a.at(name), noise(number as u64, 200_000)).unwrap();
    }
    std::os::unix::fs::symlink("file", pair.a.at("link")).unwrap();
    pair.identical();
    let before: Vec<_> =
        ["file", "dir", "dir/one", "dir/deep", "dir/deep/two", "x", "y", "1", "2", "3"]
            .iter()
            .map(|name| ino(&pair, name))
            .collect();
    let (link, atomic, fetched) = (ino(&pair, "link"), ino(&pair, "atomic"), received(&pair));
    pair.b.stop();
    let below = |name: &str| pair.b.backing.join(name);
    let rename = |from: &str, to: &str| fs::rename(below(from), below(to)).unwrap();
    rename("file", "other/renamed");
    rename("dir/one", "other/one");
    rename("dir", "other/dir");
    rename("link", "other/link");
    // Two names swapped, three in a ring.
    rename("x", "aside");
    rename("y", "x");
    rename("aside", "y");
    rename("1", "aside");
    rename("3", "1");
    rename("2", "3");
    rename("aside", "2");
    // As editors replace a file: its name stands, its bytes are new.
    fs::write(below("atomic.new"), "replaced while the daemon was down").unwrap();
    rename("atomic.new", "atomic");
    pair.b.start();
    pair.reconnected();
    pair.identical();
    let now = [
        "other/renamed",
        "other/dir",
        "other/one",
        "other/dir/deep",
        "other/dir/deep/two",
        "y",
        "x",
        "2",
        "3",
        "1",
    ];
    for (name, before) in now.iter().zip(&before) {
        assert_eq!(ino(&pair, name), *before, "{name}");
    }
    assert_eq!(ino(&pair, "other/link"), link);
    assert_eq!(ino(&pair, "atomic"), atomic, "a file whose bytes were replaced");
    let replaced = fs::read_to_string(pair.a.at("atomic")).unwrap();
    assert_eq!(replaced, "replaced while the daemon was down");
    assert_eq!(fs::read(pair.a.at("x")).unwrap(), noise(4, 200_000));
    assert!(
        !pair.a.at("file").exists() && !pair.a.at("dir").exists() && !pair.a.at("link").exists()
    );
    let names: Vec<_> =
        fs::read_dir(pair.a.mnt()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 7, "nothing else stands there: {names:?}");
    assert_eq!(received(&pair), fetched, "no bytes of a moved file crossed the wire");
}

#[test]
fn a_new_file_that_takes_the_name_of_a_moved_one_is_new() {
    let pair = connected!();
    fs::write(pair.a.at("notes"), noise(1, 5000)).unwrap();
    fs::create_dir(pair.a.at("gone")).unwrap();
    fs::write(pair.a.at("gone/file"), noise(2, 5000)).unwrap();
    pair.identical();
    let notes = ino(&pair, "notes");
    pair.b.stop();
    fs::rename(pair.b.backing.join("notes"), pair.b.backing.join("notes~")).unwrap();
    fs::write(pair.b.backing.join("notes"), "new").unwrap();
    fs::remove_dir_all(pair.b.backing.join("gone")).unwrap();
    fs::write(pair.b.backing.join("gone"), "a file now").unwrap();
    pair.b.start();
    pair.reconnected();
    pair.identical();
    assert_eq!(ino(&pair, "notes~"), notes);
    assert_ne!(ino(&pair, "notes"), notes);
    assert_eq!(fs::read_to_string(pair.a.at("notes")).unwrap(), "new");
    assert_eq!(fs::read_to_string(pair.a.at("gone")).unwrap(), "a file now");
}
