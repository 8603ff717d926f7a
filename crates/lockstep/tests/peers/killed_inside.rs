//! A daemon killed while a thread of it waits in the kernel for a lock that a program holds, and the program
//! waits for the daemon's answer. No signal ends that wait: the dead process keeps its mount, its locks and its socket.

use crate::support::connected;
use crate::support::pair::Pair;
use crate::support::peer::Peer;
use crate::support::{SOON, eventually};
use rustix::mount::UnmountFlags;
use rustix::process::Signal;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Attempts to kill the daemon in the right moment.
const ATTEMPTS: u32 = 8;

/// The state of a thread and its name, as `/proc` has them.
fn threads(pid: i32) -> Vec<(char, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            Some((rest.trim_start().chars().next()?, name.to_owned()))
        })
        .collect()
}

/// Whether a thread that invalidates waits for a lock in the kernel.
fn is_invalidating(pid: i32) -> bool {
    threads(pid).iter().any(|(state, name)| *state == 'D' && name.starts_with("fuse-notify"))
}

/// Renames a large file that was just written: it holds the directory's lock while the daemon names
/// the content. By a process of its own: a child of the one that has the file open would close it, and
/// wait for the daemon, before it runs.
fn rename_slowly(peer: &Peer, attempt: u32) -> Child {
    let script =
        "exec 3>\"$1\"; head -c 268435456 /dev/urandom >&3; echo written; mv \"$1\" \"$2\"";
    let mut program = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([peer.at(format!("dir/large-{attempt}")), peer.at(format!("dir/{attempt}"))])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 8];
    program.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    program
}

/// Has the peer change names in that directory until an invalidation waits for its lock.
fn invalidate_until_stuck(pair: &Pair, attempt: u32) -> bool {
    let end = Instant::now() + SOON;
    for number in 0.. {
        fs::write(pair.b.at(format!("dir/small-{attempt}-{number}")), "x").unwrap();
        if is_invalidating(pair.a.pid()) {
            return true;
        }
        if Instant::now() > end {
            break;
        }
    }
    false
}

/// Ends the connection of the mount also when the test fails: what hangs on it would outlive the test.
struct Freed(PathBuf);

impl Drop for Freed {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
    }
}

/// The state of the process itself, if it is there.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Kills a's daemon so that it cannot end; the program that waits for it.
fn killed_inside(pair: &Pair) -> Child {
    fs::create_dir(pair.a.at("dir")).unwrap();
    pair.identical();
    for attempt in 0..ATTEMPTS {
        let mut program = rename_slowly(&pair.a, attempt);
        if invalidate_until_stuck(pair, attempt) {
            let pid = pair.a.pid();
            pair.a.signal(Signal::KILL);
            eventually("the killed daemon ends or stays a zombie", SOON, || {
                matches!(state(pid), None | Some('Z'))
            });
            if is_invalidating(pid) {
                return program;
            }
            pair.a.start();
            pair.reconnected();
        }
        program.wait().unwrap();
    }
    panic!("no attempt of {ATTEMPTS} met the moment");
}

#[test]
fn a_daemon_killed_inside_the_kernel_is_named_and_the_next_start_frees_its_mount() {
    let pair = connected!();
    let _freed = Freed(pair.a.mnt().to_owned());
    let mut program = killed_inside(&pair);
    for command in ["status", "wait"] {
        pair.a.run(&[command]).fails_with(1, &["was killed", "control.sock", "lockstep start"]);
    }
    pair.a.start();
    assert!(!program.wait().unwrap().success(), "its daemon never answered");
    pair.reconnected();
    pair.identical();
}
