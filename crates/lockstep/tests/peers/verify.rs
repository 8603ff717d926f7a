//! `lockstep verify`, and the check that runs in the background: what stands on the disk is read
//! again and compared with what was written.

use crate::support::connected;
use crate::support::environment::is_root;
use crate::support::eventually;
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::scratch::set_mode;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The slow check rests: two passes take seconds, on a busy machine many.
const PATIENCE: Duration = Duration::from_secs(120);

/// The answer of `lockstep verify --json`, which ends with `code`.
#[track_caller]
fn verified(peer: &Peer, code: i32) -> Value {
    let outcome = peer.run(&["verify", "--json"]);
    assert_eq!(outcome.code, Some(code), "{outcome:#?}");
    outcome.json()
}

/// What `verify` finds on `peer`: path below the mount, and what is wrong.
#[track_caller]
fn differences(peer: &Peer) -> Vec<(String, String)> {
    let answer = verified(peer, 1);
    assert_eq!(answer["clean"], false);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let below = |path: &Value| {
        let path = text(path);
        Path::new(&path).strip_prefix(peer.mnt()).expect("in the mount").display().to_string()
    };
    let all = answer["volumes"][0]["differences"].as_array().expect("a list");
    all.iter().map(|d| (below(&d["path"]), text(&d["what"]))).collect()
}

/// Changes the bytes of a plain file, and neither its length nor its times.
fn corrupt(file: &Path) {
    let times = fs::metadata(file).unwrap();
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    let set = fs::FileTimes::new()
        .set_accessed(times.accessed().unwrap())
        .set_modified(times.modified().unwrap());
    fs::File::options().write(true).open(file).unwrap().set_times(set).unwrap();
}

fn fill(peer: &Peer) {
    fs::create_dir_all(peer.at("dir/deep")).unwrap();
    fs::write(peer.at("small"), "small").unwrap();
    fs::write(peer.at("dir/large"), noise(5, 3_000_000)).unwrap();
    fs::write(peer.at("dir/deep/other"), noise(6, 100_000)).unwrap();
    fs::write(peer.at("empty"), "").unwrap();
    std::os::unix::fs::symlink("dir/large", peer.at("link")).unwrap();
    fs::hard_link(peer.at("small"), peer.at("dir/linked")).unwrap();
}

#[test]
fn a_quiet_pair_is_clean_and_a_corrupted_file_is_named() {
    let pair = connected!();
    fill(&pair.a);
    pair.identical();
    for peer in [&pair.a, &pair.b] {
        let answer = verified(peer, 0);
        let volume = &answer["volumes"][0];
        assert_eq!((&answer["clean"], &volume["clean"]), (&true.into(), &true.into()));
        assert_eq!(volume["bytes"], 3_100_010, "each name of a file is read: {volume}");
        assert_eq!(volume["peers"][0]["compared"], true, "{volume}");
    }
    corrupt(&pair.b.backing.join("dir/large"));
    let found = differences(&pair.b);
    let expected = ("dir/large".to_owned(), "has other bytes on disk than were written".to_owned());
    assert_eq!(found, [expected]);
    let problems = pair.b.volume()["problems"].to_string();
    assert!(problems.contains("dir/large") && problems.contains("lockstep verify"), "{problems}");
    verified(&pair.a, 0);
    corrupt(&pair.b.backing.join("dir/large"));
    verified(&pair.b, 0);
    assert_eq!(pair.b.volume()["problems"], Value::Array(Vec::new()));
}

#[test]
fn each_kind_of_difference_is_named() {
    let pair = connected!();
    fill(&pair.a);
    pair.identical();
    let below = |name: &str| pair.b.backing.join(name);
    fs::remove_file(below("dir/deep/other")).unwrap();
    fs::write(below("dir/extra"), "not of the volume").unwrap();
    fs::write(below("empty"), "not empty").unwrap();
    fs::remove_file(below("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", below("link")).unwrap();
    fs::remove_file(below("small")).unwrap();
    fs::create_dir(below("small")).unwrap();
    let expected = [
        ("dir/deep/other", "is not on disk"),
        ("dir/extra", "is on disk and no part of the volume"),
        ("empty", "has 9 bytes on disk, not 0"),
        ("link", "leads elsewhere on disk"),
        ("small", "is another kind of file on disk"),
    ];
    let expected = expected.map(|(path, what)| (path.to_owned(), what.to_owned()));
    assert_eq!(differences(&pair.b), expected);
    pair.b.run(&["verify", "no-such-volume"]).fails_with(1, &["no volume"]);
}

#[test]
fn what_was_set_behind_the_mount_is_named() {
    let pair = connected!();
    fill(&pair.a);
    set_mode(&pair.a.at("small"), 0o4711);
    rustix::fs::setxattr(pair.a.at("dir"), "user.kept", b"1", rustix::fs::XattrFlags::empty())
        .unwrap();
    pair.identical();
    for peer in [&pair.a, &pair.b] {
        assert_eq!(verified(peer, 0)["clean"], true);
        let below = |name: &str| peer.backing.join(name);
        set_mode(&below("dir/deep"), 0o700);
        set_mode(&below("small"), 0o644);
        rustix::fs::removexattr(below("dir"), "user.kept").unwrap();
        let mut expected = vec![
            ("dir", "has other attributes on disk"),
            ("dir/deep", "has mode 0700 on disk, not 0755"),
            ("dir/linked", "has mode 0644 on disk, not 4711"),
            ("empty", "has other attributes on disk"),
            ("small", "has mode 0644 on disk, not 4711"),
        ];
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(below("empty"), "user.new", b"2", none).unwrap();
        if is_root() {
            std::os::unix::fs::chown(below("dir/deep/other"), Some(12), Some(34)).unwrap();
            expected.insert(2, ("dir/deep/other", "belongs to 12:34 on disk, not to 0:0"));
        }
        let expected: Vec<_> =
            expected.into_iter().map(|(path, what)| (path.to_owned(), what.to_owned())).collect();
        assert_eq!(differences(peer), expected);
    }
}

/// CPU time of the thread `lockstep-verify` of `peer`'s daemon, in seconds.
fn cpu_seconds(peer: &Peer) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", peer.pid())).unwrap();
    let ours = tasks.flatten().find(|task| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.trim() == "lockstep-verify"
    });
    let stat = fs::read_to_string(ours.expect("the thread runs").path().join("stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.map(|n| n.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

#[test]
fn the_background_check_raises_what_it_finds_and_takes_a_hundredth_of_the_time() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    set_mode(&pair.b.home, 0o700);
    fs::write(pair.b.home.join("config.json"), "{\"verify_pause_s\": 0}").unwrap();
    let invite = pair.a.share()["invite"].as_str().unwrap().to_owned();
    pair.b.join(&invite);
    pair.reconnected();
    fs::write(pair.a.at("file"), noise(5, 500_000)).unwrap();
    pair.identical();
    let (start, before) = (Instant::now(), cpu_seconds(&pair.b));
    let passes = || pair.b.volume()["verify"]["passes"].as_u64().unwrap();
    let done = passes();
    eventually("two passes", PATIENCE, || passes() >= done + 2);
    corrupt(&pair.b.backing.join("file"));
    eventually("the corrupted file is raised", PATIENCE, || {
        pair.b.volume()["problems"].to_string().contains("file has other bytes")
    });
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds(&pair.b) - before);
    println!("the background check took {cpu} s of CPU in {took} s");
    assert!(cpu <= took * 0.02 + 0.03, "{cpu} s of CPU in {took} s");
    assert_eq!(pair.b.volume()["verify"]["differences"], 1);
}

#[test]
fn a_pair_is_clean_after_much_work_and_a_peer_that_is_away_is_not_compared() {
    let pair = connected!();
    let git = crate::support::git::Git::new(&pair.outside("git"));
    let (on_a, on_b) = (pair.a.at("repo"), pair.b.at("repo"));
    fs::create_dir(&on_a).unwrap();
    git.run(&on_a, &["init", "-q"]);
    for (number, repo) in [&on_a, &on_b, &on_a, &on_b].into_iter().enumerate() {
        fs::write(repo.join(format!("file{number}")), noise(number as u64, 60_000)).unwrap();
        git.run(repo, &["add", "."]);
        git.run(repo, &["commit", "-q", "-m", "work"]);
        git.run(repo, &["gc", "-q"]);
        pair.wait();
    }
    fs::create_dir(pair.b.at("other")).unwrap();
    fs::rename(pair.b.at("repo/file0"), pair.b.at("other/moved")).unwrap();
    set_mode(&pair.b.at("other/moved"), 0o600);
    fs::remove_file(pair.b.at("repo/file1")).unwrap();
    pair.identical();
    for peer in [&pair.a, &pair.b] {
        let answer = verified(peer, 0);
        assert_eq!(answer["volumes"][0]["peers"][0]["compared"], true, "{answer}");
    }
    pair.b.stop();
    let outcome = pair.a.run(&["verify", "--json"]).success();
    assert!(outcome.stderr.contains("not compared with"), "{outcome:#?}");
    assert_eq!(outcome.json()["volumes"][0]["peers"][0]["compared"], false);
}

#[test]
fn a_check_raises_no_false_alarm_while_both_sides_work() {
    let pair = connected!();
    std::thread::scope(|scope| {
        let work = [&pair.a, &pair.b].map(|side| {
            scope.spawn(move || {
                let own = side.at(side.name);
                fs::create_dir(&own).unwrap();
                for number in 0..150 {
                    let file = own.join(format!("new{}", number % 7));
                    fs::write(&file, noise(number, (number as usize * 911) % 90_000)).unwrap();
                    fs::rename(&file, own.join(format!("file{}", number % 5))).unwrap();
                    let _ = fs::remove_file(own.join(format!("file{}", (number + 2) % 5)));
                }
            })
        });
        while !work.iter().all(|side| side.is_finished()) {
            verified(&pair.b, 0);
        }
    });
    pair.identical();
    verified(&pair.b, 0);
}
