//! Finding a place beneath a directory descriptor without ever following a symlink.
//!
//! `openat2(2)` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` opens the parent directory, and the
//! call proper takes that descriptor and the last name. Whoever swaps a directory for a symlink
//! meanwhile gains an error, never a file outside. Going through the descriptor is also what
//! keeps working once a filesystem is mounted over the directory's path.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Lockstep's own directory at the root of the backing tree.
pub(super) const PRIVATE_DIR: &str = ".lockstep";

/// Longest path handed to the kernel in one call (`PATH_MAX` less its NUL). Deeper trees are
/// walked in several steps.
const PATH_STEP_MAX_BYTES: usize = 4095;

/// For whom a place is looked up: decides what a path into the private directory answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something that should be there: `ENOENT`.
    Existing,
    /// A name to be made: `EPERM`.
    NewName,
}

/// A directory and a name in it: the arguments of the `*at` calls. The root is `.` in itself.
pub(super) struct Place<'r> {
    dir: Dir<'r>,
    name: CString,
}

enum Dir<'r> {
    Root(BorrowedFd<'r>),
    Opened(OwnedFd),
}

impl<'r> Place<'r> {
    /// The place that `path` names beneath `root`.
    pub(super) fn find(root: &'r OwnedFd, path: &Path, purpose: Purpose) -> io::Result<Place<'r>> {
        let parts = components(path, purpose)?;
        let Some((name, parents)) = parts.split_last() else {
            return Ok(Place { dir: Dir::Root(root.as_fd()), name: c".".into() });
        };
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
        if parents.is_empty() {
            return Ok(Place { dir: Dir::Root(root.as_fd()), name });
        }
        Ok(Place { dir: Dir::Opened(open_parents(root.as_fd(), parents)?), name })
    }

    /// The directory.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        match &self.dir {
            Dir::Root(fd) => *fd,
            Dir::Opened(fd) => fd.as_fd(),
        }
    }

    /// The name in it.
    pub(super) fn name(&self) -> &CString {
        &self.name
    }

    /// Opens the place itself, not what a symlink there points to.
    pub(super) fn open(&self, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        openat2_beneath(self.dir(), &self.name, flags | OFlags::NOFOLLOW, mode)
    }
}

/// Whether `path` lies in the private directory (or is it).
fn is_private(first: &OsStr) -> bool {
    first == PRIVATE_DIR
}

fn components(path: &Path, purpose: Purpose) -> io::Result<Vec<&OsStr>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            _ => return Err(Errno::INVAL.into()),
        }
    }
    match (parts.first(), purpose) {
        (Some(first), Purpose::Existing) if is_private(first) => Err(Errno::NOENT.into()),
        (Some(first), Purpose::NewName) if is_private(first) => Err(Errno::PERM.into()),
        _ => Ok(parts),
    }
}

/// Opens the directory `parents` beneath `root`, in as many steps as its length needs.
fn open_parents(root: BorrowedFd<'_>, parents: &[&OsStr]) -> io::Result<OwnedFd> {
    let mut opened: Option<OwnedFd> = None;
    let mut step = Vec::new();
    let mut rest = parents.iter().peekable();
    while let Some(part) = rest.next() {
        if !step.is_empty() {
            step.push(b'/');
        }
        step.extend_from_slice(part.as_bytes());
        let fits = rest.peek().is_some_and(|next| step.len() + next.len() < PATH_STEP_MAX_BYTES);
        if !fits {
            let from = opened.as_ref().map_or(root, |fd| fd.as_fd());
            opened = Some(openat2_beneath(
                from,
                &CString::new(std::mem::take(&mut step)).map_err(|_| Errno::INVAL)?,
                OFlags::PATH | OFlags::DIRECTORY,
                Mode::empty(),
            )?);
        }
    }
    Ok(opened.expect("callers pass at least one component, and the last one always opens"))
}

/// `openat2` that neither leaves `dir` nor follows any symlink.
pub(super) fn openat2_beneath(
    dir: BorrowedFd<'_>,
    path: &CString,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(dir, path.as_c_str(), flags | OFlags::CLOEXEC, mode, resolve)
}
