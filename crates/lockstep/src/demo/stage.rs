//! Two peers in a temporary directory, and their end.

use super::child::Children;
use crate::errors::{Failure, Outcome};
use crate::fuse;
use serde_json::Value;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long `lockstep wait` may take, in seconds.
const WAIT_S: &str = "120";

/// Where the demo plays. Dropping it clears it.
pub struct Stage {
    dir: PathBuf,
    peers: [Peer; 2],
    children: Children,
    cleared: bool,
}

/// One of the two peers.
pub struct Peer {
    /// `A` or `B`.
    pub name: &'static str,
    /// Where its volume is mounted.
    pub mount: PathBuf,
    home: PathBuf,
    backing: PathBuf,
    children: Children,
}

/// A session between the peers, as `lockstep status` shows it.
pub struct Session {
    connected: bool,
    path: String,
    kex: String,
}

impl Stage {
    /// Makes the directories; starts nothing.
    pub fn build(children: &Children) -> Outcome<Self> {
        let dir = fresh_dir()?;
        let peer = |name: &'static str| {
            let at = |what: &str| dir.join(name).join(what);
            Peer {
                name,
                mount: at("mount"),
                home: at("home"),
                backing: at("plain"),
                children: children.clone(),
            }
        };
        let peers = [peer("A"), peer("B")];
        let stage = Stage { dir, peers, children: children.clone(), cleared: false };
        for peer in &stage.peers {
            fs::create_dir_all(&peer.backing).map_err(|e| {
                Failure::io(
                    "create",
                    &peer.backing,
                    &e,
                    "make room, or set TMPDIR to another place",
                )
            })?;
        }
        Ok(stage)
    }

    /// The directory that holds everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Who shares.
    pub fn a(&self) -> &Peer {
        &self.peers[0]
    }

    /// Who joins.
    pub fn b(&self) -> &Peer {
        &self.peers[1]
    }

    /// Runs a program of the demo.
    pub fn output(&self, command: &mut Command) -> Outcome<String> {
        self.children.output(command)
    }

    /// Fails once the demo was interrupted.
    pub fn check_interrupted(&self) -> Outcome<()> {
        self.children.check()
    }

    /// A shares, B joins.
    pub fn connect(&self) -> Outcome<()> {
        let shared = self.a().place(&["share".as_ref(), self.a().backing.as_os_str()])?;
        let code = shared["invite"].as_str().unwrap_or_default().to_owned();
        self.b().place(&["join".as_ref(), code.as_ref(), self.b().backing.as_os_str()])?;
        Ok(())
    }

    /// Stops both daemons and removes everything.
    pub fn clear(&mut self) -> Outcome<()> {
        self.cleared = true;
        let undisturbed = self.children.undisturbed();
        for peer in &self.peers {
            undisturbed.output(peer.lockstep().arg("stop"))?;
        }
        if let Some(left) =
            self.peers.iter().find(|p| matches!(fuse::mount_at(&p.mount), Ok(Some(_))))
        {
            let message = format!("{} is still mounted", left.mount.display());
            let hint = format!("run `umount -l` on it, then remove {}", self.dir.display());
            return Err(Failure::failed(message, hint));
        }
        fs::remove_dir_all(&self.dir)
            .map_err(|e| Failure::io("remove", &self.dir, &e, "remove it by hand"))
    }

    /// Leaves everything running; what to tell the user about it.
    pub fn keep(&mut self) -> String {
        self.cleared = true;
        let mut text = "\nLeft as it is:\n".to_owned();
        for peer in &self.peers {
            text.push_str(&format!(
                "  {}'s mount {}\n     lockstep --home {} status\n     lockstep --home {} stop\n",
                peer.name,
                peer.mount.display(),
                peer.home.display(),
                peer.home.display()
            ));
        }
        text + &format!("When both are stopped: rm -r {}\n", self.dir.display())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.cleared {
            let _ = self.clear();
        }
    }
}

impl Peer {
    /// `lockstep --home HOME`, to be given a command.
    pub fn lockstep(&self) -> Command {
        let this_binary = std::env::current_exe().unwrap_or_else(|_| "lockstep".into());
        let mut command = Command::new(this_binary);
        command.arg("--home").arg(&self.home);
        command
    }

    fn place(&self, verb: &[&std::ffi::OsStr]) -> Outcome<Value> {
        let mut command = self.lockstep();
        command.args(verb).arg("--mount").arg(&self.mount);
        self.json(command.args(["--listen", "127.0.0.1:0", "--json"]))
    }

    /// Waits until the other side has everything.
    pub fn wait(&self) -> Outcome<()> {
        self.children.output(self.lockstep().args(["wait", "--timeout", WAIT_S])).map(drop)
    }

    /// `lockstep status --json`, of its only volume.
    pub fn volume(&self) -> Outcome<Value> {
        Ok(self.json(self.lockstep().args(["status", "--json"]))?["volumes"][0].take())
    }

    /// The session with the other peer.
    pub fn session(&self) -> Outcome<Session> {
        let peer = self.volume()?["peers"][0].take();
        let text = |field: &str| peer[field].as_str().unwrap_or("unknown").to_owned();
        Ok(Session { connected: peer["connected"] == true, path: text("path"), kex: text("kex") })
    }

    fn json(&self, command: &mut Command) -> Outcome<Value> {
        let said = self.children.output(command)?;
        serde_json::from_str(&said)
            .map_err(|e| Failure::failed(format!("lockstep printed no JSON object: {e}"), ""))
    }
}

impl Session {
    /// The session in one line.
    pub fn describe(&self) -> String {
        let connected = if self.connected { "connected" } else { "not connected" };
        format!("{connected}, path {}, key exchange {}", self.path, self.kex)
    }

    /// Fails unless the session is up and post-quantum.
    pub fn check(&self) -> Outcome<()> {
        if self.connected && self.kex == "X25519MLKEM768" {
            return Ok(());
        }
        Err(Failure::failed(format!("the session is not as promised: {}", self.describe()), ""))
    }
}

fn fresh_dir() -> Outcome<PathBuf> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|e| Failure::failed(format!("the system gives no random numbers: {e}"), ""))?;
    let name = format!("lockstep-demo-{:08x}", u32::from_ne_bytes(random));
    let dir = std::env::temp_dir().join(name);
    DirBuilder::new().mode(0o700).create(&dir).map_err(|e| {
        Failure::io("create", &dir, &e, "make room, or set TMPDIR to another place")
    })?;
    fs::canonicalize(&dir).map_err(|e| Failure::io("use", &dir, &e, "set TMPDIR to another place"))
}
