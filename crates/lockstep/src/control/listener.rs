//! The daemon's side of the control socket.

use super::address::SocketAddress;
use super::{LINE_MAX_BYTES, Reply, Request};
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use serde_json::Value;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Commands served at a time; further ones wait to be accepted.
const CALLERS_MAX: usize = 64;

/// Carries out a request. It may block: it runs on the blocking pool.
pub type Answer = Arc<dyn Fn(Request) -> Outcome<Value> + Send + Sync>;

/// Creates the socket, replacing what a crashed daemon left. Call it only with the home's lock held.
pub fn bind(home: &Home) -> Outcome<UnixListener> {
    let socket = home.socket();
    let bound = || -> io::Result<UnixListener> {
        match std::fs::remove_file(&socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(SocketAddress::of(home)?.path())?;
        std::fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bound().map_err(|e| {
        Failure::io("create the control socket", &socket, &e, "choose another --home DIR")
    })
}

/// Serves callers until the future is dropped.
pub async fn serve(listener: UnixListener, answer: Answer) {
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    if let Err(reason) = converse(stream, answer).await {
                        tracing::debug!(%reason, "a control connection ended early");
                    }
                    drop(place);
                });
            }
            Err(reason) => {
                tracing::warn!(%reason, "cannot accept a control connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, answer: Answer) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if caller != own && caller != 0 {
        tracing::warn!(caller, "refused a control connection of another user");
        return Ok(());
    }
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = String::new();
        (&mut reading).take(LINE_MAX_BYTES).read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Ok(());
        }
        let reply = Reply::of(respond(&line, &answer).await);
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        writing.write_all(&line).await?;
    }
}

async fn respond(line: &str, answer: &Answer) -> Outcome<Value> {
    let request: Request = serde_json::from_str(line).map_err(|e| {
        let hint = "the daemon may be another version: run `lockstep stop`, then try again";
        Failure::failed(format!("the daemon does not understand the request: {e}"), hint)
    })?;
    let answer = Arc::clone(answer);
    tokio::task::spawn_blocking(move || answer(request)).await.unwrap_or_else(|e| {
        Err(Failure::failed(format!("the command broke inside the daemon: {e}"), "see its log"))
    })
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
        runtime.spawn(serve(listener, answer));

        let mode = std::fs::metadata(home.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(caller::call(&home, &Request::Status).unwrap()["fine"], true);
        assert_eq!(caller::call(&home, &Request::Start).unwrap_err().exit_code(), 2);
        assert!(!caller::answers(&home));

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
}
