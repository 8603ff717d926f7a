//! The real disk: a directory held by a descriptor, so that it stays reachable when a filesystem
//! is mounted over it.

mod beneath;
mod entries;
mod file;
mod placeholder;
mod private;
mod xattr;

use beneath::{PRIVATE_DIR, Place, Purpose};
use private::PrivateDir;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

/// Name of the file that tries out what the backing filesystem can do.
const PROBE_NAME: &str = "probe";

/// Why a directory cannot be a backing tree.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is nothing at the path.
    #[error("{dir} does not exist; create it first (mkdir -p) or name another directory")]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// It is a file.
    #[error("{dir} is not a directory; name a directory to share")]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// Nothing can be made in it.
    #[error(
        "{dir} is not writable ({source}); fix its permissions, remount it read-write or free \
         space, then try again"
    )]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it as its backing tree.
    #[error(
        "{dir} is already in use by another Lockstep daemon; stop that one first \
         (lockstep stop), or name another directory"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A file is in the place of one of Lockstep's own directories.
    #[error(
        "{path} is in the way of a directory of Lockstep's own ({source}); move it away, then try \
         again"
    )]
    NameTaken {
        /// What is in the way.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel has no `openat2(2)`.
    #[error(
        "the kernel refuses openat2 ({source}), which keeps {dir} from being left through a \
         symlink; use Linux 5.6 or newer, or allow the call in the container's seccomp profile"
    )]
    OldKernel {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("{dir} cannot be opened: {source}; check the path and its permissions")]
    Unreachable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A backing tree in an ordinary directory.
///
/// Holds an exclusive lock on `.lockstep` as long as it lives, so that no second daemon works on
/// the same files.
pub struct PlainDisk {
    root: OwnedFd,
    temp: PrivateDir,
    kept: PrivateDir,
    features: Features,
    next_placeholder: AtomicU64,
    /// Its open file description carries the lock.
    claim: PrivateDir,
}

/// What the process and the backing filesystem do, tried out once when opening.
#[derive(Clone, Copy, Debug)]
struct Features {
    /// Creation takes the mode as it is given: there is no umask.
    exact_modes: bool,
    /// `user.*` attributes can be stored.
    user_xattrs: bool,
}

impl PlainDisk {
    /// Takes hold of `dir`, which must not have Lockstep's mount over it yet, and makes
    /// `.lockstep/tmp` and `.lockstep/keep` in it.
    ///
    /// The process's umask must not change afterwards. With a umask of 0 a creation is one system
    /// call, otherwise two.
    pub fn open(dir: &Path) -> Result<PlainDisk, DiskError> {
        let root = open_root(dir)?;
        let claim = claim(&root, dir)?;
        let not_writable = |source| DiskError::NotWritable { dir: dir.into(), source };
        let own = |name| {
            let made = PrivateDir::open_or_make(claim.fd(), name);
            made.map_err(|source| not_made(dir, &Path::new(PRIVATE_DIR).join(name), source))
        };
        let (temp, kept) = (own("tmp")?, own("keep")?);
        let features = try_features(&temp).map_err(not_writable)?;
        placeholder::remove_unfinished(&temp).map_err(not_writable)?;
        tracing::debug!(dir = %dir.display(), ?features, "backing tree opened");
        let next_placeholder = AtomicU64::new(0);
        Ok(PlainDisk { root, temp, kept, features, next_placeholder, claim })
    }

    fn existing(&self, path: &Path) -> io::Result<Place<'_>> {
        Place::find(&self.root, path, Purpose::Existing)
    }

    fn new_name(&self, path: &Path) -> io::Result<Place<'_>> {
        Place::find(&self.root, path, Purpose::NewName)
    }
}

/// Unlocks explicitly: a child process that is just being started holds a copy of every
/// descriptor for a moment, and the lock with it.
impl Drop for PlainDisk {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(self.claim.fd(), FlockOperation::Unlock) {
            tracing::warn!(%error, "backing tree not unlocked; closing it will");
        }
    }
}

fn open_root(dir: &Path) -> Result<OwnedFd, DiskError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, dir, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => DiskError::Missing { dir: dir.into() },
        Errno::NOTDIR => DiskError::NotADirectory { dir: dir.into() },
        _ => DiskError::Unreachable { dir: dir.into(), source: errno.into() },
    })
}

/// Opens `.lockstep`, making it if need be, and locks it.
fn claim(root: &OwnedFd, dir: &Path) -> Result<PrivateDir, DiskError> {
    let claim = PrivateDir::open_or_make(root.as_fd(), PRIVATE_DIR)
        .map_err(|source| not_made(dir, Path::new(PRIVATE_DIR), source))?;
    match rustix::fs::flock(claim.fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(claim),
        Err(Errno::WOULDBLOCK) => Err(DiskError::InUse { dir: dir.into() }),
        Err(errno) => Err(DiskError::Unreachable { dir: dir.into(), source: errno.into() }),
    }
}

/// Why the directory `name` of Lockstep's own cannot be made below `dir`.
fn not_made(dir: &Path, name: &Path, source: io::Error) -> DiskError {
    let (path, dir) = (dir.join(name), dir.to_owned());
    match Errno::from_io_error(&source) {
        Some(Errno::NOTDIR | Errno::LOOP) => DiskError::NameTaken { path, source },
        Some(Errno::NOSYS) => DiskError::OldKernel { dir, source },
        _ => DiskError::NotWritable { dir, source },
    }
}

fn try_features(temp: &PrivateDir) -> io::Result<Features> {
    match temp.remove(PROBE_NAME) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let probe = rustix::fs::openat(temp.fd(), PROBE_NAME, flags, Mode::from_raw_mode(0o777))?;
    let mode = rustix::fs::fstat(&probe)?.st_mode & 0o777;
    let tried = rustix::fs::fsetxattr(&probe, xattr::ABSENT_MARKER, b"1", XattrFlags::empty());
    temp.remove(PROBE_NAME)?;
    Ok(Features { exact_modes: mode == 0o777, user_xattrs: tried.is_ok() })
}

/// Opens a regular file for reading and writing, or for reading where writing is refused. Never
/// blocks, even if the file turns out to be a fifo.
fn open_for_writing(
    open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    match open(flags | OFlags::RDWR) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {
            open(flags | OFlags::RDONLY)
        }
        done => done,
    }
}
