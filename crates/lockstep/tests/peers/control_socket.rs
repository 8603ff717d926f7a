//! Callers of the control socket that say nothing, too much or nonsense; and a daemon that does not
//! answer.

use crate::support::dice::Dice;
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

#[test]
fn a_control_socket_that_was_removed_is_made_again() {
    let Some(pair) = alone() else { return };
    let pid = pair.a.pid();
    std::fs::remove_file(pair.a.home.join("control.sock")).unwrap();
    let words = [&pid.to_string()[..], "control socket was removed", "try again"];
    pair.a.run(&["status"]).fails_with(1, &words);
    eventually("it is there again", SOON, || pair.a.run(&["status"]).code == Some(0));
    pair.a.remember_pid();
    assert_eq!(pair.a.pid(), pid, "the daemon of before takes commands again");
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

/// What commands send, about a volume at `dir`.
fn requests(dir: &str) -> Vec<String> {
    let place = r#"{"mount":null,"no_mount":true,"listen":"127.0.0.1:0","policy":"eager"}"#;
    let mut requests = vec![
        format!(r#"{{"command":"share","dir":"{dir}/none","name":"n","place":{place}}}"#),
        format!(r#"{{"command":"join","code":"lockstep1abc","dir":"{dir}/none","place":{place}}}"#),
        r#"{"command":"wait","timeout_ms":10}"#.into(),
        r#"{"command":"invite","volume":"dir"}"#.into(),
        r#"{"command":"unmount","volume":"dir"}"#.into(),
        format!(r#"{{"command":"resolve","path":"{dir}/file","keep":"both"}}"#),
        r#"{"command":"trash-list","volume":null}"#.into(),
    ];
    for verb in ["trash-restore", "pin", "unpin", "evict"] {
        requests.push(format!(r#"{{"command":"{verb}","path":"{dir}/file"}}"#));
    }
    for verb in ["ping", "status", "verify", "conflicts", "trash-empty", "start"] {
        requests.push(format!(r#"{{"command":"{verb}"}}"#));
    }
    requests
}

/// All that the daemon says to `line`.
fn said_to(peer: &Peer, line: &[u8]) -> String {
    let mut stream = call(peer);
    let _ = stream.write_all(&[line, b"\n"].concat());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).expect("the daemon answers in UTF-8")
}

/// The request with a letter or digit altered: often one that still means something.
fn with_another_letter(dice: &mut Dice, request: &str) -> Vec<u8> {
    let mut line = request.as_bytes().to_vec();
    let letters: Vec<usize> =
        (0..line.len()).filter(|at| line[*at].is_ascii_alphanumeric()).collect();
    let at = letters[dice.below(letters.len() as u64) as usize];
    line[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[dice.below(36) as usize];
    line
}

#[test]
fn altered_requests_leave_a_daemon_that_answers() {
    let Some(pair) = alone() else { return };
    std::fs::write(pair.a.backing.join("file"), "x").unwrap();
    pair.a.share();
    let requests = requests(pair.a.backing.to_str().unwrap());
    let mut dice = Dice(5);
    let (mut understood, mut refused) = (0, 0);
    for round in 0..2_000 {
        let request = &requests[round % requests.len()];
        let line = match round / requests.len() {
            0 => request.clone().into_bytes(),
            lap if lap % 2 == 0 => dice.spoilt(request.as_bytes()),
            _ => with_another_letter(&mut dice, request),
        };
        let said = said_to(&pair.a, &line);
        let shown = String::from_utf8_lossy(&line);
        assert!(!said.contains("broke inside"), "{round}: {shown}: {said}");
        assert!(said.ends_with('\n'), "{round}: no answer to {shown}: {said}");
        refused += usize::from(said.contains("does not understand"));
        understood += usize::from(!said.contains("does not understand"));
        let status = said_to(&pair.a, br#"{"command":"status"}"#);
        assert!(status.starts_with(r#"{"done":{"#), "{round}: after {shown}: {status}");
    }
    assert!(understood > 200 && refused > 400, "{understood} understood, {refused} refused");
    let pid = pair.a.pid();
    pair.a.remember_pid();
    assert_eq!(pair.a.pid(), pid, "it is the daemon of before");
    assert!(!pair.a.log_tail(100_000).contains("panicked"), "{}", pair.a.log_tail(100));
    assert_eq!(std::fs::read(pair.a.backing.join("file")).unwrap(), b"x");
}
