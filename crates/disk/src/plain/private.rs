//! A flat directory of Lockstep's own files below `.lockstep`: temporary files, kept files.

use super::beneath::openat2_beneath;
use super::file::PlainFile;
use super::open_for_writing;
use crate::disk::DiskFile;
use lockstep_core::EntryName;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// One such directory, reached only through its descriptor.
pub(super) struct PrivateDir {
    fd: OwnedFd,
}

impl PrivateDir {
    /// Opens the directory `name` in `parent`, making it (mode 0700) if it is missing.
    pub(super) fn open_or_make(parent: BorrowedFd<'_>, name: &str) -> io::Result<PrivateDir> {
        let name = CString::new(name)?;
        match rustix::fs::mkdirat(parent, name.as_c_str(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        Ok(PrivateDir { fd: openat2_beneath(parent, &name, flags, Mode::empty())? })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A new file, mode 0600.
    pub(super) fn create(&self, name: &str) -> io::Result<PlainFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(PlainFile::new(openat2_beneath(self.fd(), &checked(name)?, flags, mode)?))
    }

    /// A file in it.
    pub(super) fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let name = checked(name)?;
        let fd = open_for_writing(|flags| {
            openat2_beneath(self.fd(), &name, flags | OFlags::NOFOLLOW, Mode::empty())
        })?;
        Ok(Arc::new(PlainFile::new(fd)))
    }

    /// Removes a file or an empty directory.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let name = checked(name)?;
        match rustix::fs::unlinkat(self.fd(), name.as_c_str(), AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                Ok(rustix::fs::unlinkat(self.fd(), name.as_c_str(), AtFlags::REMOVEDIR)?)
            }
            done => Ok(done?),
        }
    }

    /// All names. Lockstep gives them, so they are UTF-8; others are not its own and left out.
    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Moves the file `name` from here to `to` in the directory `to_dir`.
    pub(super) fn move_out(
        &self,
        name: &str,
        to_dir: BorrowedFd<'_>,
        to: &CStr,
        flags: RenameFlags,
    ) -> io::Result<()> {
        let name = checked(name)?;
        Ok(rustix::fs::renameat_with(self.fd(), name.as_c_str(), to_dir, to, flags)?)
    }

    /// Moves `from` in the directory `from_dir` to here, as `name`, replacing nothing.
    pub(super) fn move_in(
        &self,
        from_dir: BorrowedFd<'_>,
        from: &CStr,
        name: &str,
    ) -> io::Result<()> {
        let name = checked(name)?;
        let flags = RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(from_dir, from, self.fd(), name.as_c_str(), flags)?)
    }

    /// Gives `from` in the directory `from_dir` a further name here.
    pub(super) fn link_in(
        &self,
        from_dir: BorrowedFd<'_>,
        from: &CStr,
        name: &str,
    ) -> io::Result<()> {
        let name = checked(name)?;
        Ok(rustix::fs::linkat(from_dir, from, self.fd(), name.as_c_str(), AtFlags::empty())?)
    }
}

fn checked(name: &str) -> io::Result<CString> {
    EntryName::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    CString::new(name).map_err(|_| Errno::INVAL.into())
}
