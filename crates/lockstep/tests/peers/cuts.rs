//! The line between two peers breaks or goes silent while they work; nobody dies.

use crate::support::line::{Line, Traffic};
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::{SOON, SetOnDrop, eventually};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A silent line is noticed after 2 s to 2.6 s; the rest is for a busy machine.
const NOTICED_MAX: Duration = Duration::from_secs(6);
const LARGE_BYTES: usize = 48 << 20;

/// A pair that knows of each other through a line only.
fn through_a_line() -> Option<(Pair, Line)> {
    let pair = Pair::apart(Layout::default())?;
    let code = pair.a.share()["invite"].as_str().unwrap().to_owned();
    let mut invite: lockstep_net::Invite = code.parse().unwrap();
    let line = Line::to(invite.addrs[0]);
    invite.addrs = vec![line.address()];
    pair.b.join(&invite.to_string());
    pair.reconnected();
    Some((pair, line))
}

fn apart(pair: &Pair, within: Duration) -> Duration {
    let since = Instant::now();
    eventually("both sides show the other as away", within, || {
        !pair.a.is_connected() && !pair.b.is_connected()
    });
    since.elapsed()
}

/// Opens the line; how long it took until both sides showed the session.
fn reopened(pair: &Pair, line: &Line) -> Duration {
    line.set(Traffic::Open);
    let since = Instant::now();
    pair.reconnected();
    since.elapsed()
}

/// Makes, renames, appends to and removes small files of its own until told to stop.
fn work(side: &Peer, stop: &AtomicBool) {
    let dir = side.at(format!("from-{}", side.name));
    fs::create_dir(&dir).unwrap();
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (lock, name) = (dir.join("lock"), dir.join(number.to_string()));
        fs::write(&lock, noise(number, 700)).unwrap();
        fs::rename(&lock, &name).unwrap();
        if number % 3 == 0 {
            fs::write(&name, noise(number + 1, 900)).unwrap();
        }
        if number % 5 == 4 {
            fs::remove_file(dir.join((number - 2).to_string())).unwrap();
        }
        std::thread::park_timeout(Duration::from_millis(3));
    }
}

fn counter(side: &Peer, name: &str) -> u64 {
    side.volume()["counters"][name].as_u64().unwrap()
}

/// Changes of the peer that are applied here, by the cursor and by the count of them.
fn applied(side: &Peer) -> (u64, u64) {
    let volume = side.volume();
    let cursor = volume["peers"][0]["cursors"]["applied"].as_u64().unwrap();
    (cursor, volume["counters"]["changes_applied"].as_u64().unwrap())
}

#[test]
fn a_cut_or_silent_line_doubles_nothing_and_the_transfer_goes_on_by_chunks() {
    let Some((pair, line)) = through_a_line() else { return };
    pair.wait();
    let before = [&pair.a, &pair.b].map(|side| applied(side));
    line.limit(12 << 20);
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let _stop = SetOnDrop(&stop);
        threads.spawn(|| work(&pair.a, &stop));
        threads.spawn(|| work(&pair.b, &stop));
        fs::write(pair.a.at("large"), noise(1, LARGE_BYTES)).unwrap();
        for (round, trouble) in
            [Traffic::Cut, Traffic::Stalled, Traffic::Cut, Traffic::Stalled].into_iter().enumerate()
        {
            let part = (LARGE_BYTES * (round + 1) / 5) as u64;
            eventually("a part of the large file has come", SOON, || {
                counter(&pair.b, "content_bytes_received") >= part
            });
            line.set(trouble);
            let noticed = apart(&pair, NOTICED_MAX);
            let back = reopened(&pair, &line);
            println!("{trouble:?}: noticed after {noticed:?}, back after {back:?}");
        }
    });
    pair.identical();
    assert!(fs::read(pair.b.at("large")).unwrap() == noise(1, LARGE_BYTES));
    for (side, other, before) in [(&pair.a, &pair.b, before[0]), (&pair.b, &pair.a, before[1])] {
        let (cursor, count) = applied(side);
        let appended = other.volume()["peers"][0]["cursors"]["appended"].as_u64().unwrap();
        assert_eq!(cursor, appended, "{} has all of the other's log", side.name);
        assert_eq!(cursor - before.0, count - before.1, "{} applied each change once", side.name);
        assert_eq!(counter(side, "state_exchanges"), 0);
    }
    let copies = crate::support::tree::plain_files(&pair.a.backing);
    assert!(!copies.keys().any(|path| path.to_string_lossy().contains("conflict from")));
    // To begin anew at each cut would take 2.5 times the size.
    let (carried, received) = (line.bytes_back(), counter(&pair.b, "content_bytes_received"));
    println!("{carried} bytes on the wire, {received} of content, {LARGE_BYTES} in the file");
    assert!(carried < LARGE_BYTES as u64 * 3 / 2, "{carried} bytes went over the line");
}

#[test]
fn a_line_that_is_back_is_used_within_half_a_second() {
    let Some((pair, line)) = through_a_line() else { return };
    let mut took: Vec<Duration> = (0..7u64)
        .map(|round| {
            let trouble = if round % 3 == 2 { Traffic::Stalled } else { Traffic::Cut };
            line.set(trouble);
            apart(&pair, NOTICED_MAX);
            // Long enough for the pauses between attempts to have grown.
            std::thread::park_timeout(Duration::from_millis(700 + 430 * round));
            reopened(&pair, &line)
        })
        .collect();
    took.sort();
    println!("the session was back after {took:?}");
    assert!(took[took.len() / 2] <= Duration::from_millis(500), "{took:?}");
    fs::write(pair.a.at("after all"), "arrives").unwrap();
    pair.identical();
}
