//! Extended attributes of a place, of whatever kind, without following a symlink there.
//!
//! No call takes a directory descriptor and a name, and an `O_PATH` descriptor is refused by the
//! `f*xattr` calls; but `/proc/self/fd/N` of such a descriptor *is* the file, even a symlink.

use super::beneath::Place;
use crate::disk::XattrFlags;
use lockstep_core::limits::XATTR_VALUE_MAX_BYTES;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Marks a file that stands for absent content.
pub(super) const ABSENT_MARKER: &[u8] = b"user.lockstep.absent";
/// Says what the bytes of a file are meant to be.
const SEAL: &[u8] = b"user.lockstep.seal";
/// Attributes with this prefix are Lockstep's own and do not exist for anybody else.
const OWN_PREFIX: &[u8] = b"user.lockstep.";

/// First size to try when reading a value or a list of names.
const FIRST_BUFFER_BYTES: usize = 512;
/// Longest list of names (`XATTR_LIST_MAX`).
const LIST_MAX_BYTES: usize = 65_536;

/// A file opened only to be named: works for every kind, needs no permission on the file.
pub(super) struct Named {
    fd: OwnedFd,
}

impl Named {
    pub(super) fn open(place: &Place<'_>) -> io::Result<Named> {
        Ok(Named { fd: place.open(OFlags::PATH, Mode::empty())? })
    }

    /// A path that leads to exactly this file.
    pub(super) fn proc_path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn get(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        if is_own(name) {
            return Err(Errno::NODATA.into());
        }
        let (path, name) = (self.proc_path(), checked(name)?);
        read_growing(XATTR_VALUE_MAX_BYTES, |buf| {
            rustix::fs::getxattr(path.as_str(), name.as_c_str(), buf)
        })
    }

    /// The seal, if there is one.
    pub(super) fn seal(&self) -> io::Result<Option<Vec<u8>>> {
        let (path, name) = (self.proc_path(), checked(SEAL)?);
        let read = read_growing(XATTR_VALUE_MAX_BYTES, |buf| {
            rustix::fs::getxattr(path.as_str(), name.as_c_str(), buf)
        });
        match read {
            Ok(seal) => Ok(Some(seal)),
            Err(error) if has_none(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> io::Result<()> {
        if is_own(name) {
            return Err(Errno::PERM.into());
        }
        let flags = match flags {
            XattrFlags::Any => rustix::fs::XattrFlags::empty(),
            XattrFlags::Create => rustix::fs::XattrFlags::CREATE,
            XattrFlags::Replace => rustix::fs::XattrFlags::REPLACE,
        };
        Ok(rustix::fs::setxattr(self.proc_path(), checked(name)?.as_c_str(), value, flags)?)
    }

    pub(super) fn remove(&self, name: &[u8]) -> io::Result<()> {
        if is_own(name) {
            return Err(Errno::NODATA.into());
        }
        Ok(rustix::fs::removexattr(self.proc_path(), checked(name)?.as_c_str())?)
    }

    /// All names, Lockstep's own among them.
    pub(super) fn list_with_own(&self) -> io::Result<Vec<Vec<u8>>> {
        let path = self.proc_path();
        let names = read_growing(LIST_MAX_BYTES, |buf| rustix::fs::listxattr(path.as_str(), buf))?;
        let names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    /// All names but Lockstep's own.
    pub(super) fn list(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = self.list_with_own()?;
        names.retain(|name| !is_own(name));
        Ok(names)
    }
}

/// Sets the seal of an open file, or breaks it.
pub(super) fn set_seal(file: impl AsFd, seal: Option<&[u8]>) -> io::Result<()> {
    let name = checked(SEAL)?;
    let done = match seal {
        Some(seal) => {
            rustix::fs::fsetxattr(file, name.as_c_str(), seal, rustix::fs::XattrFlags::empty())
        }
        None => rustix::fs::fremovexattr(file, name.as_c_str()),
    };
    match done.map_err(io::Error::from) {
        Err(error) if !has_none(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the attribute is not there, or none can be.
fn has_none(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NODATA | Errno::NOTSUP))
}

fn is_own(name: &[u8]) -> bool {
    name.starts_with(OWN_PREFIX)
}

fn checked(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| Errno::INVAL.into())
}

/// Reads with a small buffer first and with the largest possible one if that was too small.
fn read_growing(
    largest: usize,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; FIRST_BUFFER_BYTES];
    let len = match read(&mut buf) {
        Err(Errno::RANGE) => {
            buf.resize(largest, 0);
            read(&mut buf)?
        }
        done => done?,
    };
    buf.truncate(len);
    Ok(buf)
}
