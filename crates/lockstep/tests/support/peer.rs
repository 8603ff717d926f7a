//! One peer: a home, a directory, perhaps a mount, and the daemon that serves them.

use super::command::{Outcome, run};
use super::{SOON, environment, eventually};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// Longest that any one command may take.
const COMMAND_MAX: Duration = Duration::from_secs(200);

/// Where a peer shows its volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placing {
    /// `--mount MNT`.
    #[default]
    Beside,
    /// Over the directory itself.
    Over,
    /// `--no-mount`.
    Nowhere,
}

/// A peer of a test.
pub struct Peer {
    /// `a` or `b`.
    pub name: &'static str,
    /// Its `--home`.
    pub home: PathBuf,
    /// The directory it shares or joins with.
    pub backing: PathBuf,
    mount: Option<PathBuf>,
    placing: Placing,
    user: Option<PathBuf>,
    pid: AtomicI32,
}

impl Peer {
    /// Makes the directories of peer `name` below `root`; starts nothing.
    pub fn new(name: &'static str, root: &Path, placing: Placing) -> Peer {
        let home = root.join(name).join("home");
        let backing = root.join(name).join("dir");
        let mount = match placing {
            Placing::Beside => Some(root.join(name).join("mnt")),
            Placing::Over => Some(backing.clone()),
            Placing::Nowhere => None,
        };
        for dir in [Some(&home), Some(&backing), mount.as_ref()].into_iter().flatten() {
            std::fs::create_dir_all(dir).expect("the scratch directory is writable");
        }
        Peer { name, home, backing, mount, placing, user: None, pid: AtomicI32::new(0) }
    }

    /// Runs this peer's commands and daemon as an ordinary user, with a copy of the binary that
    /// such a user can reach.
    pub fn become_nobody(&mut self) {
        let binary = self.home.with_file_name("lockstep");
        std::fs::copy(environment::binary(), &binary).expect("the binary can be copied");
        let parent = self.home.parent().expect("made by new");
        for dir in [Some(parent), Some(&*self.home), Some(&*self.backing), self.mount.as_deref()]
            .into_iter()
            .flatten()
        {
            std::os::unix::fs::chown(dir, Some(environment::NOBODY), Some(environment::NOBODY))
                .expect("root may give directories away");
        }
        self.user = Some(binary);
    }

    /// Where the user works: the mount, or the plain directory without one.
    pub fn mnt(&self) -> &Path {
        self.mount.as_deref().unwrap_or(&self.backing)
    }

    /// `name` where the user works.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mnt().join(name)
    }

    /// `lockstep --home HOME args...`, not yet run.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = match &self.user {
            Some(binary) => environment::as_nobody(binary),
            None => Command::new(environment::binary()),
        };
        for name in ["LOCKSTEP_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(name);
        }
        command.env("HOME", &self.home).arg("--home").arg(&self.home).args(args);
        command
    }

    /// Runs `lockstep --home HOME args...` to its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Outcome {
        run(&mut self.command(args), COMMAND_MAX)
    }

    /// Shares the directory; the JSON that `share` printed.
    #[track_caller]
    pub fn share(&self) -> Value {
        self.publish(&[OsStr::new("share"), self.backing.as_os_str()], &[])
    }

    /// Joins with the directory; the JSON that `join` printed.
    #[track_caller]
    pub fn join(&self, code: &str) -> Value {
        self.join_with(code, &[])
    }

    /// The same, with further options.
    #[track_caller]
    pub fn join_with(&self, code: &str, options: &[&str]) -> Value {
        self.publish(&[OsStr::new("join"), OsStr::new(code), self.backing.as_os_str()], options)
    }

    #[track_caller]
    fn publish(&self, verb: &[&OsStr], options: &[&str]) -> Value {
        let mut args = verb.to_vec();
        args.extend(options.iter().map(OsStr::new));
        match (self.placing, &self.mount) {
            (Placing::Beside, Some(mount)) => {
                args.extend([OsStr::new("--mount"), mount.as_os_str()])
            }
            (Placing::Nowhere, _) => args.push(OsStr::new("--no-mount")),
            _ => {}
        }
        args.extend(["--listen", "127.0.0.1:0", "--json"].map(OsStr::new));
        let printed = self.run(&args).success().json();
        self.remember_pid();
        printed
    }

    /// Learns which process serves this peer now.
    #[track_caller]
    pub fn remember_pid(&self) {
        let pid = self.status()["pid"].as_i64().expect("status has a pid");
        self.pid.store(i32::try_from(pid).expect("a pid"), Ordering::SeqCst);
    }

    /// `lockstep status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.run(&["status", "--json"]).success().json()
    }

    /// The one volume of `status --json`.
    #[track_caller]
    pub fn volume(&self) -> Value {
        let status = self.status();
        assert_eq!(status["volumes"].as_array().map(Vec::len), Some(1), "{status:#}");
        status["volumes"][0].clone()
    }

    /// How many requests of `kind` the mount has answered.
    #[track_caller]
    pub fn requests(&self, kind: &str) -> u64 {
        self.volume()["requests"][kind].as_u64().unwrap_or(0)
    }

    /// Whether `status` shows a connected peer.
    pub fn is_connected(&self) -> bool {
        let outcome = self.run(&["status", "--json"]);
        if outcome.code != Some(0) {
            return false;
        }
        let peers = outcome.json()["volumes"][0]["peers"].clone();
        peers.as_array().is_some_and(|all| all.iter().any(|peer| peer["connected"] == true))
    }

    /// `lockstep wait`: both sides have everything written by now.
    #[track_caller]
    pub fn wait(&self) {
        self.run(&["wait", "--timeout", "120"]).success();
    }

    /// `lockstep start`.
    #[track_caller]
    pub fn start(&self) {
        self.run(&["start"]).success();
        self.remember_pid();
    }

    /// `lockstep stop`; returns when the daemon has gone.
    #[track_caller]
    pub fn stop(&self) {
        self.run(&["stop"]).success();
        assert!(!self.daemon_lives(), "`lockstep stop` returned before the daemon had gone");
    }

    /// The daemon's process id, as `status` last showed it.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::SeqCst)
    }

    /// Whether the daemon's process exists.
    pub fn daemon_lives(&self) -> bool {
        is_daemon_of(self.pid(), &self.home)
    }

    /// Sends `signal` to the daemon.
    pub fn signal(&self, signal: rustix::process::Signal) {
        if self.daemon_lives() {
            let pid = rustix::process::Pid::from_raw(self.pid()).expect("not zero: it lives");
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends the daemon as a crash would.
    #[track_caller]
    pub fn kill9(&self) {
        self.signal(rustix::process::Signal::KILL);
        eventually("the killed daemon is gone", SOON, || !self.daemon_lives());
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = std::fs::read(self.home.join("daemon.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::CONT);
        if std::thread::panicking() {
            eprintln!("--- {}'s daemon.log ends:\n{}", self.name, self.log_tail(40));
        }
        let mut stop = Command::new("timeout");
        stop.args(["-k", "1", "20"]).arg(environment::binary());
        let _ = stop.arg("--home").arg(&self.home).arg("stop").output();
        self.signal(rustix::process::Signal::KILL);
        kill_recorded_daemon(&self.home);
        if let Some(mount) = &self.mount {
            environment::unmount_below(mount);
        }
    }
}

/// Ends the daemon that `home/daemon.pid` names, if it is that home's daemon.
pub fn kill_recorded_daemon(home: &Path) {
    let recorded = std::fs::read_to_string(home.join("daemon.pid")).unwrap_or_default();
    let Ok(pid) = recorded.trim().parse::<i32>() else { return };
    if is_daemon_of(pid, home) {
        let pid = rustix::process::Pid::from_raw(pid).expect("not zero: it is a daemon");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn is_daemon_of(pid: i32, home: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let home = home.as_os_str().as_bytes();
    pid > 0 && line.split(|byte| *byte == 0).any(|word| word == home)
}
