//! What must hold of a repository that both peers see.

use super::stage::{Peer, Stage};
use crate::errors::{Failure, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The clone's directory in both mounts.
const NAME: &str = "repository";
/// A commit that is not visible on the other side within this time is lost.
const VISIBLE_DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_micros(500);

/// `git` in `dir`, independent of who runs it and of repositories around it.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(name);
    }
    let settings = [
        "user.name=Lockstep demo",
        "user.email=demo@lockstep.invalid",
        "commit.gpgSign=false",
        "core.hooksPath=/dev/null",
        "gc.auto=0",
        "maintenance.auto=false",
        "protocol.file.allow=always",
    ];
    command.arg("-C").arg(dir);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
}

/// The checks, on one stage.
pub struct Checks<'s> {
    stage: &'s Stage,
}

impl<'s> Checks<'s> {
    /// Checks what the peers of `stage` show.
    pub fn new(stage: &'s Stage) -> Self {
        Checks { stage }
    }

    /// Clones `source` in A's mount.
    pub fn clone_on_a(&self, source: &str) -> Outcome<()> {
        let clone = ["clone", "--quiet", "--", source, NAME];
        self.stage.output(git(&self.stage.a().mount).args(clone)).map(drop)
    }

    /// What git's index says of every file's `stat` is the same on both sides, and it is what B's
    /// files show.
    pub fn index_fits(&self) -> Outcome<()> {
        let index = |peer| self.git(peer, &["ls-files", "--debug"]);
        let (a, b) = (index(self.stage.a())?, index(self.stage.b())?);
        if a.is_empty() || a != b {
            return Err(broken("`git ls-files --debug` differs between A and B"));
        }
        let dirty = self.git(self.stage.b(), &["diff-files", "--name-only"])?;
        let count = dirty.lines().count();
        if count > 0 {
            Err(broken(&format!("{count} files look changed to git on B")))
        } else {
            Ok(())
        }
    }

    /// `git status` finds nothing on B; how many reads B's mount answered meanwhile.
    pub fn status_is_clean(&self) -> Outcome<u64> {
        let before = self.reads_on_b()?;
        self.is_clean(self.stage.b())?;
        Ok(self.reads_on_b()?.saturating_sub(before))
    }

    /// `git fsck` finds nothing on B.
    pub fn is_sound(&self) -> Outcome<()> {
        let fsck = ["fsck", "--full", "--strict", "--no-dangling", "--no-progress"];
        self.git(self.stage.b(), &fsck).map(drop)
    }

    /// A commit on `from` arrives at `to`, and both are clean; how long after git's return it showed.
    pub fn commit_travels(&self, from: &Peer, to: &Peer) -> Outcome<Duration> {
        let file = format!("written-on-{}.txt", from.name);
        let path = repository(from).join(&file);
        std::fs::write(&path, format!("Hello from {}.\n", from.name))
            .map_err(|e| Failure::io("write", &path, &e, ""))?;
        self.git(from, &["add", "--", &file])?;
        let message = format!("Written on {}", from.name);
        self.git(from, &["commit", "--quiet", "-m", &message])?;
        let returned = Instant::now();
        let reference = self.git(from, &["symbolic-ref", "HEAD"])?;
        let commit = self.git(from, &["rev-parse", "HEAD"])?;
        let seen = self.await_reference(to, reference.trim(), commit.trim(), returned)?;
        from.wait()?;
        let log = self.git(to, &["log", "-1", "--format=%H %s"])?;
        if log.trim() != format!("{} {message}", commit.trim()) {
            return Err(broken(&format!("git log on {} shows {}", to.name, log.trim())));
        }
        self.is_clean(to)?;
        self.is_clean(from)?;
        Ok(seen)
    }

    fn await_reference(
        &self,
        peer: &Peer,
        reference: &str,
        commit: &str,
        since: Instant,
    ) -> Outcome<Duration> {
        let path = repository(peer).join(".git").join(reference);
        loop {
            if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit) {
                return Ok(since.elapsed());
            }
            if since.elapsed() > VISIBLE_DEADLINE {
                return Err(broken(&format!("the commit is not visible on {}", peer.name)));
            }
            self.stage.check_interrupted()?;
            std::thread::sleep(PAUSE);
        }
    }

    fn is_clean(&self, peer: &Peer) -> Outcome<()> {
        // Looking takes no lock: the other side may be about to.
        let changed = self.git(peer, &["--no-optional-locks", "status", "--porcelain"])?;
        let first = changed.lines().next();
        first.map_or(Ok(()), |line| {
            Err(broken(&format!("git status on {} is not clean: {line}", peer.name)))
        })
    }

    fn reads_on_b(&self) -> Outcome<u64> {
        Ok(self.stage.b().volume()?["requests"]["read"].as_u64().unwrap_or(0))
    }

    fn git(&self, peer: &Peer, args: &[&str]) -> Outcome<String> {
        self.stage.output(git(&repository(peer)).args(args))
    }
}

fn repository(peer: &Peer) -> PathBuf {
    peer.mount.join(NAME)
}

fn broken(what: &str) -> Failure {
    Failure::failed(
        what,
        "this is a fault of Lockstep: please report it, with both daemon.log files (--keep leaves them)",
    )
}
