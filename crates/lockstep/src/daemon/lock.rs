//! One daemon per home: an exclusive lock on a file that nobody deletes.

use super::durable;
use crate::errors::{Failure, Outcome};
use crate::home::Home;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A command that asks whether the lock is free holds it for a moment; taking it outlasts that.
const TAKE_PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(10);

/// Held by the daemon of a home until its process ends.
#[derive(Debug)]
pub struct HomeLock {
    pid_file: PathBuf,
    _file: File,
}

impl HomeLock {
    /// Becomes the one daemon of `home`.
    pub fn take(home: &Home) -> Outcome<Self> {
        let deadline = Instant::now() + TAKE_PATIENCE;
        let file = loop {
            match try_lock(home)? {
                Some(file) => break file,
                None if Instant::now() < deadline => std::thread::sleep(PAUSE),
                None => return Err(occupied(home)),
            }
        };
        let pid_file = home.pid_file();
        durable::replace(&pid_file, format!("{}\n", std::process::id()).as_bytes())
            .map_err(|e| Failure::io("write", &pid_file, &e, "make room on that filesystem"))?;
        Ok(HomeLock { pid_file, _file: file })
    }

    /// Whether a daemon of `home` lives. A home that does not exist has none.
    pub fn is_held(home: &Home) -> Outcome<bool> {
        if !home.lock_file().exists() {
            return Ok(false);
        }
        Ok(try_lock(home)?.is_none())
    }
}

impl Drop for HomeLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pid_file);
    }
}

/// The process id of `home`'s daemon, for a sentence to the user.
pub fn pid(home: &Home) -> Option<u32> {
    std::fs::read_to_string(home.pid_file()).ok()?.trim().parse().ok()
}

fn try_lock(home: &Home) -> Outcome<Option<File>> {
    let path = home.lock_file();
    let hint = "run the command as the user who owns the home";
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Failure::io("open", &path, &e, hint))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(Failure::io("lock", &path, &e.into(), "put the home on a local filesystem")),
    }
}

fn occupied(home: &Home) -> Failure {
    let process = pid(home).map(|pid| format!(" (process {pid})")).unwrap_or_default();
    Failure::failed(
        format!("a daemon{process} already runs for the home {}", home.dir().display()),
        "use that one, or run `lockstep stop` first",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_on_one_home_is_impossible() {
        let dir = std::env::temp_dir().join(format!("lockstep-lock-{}", std::process::id()));
        let home = Home::locate(Some(&dir)).unwrap();
        assert_eq!(HomeLock::is_held(&home), Ok(false));
        home.create().unwrap();
        let lock = HomeLock::take(&home).unwrap();
        assert_eq!(HomeLock::is_held(&home), Ok(true));
        let refusal = HomeLock::take(&home).unwrap_err();
        assert!(refusal.message().contains(&std::process::id().to_string()), "{refusal}");
        drop(lock);
        assert_eq!(HomeLock::is_held(&home), Ok(false));
        assert_eq!(pid(&home), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
