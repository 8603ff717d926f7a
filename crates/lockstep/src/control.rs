//! How commands reach the daemon: one JSON object per line over a Unix socket in the home, one line
//! back. The requests mirror the commands.
//!
//! Only the daemon's own user (and root) is served: the socket is 0600 in a 0700 directory, and the
//! kernel's word on who called is checked besides.

pub mod address;
pub mod caller;
pub mod listener;

use crate::errors::{Failure, Outcome};
use lockstep_vfs::Policy;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Longest request the daemon reads.
pub const LINE_MAX_BYTES: u64 = 64 * 1024;
/// Longest answer a command reads: a full trash is tens of thousands of lines.
pub const REPLY_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// What is asked of the daemon.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Is anybody there? Answered at once, even while volumes are still being opened.
    Ping,
    /// Create a volume from a directory and issue its first invite.
    Share {
        /// The directory, absolute.
        dir: PathBuf,
        /// Its name; the directory's own name if absent.
        name: Option<String>,
        /// Where it is shown and reached.
        place: Place,
    },
    /// Join the volume that an invite names.
    Join {
        /// The invite code.
        code: String,
        /// The directory for its plain files, absolute.
        dir: PathBuf,
        /// Where it is shown and reached.
        place: Place,
    },
    /// Everything about the volumes and their peers.
    Status,
    /// Wait until both sides have what was written before.
    Wait {
        /// Patience in milliseconds.
        timeout_ms: u64,
    },
    /// Another invite for a volume.
    Invite {
        /// Its name, or the beginning of its id.
        volume: String,
    },
    /// Take a volume's mount away; it stays shared.
    Unmount {
        /// Its name, or the beginning of its id.
        volume: String,
    },
    /// Whether both sides have the same, and the disk below holds what was written.
    Verify {
        /// One volume (its name, or the beginning of its id), else all.
        volume: Option<String>,
    },
    /// What both sides changed while apart.
    Conflicts,
    /// Settle a conflict.
    Resolve {
        /// The plain name or the copy, where users see it, absolute.
        path: PathBuf,
        /// Which version stays.
        keep: Side,
    },
    /// What is in the trash.
    TrashList {
        /// Of one volume (its name, or the beginning of its id), else of all.
        volume: Option<String>,
    },
    /// Put the newest version of a path back.
    TrashRestore {
        /// The path where users see it, absolute.
        path: PathBuf,
    },
    /// Remove everything from the trash for good.
    TrashEmpty {
        /// Of one volume (its name, or the beginning of its id), else of all.
        volume: Option<String>,
    },
    /// Fetch a path and everything below it, and keep it.
    Pin {
        /// The path where users see it, absolute.
        path: PathBuf,
    },
    /// Take a pin away.
    Unpin {
        /// The path where users see it, absolute.
        path: PathBuf,
    },
    /// Give up bytes that a connected peer keeps.
    Evict {
        /// The path where users see it, absolute.
        path: PathBuf,
    },
    /// Bring back whatever is not open or not mounted.
    Start,
    /// Flush, unmount, leave.
    Stop,
    /// The same, but only if nothing is shared.
    StopIfIdle,
}

impl Request {
    /// Whether it is answered in moments, so that it need not wait for commands that take long.
    pub fn is_brief(&self) -> bool {
        matches!(self, Request::Ping | Request::Status | Request::Stop)
    }
}

/// Whose version of a conflict is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// This machine's; the others go to the trash.
    Mine,
    /// The peer's; the others go to the trash.
    Theirs,
    /// Both, under the names they have.
    Both,
}

/// Where a volume is shown to its user, and where peers reach it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Mount point; the shared directory itself if absent.
    pub mount: Option<PathBuf>,
    /// Do not mount at all.
    pub no_mount: bool,
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// When contents come here.
    #[serde(default)]
    pub policy: Policy,
}

/// One line back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// What was asked for.
    Done(Value),
    /// Why not.
    Failed(Failure),
}

impl Reply {
    fn of(outcome: Outcome<Value>) -> Self {
        outcome.map_or_else(Reply::Failed, Reply::Done)
    }

    fn outcome(self) -> Outcome<Value> {
        match self {
            Reply::Done(value) => Ok(value),
            Reply::Failed(failure) => Err(failure),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_survive_the_line() {
        let request = Request::Share {
            dir: "/a b".into(),
            name: None,
            place: Place { listen: Some("127.0.0.1:0".parse().unwrap()), ..Place::default() },
        };
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);

        let failure = Failure::usage("two\nlines", "hint");
        let line = serde_json::to_string(&Reply::of(Err(failure.clone()))).unwrap();
        assert!(!line.contains('\n'));
        let reply: Reply = serde_json::from_str(&line).unwrap();
        assert_eq!(reply.outcome(), Err(failure));
    }
}
