//! What can go wrong with the state database, in terms of what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why the state database cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it open.
    #[error(
        "the state database in {dir} is in use by another process; stop the other Lockstep \
         daemon first (lockstep stop)"
    )]
    Locked {
        /// The database's directory.
        dir: PathBuf,
    },
    /// Its files make no sense.
    #[error(
        "the state database in {dir} is damaged ({source}); the shared files themselves are not \
         in it: move that directory away, then share or join the volume again"
    )]
    Corrupt {
        /// The database's directory.
        dir: PathBuf,
        /// What is wrong.
        source: Fault,
    },
    /// Written in a format this build does not know.
    #[error(
        "the state database in {dir} was written by another version of Lockstep ({source}); run \
         that version"
    )]
    Format {
        /// The database's directory.
        dir: PathBuf,
        /// What was found.
        source: Fault,
    },
    /// The system refuses access to its files.
    #[error(
        "the state database in {dir} cannot be opened: {source}; check that the directory is \
         readable and writable and that its disk is healthy and not full"
    )]
    Unreadable {
        /// The database's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A read or write failed; nothing committed before is lost.
    #[error(
        "the state database in {dir} failed: {source}; free space or repair the disk, it \
         recovers by itself"
    )]
    Failed {
        /// The database's directory.
        dir: PathBuf,
        /// What the system or the database said.
        source: Fault,
    },
}

/// An error of the database engine, kept from the interface of this crate.
#[derive(Debug)]
pub struct Fault(pub(super) Cause);

#[derive(Debug)]
pub(super) enum Cause {
    Engine(fjall::Error),
    Io(io::Error),
    Shape(&'static str),
}

impl Fault {
    /// The database contains something this crate never wrote.
    pub(super) fn shape(what: &'static str) -> Fault {
        Fault(Cause::Shape(what))
    }
}

impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Fault {
        match error {
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => {
                Fault(Cause::Io(io))
            }
            other => Fault(Cause::Engine(other)),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault(Cause::Io(error))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Engine(error) => error.fmt(f),
            Cause::Io(error) => error.fmt(f),
            Cause::Shape(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Cause::Engine(error) => Some(error),
            Cause::Io(error) => Some(error),
            Cause::Shape(_) => None,
        }
    }
}

impl StateError {
    /// Whether the database's files are damaged: moving them aside and rebuilding helps.
    pub fn is_damage(&self) -> bool {
        matches!(self, StateError::Corrupt { .. })
    }

    /// The system's error number, if the system refused: a full disk is `ENOSPC`.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            StateError::Unreadable { source, .. } => source.raw_os_error(),
            StateError::Corrupt { source, .. }
            | StateError::Format { source, .. }
            | StateError::Failed { source, .. } => match &source.0 {
                Cause::Io(error) => error.raw_os_error(),
                Cause::Engine(_) | Cause::Shape(_) => None,
            },
            StateError::Locked { .. } => None,
        }
    }

    /// What a fault means when it comes from opening.
    pub(super) fn opening(dir: &Path, fault: Fault) -> StateError {
        let dir = dir.to_owned();
        match fault.0 {
            Cause::Engine(fjall::Error::Locked) => StateError::Locked { dir },
            Cause::Engine(fjall::Error::InvalidVersion(Some(_))) => {
                StateError::Format { dir, source: fault }
            }
            // The engine names its files itself: one that is missing or ends early was damaged
            // (an empty one fails a seek with EINVAL).
            Cause::Io(ref e) if is_damage(e) => StateError::Corrupt { dir, source: fault },
            Cause::Io(source) => StateError::Unreadable { dir, source },
            Cause::Engine(_) | Cause::Shape(_) => StateError::Corrupt { dir, source: fault },
        }
    }

    /// What a fault means when it comes from a database that was opened before.
    pub(super) fn using(dir: &Path, fault: Fault) -> StateError {
        let dir = dir.to_owned();
        match fault.0 {
            Cause::Shape(_) | Cause::Engine(fjall::Error::Storage(_)) => {
                StateError::Corrupt { dir, source: fault }
            }
            Cause::Engine(_) | Cause::Io(_) => StateError::Failed { dir, source: fault },
        }
    }
}

fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
    use io::ErrorKind::{IsADirectory, NotADirectory};
    matches!(error.kind(), NotFound | UnexpectedEof | InvalidData | InvalidInput | AlreadyExists)
        || matches!(error.kind(), IsADirectory | NotADirectory)
}
