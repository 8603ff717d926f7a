//! Daemons that stop, start, and die.

use crate::support::connected;
use crate::support::pair::Layout;
use crate::support::peer::Placing;
use crate::support::repository::noise;
use crate::support::{SOON, eventually};
use std::fs;

#[test]
fn daemon_stopped_and_started_on_either_side() {
    let pair = connected!();
    for (round, side) in [&pair.b, &pair.a, &pair.b].into_iter().enumerate() {
        for number in 0..20u64 {
            let name = format!("{}-{round}-{number}", side.name);
            fs::write(pair.a.at(&name), noise(number, 1000 * number as usize)).unwrap();
        }
        pair.identical();
        side.stop();
        let other = if side.name == "a" { &pair.b } else { &pair.a };
        eventually("the other side notices", SOON, || !other.is_connected());
        side.start();
        pair.reconnected();
        fs::write(pair.a.at(format!("after-{round}")), "from a").unwrap();
        fs::write(pair.b.at(format!("after-{round}-b")), "from b").unwrap();
        pair.identical();
        assert_eq!(fs::read_to_string(pair.b.at(format!("after-{round}"))).unwrap(), "from a");
    }
}

#[test]
fn stopped_at_once_after_writing_loses_nothing() {
    let pair = connected!();
    for (round, side) in [&pair.a, &pair.b].into_iter().enumerate() {
        fs::create_dir(side.at(format!("dir{round}"))).unwrap();
        for number in 0..200u64 {
            let path = side.at(format!("dir{round}/{number}"));
            fs::write(path, noise(number, 5000)).unwrap();
        }
        side.stop();
        side.start();
        pair.reconnected();
        pair.identical();
        assert_eq!(fs::read_dir(pair.b.at(format!("dir{round}"))).unwrap().count(), 200);
    }
}

#[test]
fn edits_made_while_one_side_was_down_arrive() {
    let pair = connected!();
    for name in ["kept", "edited", "removed", "renamed", "edited-on-b"] {
        fs::write(pair.a.at(name), format!("{name} at first")).unwrap();
    }
    fs::create_dir(pair.a.at("dir")).unwrap();
    fs::write(pair.a.at("dir/inside"), noise(1, 100_000)).unwrap();
    pair.identical();
    pair.b.stop();
    fs::write(pair.a.at("edited"), "edited while b was away").unwrap();
    fs::remove_file(pair.a.at("removed")).unwrap();
    fs::rename(pair.a.at("renamed"), pair.a.at("dir/renamed")).unwrap();
    fs::rename(pair.a.at("dir"), pair.a.at("moved")).unwrap();
    fs::write(pair.a.at("large"), noise(2, 3_000_000)).unwrap();
    // b's own files, edited without Lockstep.
    fs::write(pair.b.backing.join("edited-on-b"), "edited below while b was down").unwrap();
    fs::write(pair.b.backing.join("new-on-b"), "new below").unwrap();
    pair.b.start();
    pair.reconnected();
    pair.identical();
    let read = |name: &str| fs::read_to_string(pair.b.at(name)).unwrap();
    assert_eq!(read("edited"), "edited while b was away");
    assert_eq!(read("moved/renamed"), "renamed at first");
    assert_eq!(fs::read_to_string(pair.a.at("new-on-b")).unwrap(), "new below");
    let there = fs::read_to_string(pair.a.at("edited-on-b")).unwrap();
    assert_eq!(there, "edited below while b was down");
    assert!(!pair.b.at("removed").exists() && !pair.b.at("dir").exists());
}

#[test]
fn kill_9_and_restart_clears_the_stale_mount_and_resumes() {
    let pair = connected!();
    fs::write(pair.a.at("before"), noise(1, 200_000)).unwrap();
    pair.identical();
    for (round, side) in [&pair.b, &pair.a].into_iter().enumerate() {
        let other = if side.name == "a" { &pair.b } else { &pair.a };
        fs::write(side.at(format!("just-before-{round}")), "written, then killed").unwrap();
        side.kill9();
        let stale = fs::read_dir(side.mnt()).map(|_| ());
        assert!(stale.is_err(), "the mount of a dead daemon answers");
        fs::write(other.at(format!("meanwhile-{round}")), noise(2, 100_000)).unwrap();
        side.start();
        pair.reconnected();
        fs::write(side.at(format!("after-{round}")), "alive").unwrap();
        pair.identical();
        assert!(other.at(format!("just-before-{round}")).exists());
        assert!(side.at(format!("meanwhile-{round}")).exists());
    }
}

#[test]
fn kill_9_in_the_middle_of_a_transfer_resumes_and_completes() {
    let pair = connected!();
    for number in 0..12u64 {
        fs::write(pair.a.at(format!("file{number}")), noise(number, 6 << 20)).unwrap();
    }
    pair.seen_on_b("file0");
    pair.b.kill9();
    pair.b.start();
    pair.reconnected();
    pair.identical();
    for number in 0..12u64 {
        assert!(fs::read(pair.b.at(format!("file{number}"))).unwrap() == noise(number, 6 << 20));
    }
}

#[test]
fn mount_over_the_directory_itself() {
    let layout = Layout { a: Placing::Over, b: Placing::Over, ..Layout::default() };
    let pair = connected!(layout);
    fs::create_dir(pair.a.at("dir")).unwrap();
    fs::write(pair.a.at("dir/file"), "from a").unwrap();
    fs::write(pair.b.at("other"), noise(1, 200_000)).unwrap();
    pair.identical();
    pair.a.stop();
    pair.b.stop();
    // Without Lockstep the files are just there.
    for side in [&pair.a, &pair.b] {
        assert_eq!(fs::read_to_string(side.backing.join("dir/file")).unwrap(), "from a");
        assert!(fs::read(side.backing.join("other")).unwrap() == noise(1, 200_000));
    }
    pair.a.start();
    pair.b.start();
    pair.reconnected();
    fs::write(pair.b.at("dir/file"), "from b").unwrap();
    pair.identical();
    assert_eq!(fs::read_to_string(pair.a.at("dir/file")).unwrap(), "from b");
}

#[test]
fn no_mount_peer_has_plain_files() {
    let pair = connected!(Layout { b: Placing::Nowhere, ..Layout::default() });
    fs::create_dir(pair.a.at("dir")).unwrap();
    for number in 0..30u64 {
        fs::write(pair.a.at(format!("dir/{number}")), noise(number, 40_000)).unwrap();
    }
    crate::support::scratch::set_mode(&pair.a.at("dir/3"), 0o755);
    pair.a.wait();
    use crate::support::tree::plain_files;
    assert!(plain_files(pair.a.mnt()) == plain_files(&pair.b.backing));
    use std::os::unix::fs::PermissionsExt;
    let mode = pair.b.backing.join("dir/3").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    pair.b.stop();
    fs::write(pair.b.backing.join("dir/new"), "made while b was down").unwrap();
    pair.b.start();
    pair.reconnected();
    pair.b.wait();
    assert_eq!(fs::read_to_string(pair.a.at("dir/new")).unwrap(), "made while b was down");
}
