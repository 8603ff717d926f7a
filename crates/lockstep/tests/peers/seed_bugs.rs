//! The seven bugs of the seed article (DESIGN "seven bugs"): each as it happened there, between two
//! peers. The seventh, a growing LFS file, is in the tests of large content.

use crate::support::environment::mounts_below;
use crate::support::git::Git;
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::{SOON, connected, eventually};
use std::fs::OpenOptions;
use std::io::Write;
use std::process::Stdio;

#[test]
fn seed_bug_1_a_thousand_lock_write_rename_rounds_leave_no_lock() {
    let pair = connected!();
    for round in 0..1000 {
        let lock = pair.a.at("config.lock");
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).open(&lock).unwrap();
        std::io::Write::write_all(&mut file, format!("value {round:04}\n").as_bytes()).unwrap();
        drop(file);
        std::fs::rename(&lock, pair.a.at("config")).unwrap();
    }
    pair.a.wait();
    assert_eq!(std::fs::read_to_string(pair.b.at("config")).unwrap(), "value 0999\n");
    assert!(!pair.b.at("config.lock").exists());
    pair.identical();
}

#[test]
fn seed_bug_2_a_write_after_close_and_before_rename_is_shipped() {
    let pair = connected!();
    let body = noise(5, 300_000);
    std::fs::write(pair.a.at("tmp_pack"), &body).unwrap();
    pair.a.wait();
    let mut tail = OpenOptions::new().append(true).open(pair.a.at("tmp_pack")).unwrap();
    tail.write_all(&[7; 20]).unwrap();
    drop(tail);
    std::fs::rename(pair.a.at("tmp_pack"), pair.a.at("final.pack")).unwrap();
    pair.a.wait();
    let there = std::fs::read(pair.b.at("final.pack")).unwrap();
    assert!(there == [body, vec![7; 20]].concat(), "{} bytes", there.len());
    pair.identical();
}

#[test]
fn seed_bug_3_negative_lookup_then_create() {
    let pair = connected!();
    for round in 0..30 {
        let name = format!("not-yet-{round}");
        let path = pair.b.at(&name);
        for _ in 0..20 {
            assert!(path.symlink_metadata().is_err());
        }
        std::fs::write(pair.a.at(&name), "now").unwrap();
        pair.seen_on_b(&name);
        // The name may arrive before the bytes: a was a moment empty, too.
        eventually("the bytes arrive", SOON, || std::fs::read(&path).is_ok_and(|is| is == b"now"));
        std::fs::remove_file(pair.a.at(&name)).unwrap();
        let gone = format!("{name} disappears on b");
        eventually(&gone, SOON, || path.symlink_metadata().is_err());
    }
    pair.identical();
}

/// `count` files of `len` bytes, closed by four writers at once in as many directories.
fn close_at_once(pair: &Pair, count: u64, len: usize) {
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let dir = pair.a.at(format!("dir{writer}"));
            std::fs::create_dir(&dir).unwrap();
            scope.spawn(move || {
                for number in (writer..count).step_by(4) {
                    std::fs::write(dir.join(number.to_string()), noise(number, len)).unwrap();
                }
            });
        }
    });
}

/// Everything arrived, and no queue was longer than it may be.
fn arrived_within_limits(pair: &Pair, count: usize) {
    pair.a.wait();
    let there =
        (0..4).map(|dir| std::fs::read_dir(pair.b.at(format!("dir{dir}"))).unwrap().count());
    assert_eq!(there.sum::<usize>(), count);
    for (peer, figure, most) in [
        (&pair.a, "batch_notifications_peak", 64),
        (&pair.a, "batches_in_flight_peak", 16),
        (&pair.b, "background_fetches_peak", 8),
    ] {
        let peak = peer.volume()["counters"][figure].as_u64().unwrap();
        assert!((1..=most).contains(&peak), "{figure} of {} is {peak}", peer.name);
    }
}

#[test]
fn seed_bug_4_612_files_closing_at_once_stay_within_every_limit() {
    let pair = connected!();
    close_at_once(&pair, 612, 40_000);
    arrived_within_limits(&pair, 612);
    pair.identical();
}

#[test]
fn seed_bug_4_slow_50_000_files_closing_at_once_stay_within_every_limit() {
    let pair = connected!();
    std::fs::write(pair.a.at("fetched"), noise(1, 100_000)).unwrap();
    close_at_once(&pair, 50_000, 0);
    arrived_within_limits(&pair, 50_000);
}

/// Asks for `count` names that do not exist.
fn probe_missing(peer: &Peer, count: usize) {
    for number in 0..count {
        assert!(peer.at(format!("missing-{number}")).symlink_metadata().is_err());
    }
}

#[test]
fn seed_bug_5_no_operation_is_worth_a_line_of_the_log() {
    let pair = connected!();
    probe_missing(&pair.a, 5_000);
    for number in 0..200u64 {
        std::fs::write(pair.a.at(number.to_string()), noise(number, 100)).unwrap();
        std::fs::remove_file(pair.a.at(number.to_string())).unwrap();
    }
    pair.identical();
    for peer in [&pair.a, &pair.b] {
        let log = peer.log_tail(usize::MAX);
        assert!(log.lines().count() < 20, "5,400 operations made:\n{log}");
        assert!(!log.contains("missing-"), "names are nobody's business:\n{log}");
    }
}

#[test]
fn seed_bug_5_a_log_that_nobody_reads_does_not_hold_up_the_mount() {
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let dir = pair.a.backing.to_str().unwrap();
    let mount = pair.a.mnt().to_str().unwrap();
    let mut command = pair.a.command(&["share", dir, "--mount", mount, "--foreground"]);
    command.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
    command.env("LOCKSTEP_LOG", "trace").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = command.spawn().unwrap();
    eventually("it is mounted", SOON, || !mounts_below(pair.a.mnt()).is_empty());
    // Its standard error is a pipe of 64 KiB; each of these is a line of the trace.
    probe_missing(&pair.a, 20_000);
    std::fs::write(pair.a.at("file"), "written").unwrap();
    assert_eq!(std::fs::read(pair.a.at("file")).unwrap(), b"written");
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    eventually("it ends", SOON, || daemon.try_wait().unwrap().is_some());
}

#[test]
fn seed_bug_6_a_hook_committed_on_one_side_runs_on_the_other() {
    let pair = connected!();
    let git = Git::new(&pair.outside("git"));
    let (on_a, on_b) = (pair.a.at("repo"), pair.b.at("repo"));
    std::fs::create_dir(&on_a).unwrap();
    git.run(&on_a, &["init", "--quiet", "."]);
    std::fs::create_dir(on_a.join("hooks")).unwrap();
    let hook = on_a.join("hooks/pre-commit");
    std::fs::write(&hook, "#!/bin/sh\necho ran > hook-ran.txt\n").unwrap();
    crate::support::scratch::set_mode(&hook, 0o755);
    git.run(&on_a, &["add", "-A"]);
    git.run(&on_a, &["commit", "--quiet", "-m", "a hook"]);
    git.run(&on_a, &["config", "core.hooksPath", "hooks"]);
    pair.wait();
    std::fs::write(on_b.join("another.txt"), "x").unwrap();
    git.run(&on_b, &["add", "another.txt"]);
    git.run(&on_b, &["commit", "--quiet", "-m", "with hook"]);
    assert_eq!(std::fs::read_to_string(on_b.join("hook-ran.txt")).unwrap(), "ran\n");
    pair.identical();
}
