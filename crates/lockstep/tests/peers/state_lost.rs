//! State that is damaged, gone, or an old copy: noticed, named, and rebuilt from the directory and
//! the peer.

use crate::support::connected;
use crate::support::pair::Pair;
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::tree::plain_files;
use crate::support::{SOON, eventually};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What both sides have in common before one of them loses its state.
fn fill(pair: &Pair) {
    for dir in ["docs", "docs/deep", "src"] {
        fs::create_dir(pair.a.at(dir)).unwrap();
    }
    for number in 0..12u64 {
        let side = if number % 2 == 0 { &pair.a } else { &pair.b };
        side.wait();
        fs::write(side.at(format!("docs/{number}")), format!("text {number}")).unwrap();
        fs::write(side.at(format!("docs/deep/{number}")), noise(number, 3000)).unwrap();
    }
    fs::write(pair.a.at("large"), noise(90, 3_000_000)).unwrap();
    std::os::unix::fs::symlink("docs/0", pair.a.at("link")).unwrap();
    pair.identical();
}

/// The directory of the one volume below `home`.
fn volume_dir(peer: &Peer) -> PathBuf {
    let volumes = fs::read_dir(peer.home.join("volumes")).unwrap();
    volumes.map(|entry| entry.unwrap().path()).next().expect("there is a volume")
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            copy_dir(&path, &target);
        } else if kind.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn inodes(root: &Path) -> BTreeMap<PathBuf, u64> {
    let names = ["docs", "docs/deep", "docs/0", "docs/5", "docs/deep/3", "large", "link", "src"];
    let inode = |name: &str| root.join(name).symlink_metadata().unwrap().ino();
    names.iter().map(|name| (name.into(), inode(name))).collect()
}

/// Stops `loser`, lets `damage` do its work on the loser's home while both sides are edited, and
/// starts it again: everything of both sides is there, on both sides, and nothing twice.
fn survives(pair: &Pair, loser: &Peer, damage: &dyn Fn(&Path)) {
    let other = if loser.name == "a" { &pair.b } else { &pair.a };
    fill(pair);
    let before = inodes(other.mnt());
    loser.stop();
    damage(&loser.home);
    fs::write(other.at("docs/2"), "edited at the other side").unwrap();
    fs::write(other.at("new-there"), "made at the other side").unwrap();
    fs::rename(other.at("docs/deep/4"), other.at("src/moved")).unwrap();
    fs::write(loser.backing.join("new-here"), "made below while the daemon was down").unwrap();
    fs::create_dir(loser.backing.join("src/own")).unwrap();
    fs::write(loser.backing.join("src/own/file"), noise(7, 50_000)).unwrap();
    loser.start();
    pair.reconnected();
    pair.identical();
    for side in [loser, other] {
        let read = |name: &str| fs::read(side.at(name)).unwrap();
        assert_eq!(read("docs/2"), b"edited at the other side", "{}", side.name);
        assert_eq!(read("new-there"), b"made at the other side");
        assert_eq!(read("src/moved"), noise(4, 3000));
        assert_eq!(read("new-here"), b"made below while the daemon was down");
        assert_eq!(read("src/own/file"), noise(7, 50_000));
        assert_eq!(read("large"), noise(90, 3_000_000));
        assert!(!side.at("docs/deep/4").exists(), "a file moved away is back");
    }
    assert_eq!(inodes(other.mnt()), before, "the peer's nodes stay what they are");
    assert_eq!(inodes(loser.mnt()), before, "equal files are the peer's nodes again");
    // The log goes on in both directions.
    fs::write(loser.at("after"), "from the one that lost its state").unwrap();
    fs::write(other.at("after-too"), "to it").unwrap();
    pair.identical();
    assert_eq!(fs::read(other.at("after")).unwrap(), b"from the one that lost its state");
    eventually("the cursors meet", SOON, || {
        let cursors = loser.volume()["peers"][0]["cursors"].clone();
        ["durable", "sent", "acknowledged", "acknowledged_durable", "acknowledged_complete"]
            .iter()
            .all(|cursor| cursors[cursor] == cursors["appended"])
    });
}

/// Conflict copies, by path.
fn conflict_copies(peer: &Peer) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = plain_files(&peer.backing).into_keys().collect();
    names.retain(|name| name.to_string_lossy().contains("conflict from"));
    names
}

fn lost_state(side: fn(&Pair) -> &Peer) {
    let pair = connected!();
    survives(&pair, side(&pair), &|home| {
        for volume in fs::read_dir(home.join("volumes")).unwrap() {
            fs::remove_dir_all(volume.unwrap().path().join("state")).unwrap();
        }
    });
    let loser = side(&pair);
    // What only the loser's old bytes tell of docs/2 is kept: it cannot know that they are old.
    let copies = conflict_copies(loser);
    assert!(copies.len() <= 1 && copies.iter().all(|c| c.starts_with("docs")), "{copies:?}");
    assert!(notices(loser).contains("no state"), "{}", notices(loser));
}

fn notices(peer: &Peer) -> String {
    peer.volume()["notices"].to_string()
}

#[test]
fn the_sharer_loses_its_state_directory() {
    lost_state(|pair| &pair.a);
}

#[test]
fn the_joiner_loses_its_state_directory() {
    lost_state(|pair| &pair.b);
}

fn damaged_state(side: fn(&Pair) -> &Peer, spoil: &dyn Fn(&mut Vec<u8>), which: &str) {
    let pair = connected!();
    let loser = side(&pair);
    survives(&pair, loser, &|home| {
        let state = fs::read_dir(home.join("volumes")).unwrap().next().unwrap().unwrap().path();
        let files = files_below(&state.join("state"));
        let spoilt: Vec<_> =
            files.iter().filter(|path| path.to_string_lossy().contains(which)).collect();
        assert!(!spoilt.is_empty(), "{which} is among {files:?}");
        for path in spoilt {
            let mut bytes = fs::read(path).unwrap();
            spoil(&mut bytes);
            fs::write(path, bytes).unwrap();
        }
    });
    let copies = conflict_copies(loser);
    assert!(copies.len() <= 1 && copies.iter().all(|c| c.starts_with("docs")), "{copies:?}");
}

/// Flips a bit in each of the first bytes that are not zero.
fn flip(bytes: &mut [u8]) {
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for at in used.iter().step_by(97) {
        bytes[*at] ^= 0x10;
    }
}

#[test]
fn flipped_bytes_in_the_journal_are_noticed_named_and_the_state_is_rebuilt() {
    damaged_state(|pair| &pair.a, &|bytes| flip(bytes), ".jnl");
    damaged_state(|pair| &pair.b, &|bytes| flip(bytes), ".jnl");
}

#[test]
fn a_damaged_database_is_kept_aside_and_said_in_status() {
    let pair = connected!();
    survives(&pair, &pair.b, &|home| {
        let state = fs::read_dir(home.join("volumes")).unwrap().next().unwrap().unwrap().path();
        fs::write(state.join("state/v1/version"), b"no").unwrap();
    });
    let said = notices(&pair.b);
    let kept = files_below(&volume_dir(&pair.b).join("state"));
    let aside = kept.iter().find(|path| path.to_string_lossy().contains("damaged"));
    let aside = aside.expect("the damaged database is kept").to_string_lossy();
    let aside = aside.split("/version").next().unwrap();
    assert!(said.contains("damaged") && said.contains("rebuilt"), "{said}");
    assert!(aside.split('/').any(|part| said.contains(part) && part.contains("damaged")), "{said}");
    assert!(pair.b.log_tail(400).contains("damaged"), "the log says it too");
}

#[test]
fn a_journal_cut_short_is_a_state_of_before() {
    damaged_state(|pair| &pair.b, &|bytes| bytes.truncate(bytes.len() / 64), ".jnl");
}

#[test]
fn an_emptied_journal_is_a_state_of_before() {
    damaged_state(|pair| &pair.a, &|bytes| bytes.clear(), ".jnl");
}

/// An old copy of the whole home is put back.
fn put_back(side: fn(&Pair) -> &Peer) {
    let pair = connected!();
    let loser = side(&pair);
    fs::write(pair.a.at("from-before"), "from before the copy").unwrap();
    fs::write(pair.a.at("removed-later"), "removed after the copy").unwrap();
    pair.identical();
    loser.stop();
    let copy = pair.outside("copy");
    copy_dir(&loser.home, &copy);
    loser.start();
    pair.reconnected();
    fs::write(loser.at("by-the-loser"), noise(40, 40_000)).unwrap();
    fs::remove_file(loser.at("removed-later")).unwrap();
    pair.identical();
    loser.stop();
    loser.start();
    pair.reconnected();
    survives(&pair, loser, &|home| {
        fs::remove_dir_all(home).unwrap();
        copy_dir(&copy, home);
    });
    for side in [&pair.a, &pair.b] {
        assert_eq!(fs::read(side.at("from-before")).unwrap(), b"from before the copy");
        assert_eq!(fs::read(side.at("by-the-loser")).unwrap(), noise(40, 40_000));
        assert!(!side.at("removed-later").exists(), "{}", side.name);
    }
    let copies = conflict_copies(loser);
    assert!(copies.len() <= 1 && copies.iter().all(|c| c.starts_with("docs")), "{copies:?}");
}

#[test]
fn the_sharer_gets_an_old_copy_of_its_home_back() {
    put_back(|pair| &pair.a);
}

#[test]
fn the_joiner_gets_an_old_copy_of_its_home_back() {
    put_back(|pair| &pair.b);
}

#[test]
fn both_sides_lose_their_state_and_nothing_is_lost_or_doubled() {
    let pair = connected!();
    fill(&pair);
    let before = plain_files(&pair.a.backing);
    for side in [&pair.a, &pair.b] {
        side.stop();
        fs::remove_dir_all(volume_dir(side).join("state")).unwrap();
    }
    pair.a.start();
    pair.b.start();
    pair.reconnected();
    pair.identical();
    assert!(plain_files(&pair.a.backing) == before, "both had the same, and still have");
    assert!(plain_files(&pair.b.backing) == before);
}

/// Which directory a volume is cannot be rebuilt: no command answers as if there were no such volume.
#[test]
fn a_damaged_record_of_a_volume_is_named_and_no_command_answers_0() {
    let pair = connected!();
    fs::write(pair.a.at("file"), "there before").unwrap();
    pair.identical();
    pair.a.stop();
    let record = volume_dir(&pair.a).join("volume.json");
    let whole = fs::read(&record).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"\x00\xff garbage"] {
        fs::write(&record, damaged).unwrap();
        for command in ["start", "wait", "verify"] {
            pair.a.run(&[command]).fails_with(1, &["volume.json is damaged", "next step"]);
        }
        assert!(pair.a.status()["problems"].to_string().contains("volume.json is damaged"));
        pair.a.run(&["stop"]).success();
    }
    fs::write(&record, whole).unwrap();
    pair.a.start();
    pair.reconnected();
    pair.identical();
}
