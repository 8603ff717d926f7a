//! Files of a home and of `.lockstep` that are damaged, missing or in each other's place: named, kept
//! aside, never replaced by defaults without a word; the other volumes go on.

use crate::support::environment::{NOBODY, has_root};
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use crate::support::scratch::set_mode;
use crate::support::{SOON, connected, eventually};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that are no file of Lockstep's.
const GARBAGE: &[u8] = b"\x00\xff garbage";

/// Where the damaged `path` is kept.
fn kept(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.damaged-", path.file_name().unwrap().to_str().unwrap());
    let found = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let is_kept = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix);
    found.filter(is_kept).collect()
}

/// The one place where the damaged `path` is kept, which `said` names.
#[track_caller]
fn kept_and_said(path: &Path, said: &serde_json::Value) -> PathBuf {
    let kept = kept(path);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let said = said.to_string();
    let name = kept[0].file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name) && said.contains("damaged"), "{name} is not in {said}");
    kept[0].clone()
}

fn volume_dirs(peer: &Peer) -> Vec<PathBuf> {
    let volumes = fs::read_dir(peer.home.join("volumes")).unwrap();
    volumes.map(|entry| entry.unwrap().path()).collect()
}

fn works(pair: &Pair, name: &str) {
    pair.reconnected();
    fs::write(pair.a.at(name), name).unwrap();
    pair.identical();
}

#[test]
fn a_damaged_config_is_named_and_never_taken_for_defaults() {
    let pair = connected!();
    let config = pair.a.home.join("config.json");
    let whole = br#"{"trash_days": 30, "host": "ada"}"#;
    let bad: [&[u8]; 4] = [&whole[..20], b"", GARBAGE, br#"{"trash_day": 30}"#];
    for damaged in bad {
        fs::write(&config, damaged).unwrap();
        // The daemon that runs goes on with what it has read, and does not write over the file.
        let more = pair.outside("more");
        let more = more.to_str().unwrap();
        let share = pair.a.run(&["share", more, "--no-mount"]);
        share.fails_with(1, &["config.json", "damaged", "next step"]);
        pair.a.stop();
        pair.a.run(&["start"]).fails_with(1, &["config.json", "damaged", "next step"]);
        assert_eq!(fs::read(&config).unwrap(), damaged);
        fs::write(&config, whole).unwrap();
        pair.a.start();
    }
    works(&pair, "after");
}

#[test]
fn a_key_that_is_gone_damaged_or_open_to_others_is_named_and_not_replaced() {
    let pair = connected!();
    pair.a.stop();
    let key = pair.a.home.join("identity.key");
    let whole = fs::read(&key).unwrap();
    let refused = |words: &[&str]| {
        let words = [words, &["identity.key", "next step"]].concat();
        pair.a.run(&["start"]).fails_with(1, &words);
    };
    fs::remove_file(&key).unwrap();
    refused(&["missing", "backup"]);
    assert!(!key.exists(), "no key is drawn in its place");
    for damaged in [&whole[..whole.len() / 2], b"", GARBAGE] {
        fs::write(&key, damaged).unwrap();
        set_mode(&key, 0o600);
        refused(&["damaged"]);
        assert_eq!(fs::read(&key).unwrap(), damaged);
    }
    // Another key is a key, too.
    let mut altered = whole.clone();
    let digit = altered.iter_mut().rfind(|byte| byte.is_ascii_hexdigit()).unwrap();
    *digit = if *digit == b'0' { b'1' } else { b'0' };
    fs::write(&key, altered).unwrap();
    refused(&["not the key by which", "backup"]);
    fs::write(&key, &whole).unwrap();
    for mode in [0o640, 0o604] {
        set_mode(&key, mode);
        refused(&["chmod 600"]);
    }
    set_mode(&key, 0o600);
    if has_root("to give a file away") {
        std::os::unix::fs::chown(&key, Some(NOBODY), None).unwrap();
        refused(&["another user", "chown"]);
        std::os::unix::fs::chown(&key, Some(0), None).unwrap();
    }
    set_mode(&pair.a.home, 0o750);
    pair.a.run(&["start"]).fails_with(1, &["open to other users", "chmod 700"]);
    set_mode(&pair.a.home, 0o700);
    pair.a.start();
    works(&pair, "after");
}

/// Without a backup of the key: the way out that the refusal names.
#[test]
fn a_home_that_lost_its_key_starts_anew_once_its_volumes_are_moved_away() {
    let pair = connected!();
    works(&pair, "before");
    pair.a.stop();
    pair.b.stop();
    fs::remove_file(pair.a.home.join("identity.key")).unwrap();
    pair.a.run(&["start"]).fails_with(1, &["move", "volumes"]);
    for side in [&pair.a, &pair.b] {
        fs::rename(side.home.join("volumes"), side.home.join("volumes.old")).unwrap();
    }
    pair.b.join(pair.a.share()["invite"].as_str().unwrap());
    works(&pair, "after");
    assert_eq!(fs::read_to_string(pair.b.at("before")).unwrap(), "before");
}

#[test]
fn damaged_invites_are_kept_aside_and_void_and_the_daemon_starts() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let code = pair.a.share()["invite"].as_str().unwrap().to_owned();
    let name = pair.a.volume()["name"].as_str().unwrap().to_owned();
    let book = pair.a.home.join("invites.json");
    let damages: [&dyn Fn(); 3] =
        [&|| fs::write(&book, GARBAGE).unwrap(), &|| fs::write(&book, b"").unwrap(), &|| {
            fs::remove_file(&book).unwrap();
            fs::create_dir(&book).unwrap();
        }];
    for damage in damages {
        pair.a.stop();
        damage();
        pair.a.start();
        let aside = kept_and_said(&book, &pair.a.status()["notices"]);
        assert!(pair.a.run(&["status"]).stdout.contains("invites.json.damaged-"));
        let removed = if aside.is_dir() { fs::remove_dir(aside) } else { fs::remove_file(aside) };
        removed.unwrap();
        pair.a.run(&["invite", &name]).success();
    }
    let dir = pair.b.backing.to_str().unwrap();
    pair.b.run(&["join", &code, dir, "--no-mount"]).fails_with(1, &["invite"]);
    let fresh = pair.a.run(&["invite", &name, "--json"]).success().json();
    pair.a.stop();
    // Hashes that others could have read harm nobody: the file is closed again.
    set_mode(&book, 0o644);
    pair.a.start();
    assert!(pair.a.status()["notices"].to_string().contains("invites.json"));
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&book.metadata().unwrap()) & 0o777, 0o600);
    pair.b.join(fresh["invite"].as_str().unwrap());
    works(&pair, "after");
}

#[test]
fn a_lost_record_of_a_volume_is_named_and_the_other_volume_goes_on() {
    let pair = connected!();
    let known = volume_dirs(&pair.a);
    let second = pair.outside("second");
    let second = second.to_str().unwrap();
    pair.a.run(&["share", second, "--no-mount", "--listen", "127.0.0.1:0"]).success();
    let dirs = volume_dirs(&pair.a);
    let lost = dirs.iter().find(|dir| !known.contains(dir)).unwrap().join("volume.json");
    let whole = fs::read(&lost).unwrap();
    pair.a.stop();
    fs::remove_file(&lost).unwrap();
    let words = ["volume.json", "missing", "next step"];
    for command in ["start", "wait", "verify"] {
        pair.a.run(&[command]).fails_with(1, &words);
    }
    pair.a.remember_pid();
    assert!(pair.a.status()["problems"].to_string().contains("volume.json is missing"));
    works_besides(&pair);
    let text = String::from_utf8(whole.clone()).unwrap();
    let another_slot = text.replace("\"slot\": 1", "\"slot\": 7");
    assert_ne!(another_slot, text);
    for damaged in [GARBAGE, another_slot.as_bytes()] {
        fs::write(&lost, damaged).unwrap();
        pair.a.run(&["start"]).fails_with(1, &["volume.json is damaged"]);
    }
    fs::write(&lost, whole).unwrap();
    pair.a.run(&["start"]).success();
    assert_eq!(pair.a.status()["problems"].to_string(), "[]");
    assert_eq!(pair.a.status()["volumes"].as_array().unwrap().len(), 2);
}

/// What one side writes arrives, though no command of `a` ends with 0.
fn works_besides(pair: &Pair) {
    pair.reconnected();
    fs::write(pair.b.at("meanwhile"), "x").unwrap();
    let arrived = || fs::read(pair.a.at("meanwhile")).is_ok_and(|bytes| bytes == b"x");
    eventually("the other volume goes on", SOON, arrived);
}

#[test]
fn a_share_that_was_killed_halfway_leaves_no_volume_that_is_missed() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    for number in 0..500 {
        fs::write(pair.a.backing.join(number.to_string()), "x").unwrap();
    }
    pair.a.run(&["start"]).success();
    pair.a.remember_pid();
    let halfway = |peer: &Peer| {
        let dir = volume_dirs(peer).into_iter().find(|path| path.is_dir());
        dir.is_some_and(|dir| !dir.join("volume.json").exists())
    };
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let dir = pair.a.backing.to_str().unwrap();
            pair.a.run(&["share", dir, "--no-mount"]).fails_with(1, &["daemon"]);
        });
        eventually("the share has begun", SOON, || halfway(&pair.a));
        pair.a.kill9();
    });
    assert!(halfway(&pair.a), "the share was complete when its daemon was killed");
    // Killed a moment earlier, another has left its mark only.
    fs::write(pair.a.home.join(format!("volumes/{}.unfinished", "0f".repeat(16))), "").unwrap();
    pair.a.start();
    assert!(volume_dirs(&pair.a).is_empty());
    assert!(pair.a.run(&["status"]).success().stdout.contains("Nothing is shared yet"));
    pair.b.join(pair.a.share()["invite"].as_str().unwrap());
    works(&pair, "after");
}

#[test]
fn a_damaged_label_is_kept_aside_said_and_written_anew() {
    let pair = connected!();
    let label = pair.b.backing.join(".lockstep/owner");
    let damages: [&dyn Fn(); 3] =
        [&|| fs::write(&label, GARBAGE).unwrap(), &|| fs::write(&label, b"").unwrap(), &|| {
            fs::remove_file(&label).unwrap();
            fs::create_dir(&label).unwrap();
        }];
    let whole = fs::read(&label).unwrap();
    for damage in damages {
        pair.b.stop();
        damage();
        pair.b.start();
        let aside = kept_and_said(&label, &pair.b.volume()["notices"]);
        let removed = if aside.is_dir() { fs::remove_dir(aside) } else { fs::remove_file(aside) };
        removed.unwrap();
        assert_eq!(fs::read(&label).unwrap(), whole);
    }
    pair.b.stop();
    fs::remove_file(&label).unwrap();
    pair.b.start();
    assert_eq!(fs::read(&label).unwrap(), whole, "one that is missing is written anew");
    works(&pair, "after");
}

#[test]
fn a_file_in_the_place_of_the_state_directory_is_kept_aside_and_the_state_rebuilt() {
    let pair = connected!();
    works(&pair, "before");
    for name in ["state", "state/v1"] {
        pair.b.stop();
        let place = volume_dirs(&pair.b)[0].join(name);
        fs::remove_dir_all(&place).unwrap();
        fs::write(&place, GARBAGE).unwrap();
        pair.b.start();
        let aside = kept_and_said(&place, &pair.b.volume()["notices"]);
        assert_eq!(fs::read(aside).unwrap(), GARBAGE);
        works(&pair, &name.replace('/', "-"));
    }
    assert_eq!(fs::read_to_string(pair.b.at("before")).unwrap(), "before");
}

#[test]
fn a_torn_journal_is_said_in_status_and_what_was_cut_off_is_kept() {
    let pair = connected!();
    for number in 0..20 {
        fs::write(pair.b.at(number.to_string()), "x".repeat(1000)).unwrap();
    }
    pair.identical();
    pair.b.kill9();
    let journal = volume_dirs(&pair.b)[0].join("state/v1/0.jnl");
    let mut bytes = fs::read(&journal).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let torn = (written / 2).next_multiple_of(512);
    bytes[torn..torn + 512].fill(0);
    fs::write(&journal, bytes).unwrap();
    pair.b.start();
    let said = pair.b.volume()["notices"].to_string();
    assert!(said.contains("torn") && said.contains("0.jnl.damaged-"), "{said}");
    works(&pair, "after");
}

#[test]
fn what_is_in_the_place_of_lockstep_s_own_directories_is_named() {
    let pair = connected!();
    works(&pair, "before");
    for name in [".lockstep/tmp", ".lockstep/keep", ".lockstep"] {
        pair.b.stop();
        let (place, away) = (pair.b.backing.join(name), pair.outside("away").join("it"));
        fs::rename(&place, &away).unwrap();
        fs::write(&place, GARBAGE).unwrap();
        let said = pair.b.run(&["start"]);
        said.fails_with(1, &[place.to_str().unwrap(), "not a directory", "move it away"]);
        assert_eq!(fs::read(&place).unwrap(), GARBAGE);
        fs::remove_file(&place).unwrap();
        fs::rename(&away, &place).unwrap();
        pair.b.run(&["start"]).success();
    }
    // Their locks hold nothing, but must be files.
    for lock in [pair.b.backing.join(".lockstep/lock"), volume_dirs(&pair.b)[0].join("state/claim")]
    {
        pair.b.stop();
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        pair.b.run(&["start"]).fails_with(1, &[lock.to_str().unwrap(), "is a directory"]);
        fs::remove_dir(&lock).unwrap();
        pair.b.run(&["start"]).success();
    }
    pair.b.remember_pid();
    works(&pair, "after");
}
