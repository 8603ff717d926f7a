//! The daemon's side of the control socket.

use super::address::SocketAddress;
use super::{LINE_MAX_BYTES, Reply, Request};
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use serde_json::Value;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Commands carried out at a time; further ones wait, but for brief ones.
const COMMANDS_MAX: usize = 64;
/// Connections at a time; further ones wait to be accepted.
const CALLERS_MAX: usize = 128;
/// A caller whose request is not whole by then is let go.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Likewise one that has not taken its answer.
const TAKING_DEADLINE: Duration = Duration::from_secs(60);

/// A socket that was removed is made again within this time.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// Carries out a request. It may block: it runs on the blocking pool.
pub type Answer = Arc<dyn Fn(Request) -> Outcome<Value> + Send + Sync>;

/// Creates the socket, replacing what a crashed daemon left. Call it only with the home's lock held.
pub fn bind(home: &Home) -> Outcome<UnixListener> {
    let socket = home.socket();
    let bound = || -> io::Result<UnixListener> {
        match std::fs::symlink_metadata(&socket) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(&socket)?,
            Ok(_) => return Err(io::Error::other("what is there is not a socket")),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(_) => {}
        }
        let listener = UnixListener::bind(SocketAddress::of(home)?.path())?;
        std::fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bound().map_err(|e| {
        let hint = "move it away if it is there, or choose another --home DIR";
        Failure::io("create the control socket", &socket, &e, hint)
    })
}

/// Serves callers until the future is dropped, also after somebody has removed the socket.
pub async fn serve(mut listener: UnixListener, home: Home, answer: Answer) {
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    let commands = Arc::new(Semaphore::new(COMMANDS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
        let Ok(accepted) = timeout(LOOK_PAUSE, listener.accept()).await else {
            listener = bound_again(&home).unwrap_or(listener);
            continue;
        };
        match accepted {
            Ok((stream, _)) => {
                let (answer, commands) = (Arc::clone(&answer), Arc::clone(&commands));
                tokio::spawn(async move {
                    if let Err(reason) = converse(stream, answer, &commands).await {
                        tracing::debug!(%reason, "a control connection ended early");
                    }
                    drop(place);
                });
            }
            Err(reason) => {
                tracing::warn!(%reason, "cannot accept a control connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A new socket, if the one there was is gone.
fn bound_again(home: &Home) -> Option<UnixListener> {
    let looked = std::fs::symlink_metadata(home.socket());
    let is_gone = looked.is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let fresh = is_gone.then(|| bind(home))?;
    match &fresh {
        Ok(_) => tracing::warn!("the control socket was removed: it is made again"),
        Err(failure) => tracing::debug!("the control socket cannot be made: {}", failure.message()),
    }
    fresh.ok()
}

async fn converse(stream: UnixStream, answer: Answer, commands: &Semaphore) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if caller != own && caller != 0 {
        tracing::warn!(caller, "refused a control connection of another user");
        return Ok(());
    }
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reading).take(LINE_MAX_BYTES);
        timeout(REQUEST_DEADLINE, limited.read_until(b'\n', &mut line)).await??;
        let whole = line.ends_with(b"\n");
        let reply = match whole {
            true => respond(&line, &answer, commands).await,
            false if line.len() as u64 == LINE_MAX_BYTES => Err(too_long()),
            false => return Ok(()),
        };
        let mut line = serde_json::to_vec(&Reply::of(reply))?;
        line.push(b'\n');
        timeout(TAKING_DEADLINE, writing.write_all(&line)).await??;
        if !whole {
            return Ok(());
        }
    }
}

async fn respond(line: &[u8], answer: &Answer, commands: &Semaphore) -> Outcome<Value> {
    let request: Request = serde_json::from_slice(line).map_err(|e| {
        let hint = "the daemon may be another version: run `lockstep stop`, then try again";
        Failure::failed(format!("the daemon does not understand the request: {e}"), hint)
    })?;
    if request == Request::Ping {
        // It does not block, and says that the daemon is there however busy that is.
        return answer(request);
    }
    let _place = match request.is_brief() {
        true => None,
        false => Some(commands.acquire().await.expect("never closed")),
    };
    let answer = Arc::clone(answer);
    tokio::task::spawn_blocking(move || answer(request)).await.unwrap_or_else(|e| {
        Err(Failure::failed(format!("the command broke inside the daemon: {e}"), "see its log"))
    })
}

fn too_long() -> Failure {
    let message = format!("the request is longer than {LINE_MAX_BYTES} bytes");
    Failure::failed(message, "give shorter paths and names")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::control::caller;

    #[test]
    fn a_request_is_answered_and_garbage_is_refused() {
        let dir = std::env::temp_dir().join(format!("lockstep-control-{}", std::process::id()));
        let home = Home::locate(Some(&dir)).unwrap();
        home.create().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let answer: Answer = Arc::new(|request| match request {
            Request::Status => Ok(serde_json::json!({"fine": true})),
            _ => Err(Failure::usage("no", "ask for status")),
        });
        let listener = runtime.block_on(async { bind(&home) }).unwrap();
        runtime.spawn(serve(listener, home.clone(), answer));

        let mode = std::fs::metadata(home.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(caller::call(&home, &Request::Status).unwrap()["fine"], true);
        assert_eq!(caller::call(&home, &Request::Start).unwrap_err().exit_code(), 2);
        let soon = std::time::Instant::now() + Duration::from_secs(10);
        assert!(caller::answers(&home, soon));

        use std::io::{Read, Write};
        let mut raw = std::os::unix::net::UnixStream::connect(home.socket()).unwrap();
        raw.write_all(b"{\"command\":\"fly\"}\n").unwrap();
        raw.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = String::new();
        raw.read_to_string(&mut reply).unwrap();
        assert!(reply.contains("does not understand"), "{reply}");
        drop(runtime);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Also those whose caller has gone: a `wait` goes on until its time is over.
    #[test]
    fn many_commands_that_take_long_do_not_hold_up_brief_ones() {
        let dir = std::env::temp_dir().join(format!("lockstep-busy-{}", std::process::id()));
        let home = Home::locate(Some(&dir)).unwrap();
        home.create().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        let over = Arc::new((parking_lot::Mutex::new(false), parking_lot::Condvar::new()));
        let until = Arc::clone(&over);
        let answer: Answer = Arc::new(move |request| {
            if let Request::Wait { .. } = request {
                let _ = begun.send(());
                until.1.wait_while(&mut until.0.lock(), |over| !*over);
            }
            Ok(serde_json::json!({"fine": true}))
        });
        let listener = runtime.block_on(async { bind(&home) }).unwrap();
        runtime.spawn(serve(listener, home.clone(), answer));
        use std::io::Write;
        let waits: Vec<_> = (0..COMMANDS_MAX + 10)
            .map(|_| {
                let mut caller = std::os::unix::net::UnixStream::connect(home.socket()).unwrap();
                let wait = b"{\"command\":\"wait\",\"timeout_ms\":1}\n";
                caller.write_all(wait).unwrap();
                caller
            })
            .collect();
        for _ in 0..COMMANDS_MAX {
            begins.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        let (told, status) = std::sync::mpsc::channel();
        let asked = home.clone();
        std::thread::spawn(move || told.send(caller::call(&asked, &Request::Status)));
        let status = status.recv_timeout(Duration::from_secs(10));
        assert_eq!(status.expect("it does not wait for the others").unwrap()["fine"], true);
        *over.0.lock() = true;
        over.1.notify_all();
        drop(waits);
        drop(runtime);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
