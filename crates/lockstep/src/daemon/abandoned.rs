//! What a killed daemon leaves when a thread of it waits in the kernel for a lock of a program that waits for
//! the daemon's answer. No signal ends that wait: the process stays a zombie that has its locks, its socket
//! and its mounts. Ending its FUSE connections fails the program's call, and with that everything is let go of.

use super::lock::{self, HomeLock};
use super::record::{self, VolumeRecord};
use crate::errors::{Failure, Outcome};
use crate::fuse;
use crate::home::Home;
use std::time::{Duration, Instant};

/// How long a process may take to go once nothing holds it up.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How long the threads of a killed process may take to go, unless the kernel holds one up.
const GOING_WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Frees what a dead daemon of `home` holds. Does nothing while it lives, or is not there.
pub fn release(home: &Home) -> Outcome<()> {
    let Some(pid) = lock::pid(home).filter(|pid| is_dead(*pid)) else { return Ok(()) };
    if !HomeLock::is_held(home)? {
        return Ok(());
    }
    let ids = record::remembered(home)?.into_iter();
    let records = ids.filter_map(|id| VolumeRecord::load(home, id).ok().flatten());
    for mount in records.filter_map(|record| record.mount) {
        fuse::end_dead(&mount).map_err(|e| Failure::of_sentence(&e.to_string()))?;
    }
    match lets_go_within(home, GONE_WITHIN)? {
        true => Ok(()),
        false => Err(Failure::failed(
            format!("the daemon (process {pid}) was killed, and the kernel does not let go of it"),
            "as root, run `umount -f` for the mounts of this home",
        )),
    }
}

/// The failure of a command that would wait for a dead daemon.
pub fn refuse(home: &Home) -> Outcome<()> {
    let Some(pid) = lock::pid(home).filter(|pid| is_dead(*pid)) else { return Ok(()) };
    // Every killed process is a zombie for a while: until its threads have gone, and until its parent
    // has asked how it ended.
    if lets_go_within(home, GOING_WITHIN)? {
        return Ok(());
    }
    Err(Failure::failed(
        format!(
            "the daemon (process {pid}) was killed and still holds {} and its mounts",
            home.socket().display()
        ),
        "run `lockstep start`, which frees them",
    ))
}

/// Whether a dead daemon of `home` lets go of it within `patience`.
fn lets_go_within(home: &Home, patience: Duration) -> Outcome<bool> {
    let deadline = Instant::now() + patience;
    while HomeLock::is_held(home)? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

/// Whether `pid` has ended and only threads of it that cannot be ended are left.
fn is_dead(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}
