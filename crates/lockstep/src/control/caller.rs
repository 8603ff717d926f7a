//! The command's side of the control socket.

use super::address::SocketAddress;
use super::{REPLY_MAX_BYTES, Reply, Request};
use crate::daemon::{abandoned, lock};
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A daemon that does not say within this time that it is there hangs.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// `status` takes no time: it is given up after so many times of [`SILENCE_MAX`], also if the daemon
/// says that it is there.
const STATUS_SILENCES_MAX: u32 = 6;

/// Asks the daemon of `home` and waits for its answer: however long that takes, as long as the
/// daemon says that it is there.
pub fn call(home: &Home, request: &Request) -> Outcome<Value> {
    call_within(home, request, SILENCE_MAX)
}

fn call_within(home: &Home, request: &Request, silence_max: Duration) -> Outcome<Value> {
    abandoned::refuse(home)?;
    let stream = connect(home).map_err(|e| unreachable(home, &e))?;
    let mut line = serde_json::to_vec(request).map_err(|e| {
        Failure::usage(format!("cannot pass the arguments on: {e}"), "use paths that are UTF-8")
    })?;
    line.push(b'\n');
    let start = Instant::now();
    let still_there = || {
        let in_time =
            *request != Request::Status || start.elapsed() < silence_max * STATUS_SILENCES_MAX;
        in_time && answers(home, Instant::now() + silence_max)
    };
    let answer = greet(&stream, silence_max)
        .and_then(|()| exchange(&stream, &line, silence_max, still_there))
        .map_err(|e| interrupted(home, &e, start.elapsed()))?;
    let reply: Reply = serde_json::from_slice(&answer).map_err(|e| {
        let hint = "it may be another version of Lockstep: run `lockstep stop`, then try again";
        Failure::failed(format!("the daemon's answer is not understood: {e}"), hint)
    })?;
    reply.outcome()
}

/// Whether a daemon of `home` answers before `deadline`.
pub fn answers(home: &Home, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    connect(home).and_then(|stream| greet(&stream, left)).is_ok()
}

/// The failure of a daemon that is there and has said nothing for `patience`.
pub fn silent(home: &Home, patience: Duration) -> Failure {
    let pid = process(home);
    let message = format!(
        "the daemon (process {pid}) of the home {} has not answered within {} seconds",
        home.dir().display(),
        patience.as_secs()
    );
    let log = home.log_file();
    let hint = format!(
        "look at {}; if it stays so, run `kill -9 {pid}`, then `lockstep start`: what was written is \
         kept",
        log.display()
    );
    Failure::silent(message, hint)
}

fn connect(home: &Home) -> io::Result<UnixStream> {
    UnixStream::connect(SocketAddress::of(home)?.path())
}

/// Has the daemon say that it is there.
fn greet(stream: &UnixStream, patience: Duration) -> io::Result<()> {
    exchange(stream, b"{\"command\":\"ping\"}\n", patience, || false).map(drop)
}

/// One line there, one line back. When none has come after `patience`, `wait_on` says whether to go
/// on waiting.
fn exchange(
    mut stream: &UnixStream,
    line: &[u8],
    patience: Duration,
    wait_on: impl Fn() -> bool,
) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(line)?;
    let mut answer = Vec::new();
    // Nothing is read beyond the answer: the daemon sends one line for each it gets.
    let mut reading = BufReader::new(stream.take(REPLY_MAX_BYTES));
    while let Err(e) = reading.read_until(b'\n', &mut answer) {
        if !is_timeout(&e) || !wait_on() {
            return Err(e);
        }
    }
    if answer.ends_with(b"\n") {
        return Ok(answer);
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it went away"))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn interrupted(home: &Home, reason: &io::Error, patience: Duration) -> Failure {
    if is_timeout(reason) {
        return silent(home, patience);
    }
    let hint = format!("look at {}", home.log_file().display());
    Failure::failed(format!("the daemon did not finish the command: {reason}"), hint)
}

/// The number of the daemon's process, as it is shown.
fn process(home: &Home) -> String {
    lock::pid(home).map_or_else(|| "?".to_owned(), |pid| pid.to_string())
}

fn lives(home: &Home) -> bool {
    lock::HomeLock::is_held(home).unwrap_or(false)
}

fn unreachable(home: &Home, reason: &io::Error) -> Failure {
    let dir = home.dir().display();
    match reason.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused if lives(home) => {
            let pid = process(home);
            Failure::failed(
                format!(
                    "the daemon (process {pid}) of the home {dir} takes no commands: it is just \
                     starting or ending, or its control socket was removed"
                ),
                "try again in a few seconds",
            )
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::failed(
            format!("no daemon runs for the home {dir}"),
            "run `lockstep start`, or `lockstep share DIR` to share a first directory",
        ),
        _ => Failure::failed(
            format!("cannot reach the daemon of the home {dir}: {reason}"),
            "run the command as the user who started the daemon",
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const SILENCE: Duration = Duration::from_millis(200);

    /// Has `serve` answer the callers of a home, with the number of each, and calls it.
    fn called(request: &Request, name: &str, serve: fn(u32, UnixStream)) -> Outcome<Value> {
        let dir = std::env::temp_dir().join(format!("lockstep-{name}-{}", std::process::id()));
        let home = Home::locate(Some(&dir)).unwrap();
        home.create().unwrap();
        let listener = UnixListener::bind(home.socket()).unwrap();
        std::thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming()) {
                std::thread::spawn(move || serve(number, stream.unwrap()));
            }
        });
        let outcome = call_within(&home, request, SILENCE);
        std::fs::remove_dir_all(&dir).unwrap();
        outcome
    }

    fn answer(mut stream: &UnixStream, with: &[u8]) {
        BufReader::new(stream).read_line(&mut String::new()).unwrap();
        stream.write_all(with).unwrap();
    }

    #[test]
    fn an_answer_may_take_long_while_the_daemon_says_that_it_is_there() {
        let outcome = called(&Request::Start, "slow", |number, stream| {
            answer(&stream, b"\n");
            if number == 0 {
                std::thread::sleep(SILENCE * 5);
                answer(&stream, b"{\"done\":7}\n");
            }
        });
        assert_eq!(outcome, Ok(7.into()));
    }

    #[test]
    fn a_daemon_that_hangs_while_it_answers_is_given_up() {
        let start = Instant::now();
        let outcome = called(&Request::Start, "hung", |number, stream| {
            if number == 0 {
                answer(&stream, b"\n");
                (&stream).write_all(b"{\"done\":").unwrap();
            }
            std::thread::sleep(SILENCE * 200);
        });
        assert!(outcome.is_err_and(|failure| failure.is_silent()));
        assert!(start.elapsed() < SILENCE * 100);
    }

    #[test]
    fn a_status_that_does_not_come_is_given_up() {
        let start = Instant::now();
        let outcome = called(&Request::Status, "stuck", |_, stream| {
            answer(&stream, b"\n");
            std::thread::sleep(SILENCE * 200);
        });
        assert!(outcome.is_err_and(|failure| failure.is_silent()));
        assert!(start.elapsed() > SILENCE * 5 && start.elapsed() < SILENCE * 100);
    }
}
