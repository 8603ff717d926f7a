//! What the daemon says while it runs, on standard error (in the background: `daemon.log`).
//! `LOCKSTEP_LOG` sets the level, e.g. `debug` or `lockstep_net=trace`.
//!
//! Logging never blocks: lines pass through a bounded queue to a thread that writes them, and when
//! a full pipe or disk holds that thread up, lines are counted and left out (seed bug 5).

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;
/// Longest wait for the last lines at the end.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Queue> = OnceLock::new();

enum Entry {
    Line(Vec<u8>),
    Flushed(SyncSender<()>),
}

struct Queue {
    entries: SyncSender<Entry>,
    left_out: AtomicU64,
}

/// Starts logging. A second call changes nothing.
pub fn start() {
    QUEUE.get_or_init(|| open(io::stderr()));
    let filter = EnvFilter::try_from_env("LOCKSTEP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(|| Line)
        .try_init();
}

/// Waits, not long, until what was logged is written.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush();
    }
}

fn open(to: impl Write + Send + 'static) -> Queue {
    let (entries, received) = sync_channel(LINES_MAX);
    let writing = std::thread::Builder::new().name("lockstep-log".into());
    // Without its thread the queue leaves every line out; the daemon itself can do without.
    let _ = writing.spawn(move || write_out(&received, to));
    Queue { entries, left_out: AtomicU64::new(0) }
}

fn write_out(entries: &Receiver<Entry>, mut to: impl Write) {
    for entry in entries {
        match entry {
            Entry::Line(line) => drop(to.write_all(&line)),
            Entry::Flushed(done) => {
                let _ = to.flush();
                let _ = done.try_send(());
            }
        }
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let missing = self.left_out.load(Ordering::Relaxed);
        let mut bytes = line.to_vec();
        if missing > 0 {
            bytes.extend_from_slice(format!("({missing} log lines were left out)\n").as_bytes());
        }
        if self.entries.try_send(Entry::Line(bytes)).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        } else if missing > 0 {
            self.left_out.fetch_sub(missing, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        if self.entries.try_send(Entry::Flushed(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_DEADLINE);
        }
    }
}

/// One event's way into the queue.
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(queue) = QUEUE.get() {
            queue.push(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    #[test]
    fn a_full_pipe_does_not_hold_up_who_logs() {
        let (writing, reading) = UnixStream::pair().unwrap();
        let queue = open(writing);
        let line = [b'x'; 200];
        let start = Instant::now();
        for _ in 0..LINES_MAX * 4 {
            queue.push(&line);
        }
        assert!(queue.left_out.load(Ordering::Relaxed) > 0);
        assert!(start.elapsed() < Duration::from_secs(10));
        drop(reading);
    }
}
