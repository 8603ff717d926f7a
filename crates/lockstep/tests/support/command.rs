//! Runs a program to its end, with a deadline, and keeps what it said.

use serde_json::Value;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Outcome {
    /// Panics unless the program ended with 0.
    #[track_caller]
    pub fn success(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{} failed: {self:#?}", self.line);
        self
    }

    /// Panics unless the program ended with `code` and said each of `words` (in any case).
    #[track_caller]
    pub fn fails_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let said = format!("{}{}", self.stdout, self.stderr).to_lowercase();
        for word in words {
            assert!(said.contains(&word.to_lowercase()), "nothing about '{word}': {self:#?}");
        }
        assert!(!said.contains("panicked"), "{self:#?}");
    }

    /// The one JSON object on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|why| panic!("not one JSON object ({why}): {self:#?}"))
    }
}

/// Runs `command` and waits for its end and for the end of its output.
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Outcome {
    let line = format!("{command:?}");
    let end = Instant::now() + deadline;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("cannot run {line}: {why}"));
    let stdout = collect(child.stdout.take().expect("piped above"));
    let stderr = collect(child.stderr.take().expect("piped above"));
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {deadline:?}: {line}\n{}", rest(&stderr));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    Outcome { code: status.code(), stdout: rest(&stdout), stderr: rest(&stderr), line }
}

fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = send.send(bytes);
    });
    receive
}

/// A daemon must not keep the pipes of the command that started it: `$(lockstep share ...)` would
/// never return.
#[track_caller]
fn rest(output: &Receiver<Vec<u8>>) -> String {
    let bytes = output
        .recv_timeout(Duration::from_secs(10))
        .expect("the command ended, but something it started holds its output open");
    String::from_utf8_lossy(&bytes).into_owned()
}
