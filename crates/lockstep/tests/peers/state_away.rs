//! A peer that was away for longer than the log is kept.

use crate::support::command::run;
use crate::support::eventually;
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use std::fs;
use std::path::Path;
use std::time::Duration;

const DIRECTORIES: u64 = 100;
const FILES_EACH: u64 = 200;

fn fill(a: &Path, _: &Path) {
    for dir in 0..DIRECTORIES {
        let dir = a.join(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..FILES_EACH {
            fs::write(dir.join(file.to_string()), format!("{file}")).unwrap();
        }
    }
}

fn counter(peer: &Peer, name: &str) -> u64 {
    peer.volume()["counters"][name].as_u64().unwrap()
}

#[test]
fn slow_a_peer_away_longer_than_the_log_is_kept_is_told_only_what_changed_in_20_000_files() {
    let layout = Layout { before: Some(&fill), ..Layout::default() };
    let Some(pair) = Pair::connected(layout) else { return };
    pair.wait();
    pair.b.stop();
    pair.a.stop();
    let mut start = pair.a.command(&["start"]);
    run(start.env("LOCKSTEP_LOG_KEPT_MAX", "50"), Duration::from_secs(60)).success();
    pair.a.remember_pid();
    fs::write(pair.a.at("d7/7"), "changed while b was away").unwrap();
    fs::remove_file(pair.a.at("d8/8")).unwrap();
    // More changes than the log keeps, to one file.
    for round in 0..120u32 {
        let times = fs::FileTimes::new()
            .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(round.into()));
        fs::File::options().write(true).open(pair.a.at("d9/9")).unwrap().set_times(times).unwrap();
    }
    eventually("the log is trimmed", Duration::from_secs(60), || {
        counter(&pair.a, "log_entries") <= 60
    });
    pair.b.start();
    pair.reconnected();
    pair.identical();
    assert_eq!(counter(&pair.a, "state_exchanges"), 1);
    let told = counter(&pair.a, "state_changes_sent");
    assert!(
        told <= 8,
        "{told} nodes and removals told: three files, their directories, one removal"
    );
    assert_eq!(fs::read_to_string(pair.b.at("d7/7")).unwrap(), "changed while b was away");
    assert!(!pair.b.at("d8/8").exists());
    println!("{told} of {} nodes told", counter(&pair.a, "nodes"));
}
