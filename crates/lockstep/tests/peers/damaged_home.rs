//! A home whose disk is full, read-only, or which a killed daemon has left as it was: errors that
//! name the place and the next step.

use crate::support::command::run;
use crate::support::environment::{has_root, unmount_below};
use crate::support::pair::{Layout, Pair};
use crate::support::peer::{Peer, kill_recorded_daemon};
use crate::support::{SOON, connected, eventually};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A filesystem of its own at a peer's home, gone when dropped.
struct HomeDisk(PathBuf);

impl HomeDisk {
    fn below(peer: &Peer) -> HomeDisk {
        mount(&["-t", "tmpfs", "-o", "size=32m,mode=0700", "none"], &peer.home);
        HomeDisk(peer.home.clone())
    }

    fn remount(&self, option: &str) {
        mount(&["-o", &format!("remount,{option}")], &self.0);
    }

    /// Not a byte is left.
    fn fill(&self) {
        use std::io::Write;
        let filler = fs::File::options().create(true).append(true).open(self.0.join("filler"));
        let mut filler = filler.unwrap();
        while filler.write(&[1; 4096]).is_ok() {}
    }

    /// So many bytes are.
    fn leave(&self, bytes: u64) {
        let filler = fs::File::options().write(true).open(self.0.join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - bytes).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for HomeDisk {
    fn drop(&mut self) {
        // Without its home nobody would find the daemon of a test that failed.
        kill_recorded_daemon(&self.0);
        unmount_below(&self.0);
    }
}

fn mount(args: &[&str], at: &std::path::Path) {
    run(Command::new("mount").args(args).arg(at), SOON).success();
}

fn says_no_panic(peer: &Peer) {
    assert!(!peer.log_tail(10_000).contains("panicked"), "{}", peer.log_tail(100));
}

#[test]
fn a_home_on_a_full_disk_is_named_and_works_once_there_is_space() {
    if !has_root("to mount a small filesystem") {
        return;
    }
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let disk = HomeDisk::below(&pair.a);
    let dir = pair.a.backing.to_str().unwrap();
    disk.fill();
    pair.a.run(&["share", dir, "--no-mount"]).fails_with(1, &["home", "no space", "make room"]);
    disk.free();
    pair.b.join(pair.a.share()["invite"].as_str().unwrap());
    pair.reconnected();
    disk.fill();
    // The state is in the home: what cannot be written down there is kept until it can be.
    for number in 0..200 {
        fs::write(pair.a.at(format!("a{number}")), "by a").unwrap();
        fs::write(pair.b.at(format!("b{number}")), "by b").unwrap();
    }
    eventually("status says why", SOON, || {
        pair.a.run(&["status"]).success().stdout.contains("No space left")
    });
    disk.free();
    pair.identical();
    assert_eq!(fs::read_to_string(pair.b.at("a199")).unwrap(), "by a");
    assert_eq!(fs::read_to_string(pair.a.at("b199")).unwrap(), "by b");
    pair.a.run(&["stop"]).success();
    disk.fill();
    pair.a.run(&["start"]).fails_with(1, &["home", "no space"]);
    disk.free();
    pair.a.start();
    pair.reconnected();
    fs::write(pair.a.at("after"), "x").unwrap();
    pair.identical();
    says_no_panic(&pair.a);
    pair.a.stop();
}

/// Whatever step runs out of space: a share is there, or nothing of it is.
#[test]
fn a_share_that_runs_out_of_space_leaves_nothing_behind() {
    if !has_root("to mount a small filesystem") {
        return;
    }
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    fs::write(pair.a.backing.join("mine"), "x").unwrap();
    let disk = HomeDisk::below(&pair.a);
    let (dir, mount) = (pair.a.backing.to_str().unwrap(), pair.a.mnt().to_str().unwrap());
    let mut refused = 0;
    for spare in [4, 12, 20, 32, 64, 128, 512] {
        disk.fill();
        disk.leave(spare * 1024);
        let share = pair.a.run(&["share", dir, "--mount", mount, "--listen", "127.0.0.1:0"]);
        if share.code == Some(0) {
            break;
        }
        refused += 1;
        share.fails_with(1, &["no space", "next step"]);
        assert_eq!(share.stderr.matches("No space").count(), 1, "{}", share.stderr);
        let _ = pair.a.run(&["stop"]);
        assert_eq!(fs::read_dir(&pair.a.backing).unwrap().count(), 1, "after {spare} KiB");
    }
    assert!(refused > 2, "only {refused} refused");
    disk.free();
    if pair.a.run(&["status"]).code != Some(0) {
        pair.a.share();
    }
    pair.a.remember_pid();
    assert_eq!(fs::read_to_string(pair.a.at("mine")).unwrap(), "x");
    says_no_panic(&pair.a);
    pair.a.stop();
}

/// A disk that is full is not taken for damage to what is on it.
#[test]
fn a_start_that_runs_out_of_space_takes_nothing_for_damaged() {
    if !has_root("to mount a small filesystem") {
        return;
    }
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let disk = HomeDisk::below(&pair.a);
    pair.a.share();
    for number in 0..100 {
        fs::write(pair.a.at(format!("before{number}")), "x").unwrap();
    }
    let spares = [0, 4, 8, 12, 16, 24, 48, 96];
    for spare in spares {
        pair.a.run(&["stop"]).success();
        disk.fill();
        disk.leave(spare * 1024);
        let start = pair.a.run(&["start"]);
        let mut place = pair.a.mnt();
        if start.code != Some(0) {
            start.fails_with(1, &["no space", "next step"]);
            place = &pair.a.backing;
        }
        for number in 0..20 {
            fs::write(place.join(format!("spare{spare}-{number}")), "y").unwrap();
        }
        let damaged =
            run(Command::new("find").arg(&pair.a.home).args(["-name", "*.damaged-*"]), SOON);
        assert_eq!(damaged.success().stdout, "", "with {spare} KiB");
    }
    pair.a.run(&["stop"]).success();
    disk.free();
    pair.a.start();
    pair.a.run(&["verify"]).success();
    let mut names = fs::read_dir(pair.a.mnt()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.by_ref().count(), 100 + spares.len() * 20);
    says_no_panic(&pair.a);
    pair.a.stop();
}

#[test]
fn a_read_only_home_is_named_and_works_once_it_can_be_written() {
    if !has_root("to mount a filesystem read-only") {
        return;
    }
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let disk = HomeDisk::below(&pair.a);
    let dir = pair.a.backing.to_str().unwrap();
    disk.remount("ro");
    for args in [&["share", dir, "--no-mount"][..], &["start"]] {
        pair.a.run(args).fails_with(1, &["home", "read-only", "next step"]);
    }
    disk.remount("rw");
    pair.b.join(pair.a.share()["invite"].as_str().unwrap());
    pair.a.stop();
    disk.remount("ro");
    pair.a.run(&["start"]).fails_with(1, &["home", "read-only", "next step"]);
    pair.a.run(&["status"]).fails_with(1, &["no daemon runs"]);
    disk.remount("rw");
    pair.a.start();
    pair.reconnected();
    fs::write(pair.a.at("after"), "x").unwrap();
    pair.identical();
    pair.a.stop();
}

#[test]
fn what_a_killed_daemon_leaves_in_its_home_stops_nobody() {
    let pair = connected!();
    pair.a.kill9();
    let socket = pair.a.home.join("control.sock");
    assert!(socket.exists(), "a killed daemon leaves its socket");
    pair.a.run(&["status"]).fails_with(1, &["no daemon runs", "lockstep start"]);
    pair.a.run(&["stop"]).success();
    // Its process id may be another's by now.
    fs::write(pair.a.home.join("daemon.pid"), format!("{}\n", std::process::id())).unwrap();
    fs::write(pair.a.home.join("volumes/leftover.new"), "half").unwrap();
    pair.a.start();
    pair.reconnected();
    pair.a.kill9();
    for garbage in ["", "no number", "99999999999999999999"] {
        fs::write(pair.a.home.join("daemon.pid"), garbage).unwrap();
        fs::write(pair.a.home.join("daemon.lock"), garbage).unwrap();
        pair.a.start();
        pair.a.kill9();
    }
    // What is no socket of a daemon's is kept.
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "not a socket").unwrap();
    pair.a.run(&["start"]).fails_with(1, &["control.sock", "not a socket", "move it away"]);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "not a socket");
    fs::remove_file(&socket).unwrap();
    for name in ["daemon.pid", "daemon.lock", "daemon.log"] {
        let path = pair.a.home.join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        pair.a.run(&["start"]).fails_with(1, &[path.to_str().unwrap(), "directory", "next step"]);
        fs::remove_dir(&path).unwrap();
    }
    pair.a.start();
    pair.reconnected();
    fs::write(pair.a.at("after"), "x").unwrap();
    pair.identical();
}
