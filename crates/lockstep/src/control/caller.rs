//! The command's side of the control socket.

use super::address::SocketAddress;
use super::{REPLY_MAX_BYTES, Reply, Request};
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

/// Asks the daemon of `home` and waits for its answer, however long that takes.
pub fn call(home: &Home, request: &Request) -> Outcome<Value> {
    let stream = connect(home).map_err(|e| unreachable(home, &e))?;
    let mut line = serde_json::to_vec(request).map_err(|e| {
        Failure::usage(format!("cannot pass the arguments on: {e}"), "use paths that are UTF-8")
    })?;
    line.push(b'\n');
    let answer = exchange(&stream, &line).map_err(|e| {
        let hint = format!("look at {}", home.log_file().display());
        Failure::failed(format!("the daemon did not finish the command: {e}"), hint)
    })?;
    let reply: Reply = serde_json::from_str(&answer).map_err(|e| {
        let hint = "it may be another version of Lockstep: run `lockstep stop`, then try again";
        Failure::failed(format!("the daemon's answer is not understood: {e}"), hint)
    })?;
    reply.outcome()
}

/// Whether a daemon of `home` answers.
pub fn answers(home: &Home) -> bool {
    call(home, &Request::Ping).is_ok()
}

fn connect(home: &Home) -> io::Result<UnixStream> {
    UnixStream::connect(SocketAddress::of(home)?.path())
}

fn exchange(mut stream: &UnixStream, line: &[u8]) -> io::Result<String> {
    stream.write_all(line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(REPLY_MAX_BYTES)).read_line(&mut answer)?;
    if answer.ends_with('\n') {
        return Ok(answer);
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it went away"))
}

fn unreachable(home: &Home, reason: &io::Error) -> Failure {
    let dir = home.dir().display();
    match reason.kind() {
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
