//! Callers of the control socket that say nothing, too much or nonsense; and a daemon that does not
//! answer.

use crate::support::pair::{Layout, Pair};
use crate::support::peer::{Peer, Placing};
use crate::support::{SOON, eventually};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A daemon that shares nothing yet.
fn alone() -> Option<Pair> {
    let pair =
        Pair::apart(Layout { a: Placing::Nowhere, b: Placing::Nowhere, ..Layout::default() })?;
    pair.a.start();
    Some(pair)
}

fn call(peer: &Peer) -> UnixStream {
    let stream = UnixStream::connect(peer.home.join("control.sock")).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// Kilobytes of memory that the daemon has of its own.
fn memory_kb(peer: &Peer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn answers_promptly(peer: &Peer) {
    let start = Instant::now();
    peer.run(&["status"]).success();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn callers_that_say_nothing_hold_up_nobody_and_are_let_go() {
    let Some(pair) = alone() else { return };
    let mut silent: Vec<UnixStream> = (0..100).map(|_| call(&pair.a)).collect();
    for (number, stream) in silent.iter_mut().enumerate() {
        stream.write_all(&b"{\"command\":"[..number % 12]).unwrap();
    }
    answers_promptly(&pair.a);
    for stream in &mut silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the daemon lets go of a caller that says nothing");
    }
}

#[test]
fn endless_lines_are_refused_and_kept_nowhere() {
    let Some(pair) = alone() else { return };
    let before = memory_kb(&pair.a);
    // Each stops just before the end of what a request may be.
    let longest = vec![b'x'; 64 * 1024 - 1];
    let mut callers: Vec<UnixStream> = (0..100).map(|_| call(&pair.a)).collect();
    for stream in &mut callers {
        stream.write_all(&longest).unwrap();
    }
    answers_promptly(&pair.a);
    let mut endless = call(&pair.a);
    let mut sent = 0;
    while sent < 256 << 20 && endless.write_all(&longest).is_ok() {
        sent += longest.len();
    }
    assert!(sent < 256 << 20, "the daemon reads on and on");
    let mut answer = String::new();
    let _ = endless.read_to_string(&mut answer);
    assert!(answer.contains("longer than"), "{answer}");
    answers_promptly(&pair.a);
    let grown = memory_kb(&pair.a).saturating_sub(before);
    assert!(grown < 24 * 1024, "the daemon grew by {grown} kB");
}

#[test]
fn garbage_is_answered_and_leaves_the_daemon_as_it_was() {
    let Some(pair) = alone() else { return };
    for garbage in [&b"\n"[..], b"\xff\xfe\n", b"[]\n", b"{\"command\":\"fly\"}\n", b"\0\0\0\n"] {
        let mut stream = call(&pair.a);
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("does not understand"), "{garbage:?}: {answer}");
    }
    answers_promptly(&pair.a);
}

fn is_stopped(peer: &Peer) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", peer.pid())).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
    })
}

#[test]
fn a_daemon_that_hangs_is_named_within_ten_seconds() {
    let Some(pair) = alone() else { return };
    pair.a.signal(Signal::STOP);
    eventually("every thread has stopped", SOON, || is_stopped(&pair.a));
    let start = Instant::now();
    std::thread::scope(|threads| {
        for command in ["status", "wait", "start", "stop", "conflicts"] {
            let peer = &pair.a;
            threads.spawn(move || {
                let words = ["has not answered within 10 seconds", &peer.pid().to_string(), "kill"];
                peer.run(&[command]).fails_with(1, &words);
            });
        }
    });
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    pair.a.signal(Signal::CONT);
    eventually("it goes on", SOON, || pair.a.run(&["status"]).code == Some(0));
}
