//! One daemon per home, by two locks that end with its process however that ends: `daemon.lock`
//! decides who is the daemon, and only daemons touch it; `daemon.pid` is locked by a daemon that has
//! made it, and commands look at that lock to learn whether one lives.

use crate::errors::{Failure, Outcome};
use crate::home::Home;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A daemon that is just starting or just ending holds one lock without the other this long at most.
const BETWEEN_LOCKS_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Held by the daemon of a home until its process ends.
#[derive(Debug)]
pub struct HomeLock {
    // The order of release: who sees `daemon.pid` unlocked may start a daemon at once.
    _decides: File,
    lives: File,
}

impl HomeLock {
    /// Becomes the one daemon of `home`.
    pub fn take(home: &Home) -> Outcome<Self> {
        super::abandoned::release(home)?;
        let deadline = Instant::now() + BETWEEN_LOCKS_MAX;
        let decides = open(&home.lock_file())?;
        while !try_lock(&decides, FlockOperation::NonBlockingLockExclusive, &home.lock_file())? {
            if Self::is_held(home)? || Instant::now() > deadline {
                return Err(occupied(home));
            }
            std::thread::sleep(PAUSE);
        }
        let pid_path = home.pid_file();
        let lives = open(&pid_path)?;
        // Waits for nobody but a command that is looking.
        try_lock(&lives, FlockOperation::LockExclusive, &pid_path)?;
        write_pid(&lives)
            .map_err(|e| Failure::io("write", &pid_path, &e, "make room on that filesystem"))?;
        Ok(HomeLock { _decides: decides, lives })
    }

    /// Whether a daemon of `home` lives. A home that does not exist has none.
    pub fn is_held(home: &Home) -> Outcome<bool> {
        let path = home.pid_file();
        let looking = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Failure::io("open", &path, &e, HINT)),
        };
        Ok(!try_lock(&looking, FlockOperation::NonBlockingLockShared, &path)?)
    }

    /// The daemon is about to exit: the kernel lets go of the locks when the process has gone, so
    /// that nobody takes it for gone before.
    pub fn keep_until_exit(self) {
        let _ = self.lives.set_len(0);
        std::mem::forget(self);
    }
}

const HINT: &str =
    "run the command as the user who owns the home; what is no file of Lockstep's, move away";

/// The process id of `home`'s daemon, for a sentence to the user.
pub fn pid(home: &Home) -> Option<u32> {
    std::fs::read_to_string(home.pid_file()).ok()?.trim().parse().ok()
}

fn open(path: &Path) -> Outcome<File> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(|e| Failure::io("open", path, &e, HINT))
}

fn try_lock(file: &File, operation: FlockOperation, path: &Path) -> Outcome<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(Failure::io("lock", path, &e.into(), "put the home on a local filesystem")),
    }
}

fn write_pid(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

fn occupied(home: &Home) -> Failure {
    let process = pid(home).map(|pid| format!(" (process {pid})")).unwrap_or_default();
    Failure::early(
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
        for _ in 0..3 {
            let lock = HomeLock::take(&home).unwrap();
            assert_eq!(HomeLock::is_held(&home), Ok(true));
            let start = Instant::now();
            let refusal = HomeLock::take(&home).unwrap_err();
            assert!(start.elapsed() < BETWEEN_LOCKS_MAX, "it does not lie in wait for the lock");
            assert!(refusal.message().contains(&std::process::id().to_string()), "{refusal}");
            drop(lock);
            assert_eq!(HomeLock::is_held(&home), Ok(false));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_pid_file_of_a_crashed_daemon_means_nothing() {
        let dir = std::env::temp_dir().join(format!("lockstep-crash-{}", std::process::id()));
        let home = Home::locate(Some(&dir)).unwrap();
        home.create().unwrap();
        std::fs::write(home.pid_file(), "1\n").unwrap();
        assert_eq!(HomeLock::is_held(&home), Ok(false));
        drop(HomeLock::take(&home).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
