//! Each operation of the real disk: find the place, make the call.

use super::beneath::{PRIVATE_DIR, Place};
use super::file::{PlainFile, owner, timestamps};
use super::xattr::Named;
use super::{PlainDisk, open_for_writing, placeholder};
use crate::disk::{Disk, DiskFile, RenameMode, XattrFlags};
use crate::stat::{BackingStat, DiskUsage, FileType};
use lockstep_core::Timespec;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RawMode, RenameFlags, StatxFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

pub(super) const WANTED: StatxFlags = BackingStat::WANTED;

/// `STATX_MNT_ID_UNIQUE`, statx(2).
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
/// Random for each boot, proc_sys_kernel(5).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Permission bits that `mkdir` and `mknod` never take from their mode.
const SPECIAL_BITS: u32 = 0o6000;

impl Disk for PlainDisk {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        let place = self.new_name(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = PlainFile::new(place.open(flags, permissions(mode))?);
        if !self.features.exact_modes {
            file.set_mode(mode)?;
        }
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let place = self.existing(path)?;
        let fd = open_for_writing(|flags| place.open(flags, Mode::empty()))?;
        Ok(Arc::new(PlainFile::new(fd)))
    }

    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let place = self.new_name(path)?;
        rustix::fs::mkdirat(place.dir(), place.name().as_c_str(), permissions(mode))?;
        self.set_exact_mode(&place, mode)
    }

    fn symlink(&self, target: &[u8], path: &Path) -> io::Result<()> {
        let place = self.new_name(path)?;
        Ok(rustix::fs::symlinkat(target, place.dir(), place.name().as_c_str())?)
    }

    fn mknod(&self, path: &Path, mode: u32, rdev: u64) -> io::Result<()> {
        let place = self.new_name(path)?;
        let kind = rustix::fs::FileType::from_raw_mode(mode);
        let name = place.name().as_c_str();
        rustix::fs::mknodat(place.dir(), name, kind, permissions(mode), rdev)?;
        self.set_exact_mode(&place, mode)
    }

    fn link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let (from, to) = (self.existing(existing)?, self.new_name(new)?);
        let (from_name, to_name) = (from.name().as_c_str(), to.name().as_c_str());
        Ok(rustix::fs::linkat(from.dir(), from_name, to.dir(), to_name, AtFlags::empty())?)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let place = self.existing(path)?;
        Ok(rustix::fs::unlinkat(place.dir(), place.name().as_c_str(), AtFlags::empty())?)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        let place = self.existing(path)?;
        Ok(rustix::fs::unlinkat(place.dir(), place.name().as_c_str(), AtFlags::REMOVEDIR)?)
    }

    fn rename(&self, from: &Path, to: &Path, mode: RenameMode) -> io::Result<()> {
        let (from, to) = (self.existing(from)?, self.new_name(to)?);
        let flags = match mode {
            RenameMode::Replace => RenameFlags::empty(),
            RenameMode::NoReplace => RenameFlags::NOREPLACE,
            RenameMode::Exchange => RenameFlags::EXCHANGE,
        };
        let (from_name, to_name) = (from.name().as_c_str(), to.name().as_c_str());
        Ok(rustix::fs::renameat_with(from.dir(), from_name, to.dir(), to_name, flags)?)
    }

    fn stat(&self, path: &Path) -> io::Result<BackingStat> {
        let place = self.existing(path)?;
        Ok(stat_at(place.dir(), place.name())?)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(Vec<u8>, BackingStat)>> {
        let dir = self.open_dir(path)?;
        let at_root = path.components().next().is_none();
        let mut entries = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            let hidden = at_root && bytes == PRIVATE_DIR.as_bytes();
            if hidden || matches!(bytes, b"." | b"..") {
                continue;
            }
            match stat_at(dir.as_fd(), name) {
                Ok(stat) => entries.push((bytes.to_vec(), stat)),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(entries)
    }

    fn readlink(&self, path: &Path) -> io::Result<Vec<u8>> {
        let place = self.existing(path)?;
        let target = rustix::fs::readlinkat(place.dir(), place.name().as_c_str(), Vec::new())?;
        Ok(target.into_bytes())
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        set_mode_at(&self.existing(path)?, mode)
    }

    fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        let place = self.existing(path)?;
        let (uid, gid) = owner(uid, gid);
        let name = place.name().as_c_str();
        Ok(rustix::fs::chownat(place.dir(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_times(&self, path: &Path, atime: Timespec, mtime: Timespec) -> io::Result<()> {
        let place = self.existing(path)?;
        let (name, times) = (place.name().as_c_str(), timestamps(atime, mtime));
        Ok(rustix::fs::utimensat(place.dir(), name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn get_xattr(&self, path: &Path, name: &[u8]) -> io::Result<Vec<u8>> {
        Named::open(&self.existing(path)?)?.get(name)
    }

    fn set_xattr(
        &self,
        path: &Path,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> io::Result<()> {
        Named::open(&self.existing(path)?)?.set(name, value, flags)
    }

    fn list_xattrs(&self, path: &Path) -> io::Result<Vec<Vec<u8>>> {
        Named::open(&self.existing(path)?)?.list()
    }

    fn remove_xattr(&self, path: &Path, name: &[u8]) -> io::Result<()> {
        Named::open(&self.existing(path)?)?.remove(name)
    }

    fn statfs(&self) -> io::Result<DiskUsage> {
        Ok(DiskUsage::from_statvfs(&rustix::fs::fstatvfs(&self.root)?))
    }

    fn mounting(&self) -> io::Result<Vec<u8>> {
        // Kernels before 6.8 do not number mounts for good; then the boot has to do.
        let unique = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
        let stat = rustix::fs::statx(&self.root, c"", AtFlags::EMPTY_PATH, unique)?;
        let number = if stat.stx_mask & STATX_MNT_ID_UNIQUE == 0 { 0 } else { stat.stx_mnt_id };
        let mut name = std::fs::read(BOOT_ID)?;
        name.extend(number.to_le_bytes());
        Ok(name)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(self.temp.fd())?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.open_dir(path)?)?)
    }

    fn temp_create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.temp.create(name)?))
    }

    fn temp_open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.temp.open(name)
    }

    fn temp_remove(&self, name: &str) -> io::Result<()> {
        self.temp.remove(name)
    }

    fn temp_list(&self) -> io::Result<Vec<String>> {
        self.temp.list()
    }

    fn temp_install(&self, name: &str, path: &Path) -> io::Result<()> {
        let place = self.new_name(path)?;
        self.temp.move_out(name, place.dir(), place.name(), RenameFlags::empty())
    }

    fn keep(&self, path: &Path, name: &str) -> io::Result<()> {
        let place = self.existing(path)?;
        self.kept.move_in(place.dir(), place.name(), name)
    }

    fn keep_link(&self, path: &Path, name: &str) -> io::Result<()> {
        let place = self.existing(path)?;
        self.kept.link_in(place.dir(), place.name(), name)
    }

    fn keep_copy(&self, path: &Path, name: &str) -> io::Result<()> {
        self.open(path)?.copy_all_to(&self.kept.create(name)?).map(drop)
    }

    fn keep_restore(&self, name: &str, path: &Path) -> io::Result<()> {
        let place = self.new_name(path)?;
        self.kept.move_out(name, place.dir(), place.name(), RenameFlags::NOREPLACE)
    }

    fn keep_open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.kept.open(name)
    }

    fn keep_remove(&self, name: &str) -> io::Result<()> {
        self.kept.remove(name)
    }

    fn keep_list(&self) -> io::Result<Vec<String>> {
        self.kept.list()
    }

    fn placeholder(&self, path: &Path, size: u64) -> io::Result<()> {
        placeholder::make(self, &self.new_name(path)?, size, RenameFlags::NOREPLACE)
    }

    fn replace_by_placeholder(&self, path: &Path, size: u64) -> io::Result<()> {
        placeholder::make(self, &self.new_name(path)?, size, RenameFlags::empty())
    }

    fn is_placeholder(&self, path: &Path) -> io::Result<bool> {
        placeholder::is_at(self, &self.existing(path)?)
    }

    fn seal(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Named::open(&self.existing(path)?)?.seal()
    }
}

impl PlainDisk {
    /// Opens a directory for reading its entries.
    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok(self.existing(path)?.open(flags, Mode::empty())?)
    }

    /// Repairs what the umask took from a new entry's mode.
    fn set_exact_mode(&self, place: &Place<'_>, mode: u32) -> io::Result<()> {
        if self.features.exact_modes && mode & SPECIAL_BITS == 0 {
            return Ok(());
        }
        set_mode_at(place, mode)
    }
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & 0o7777) as RawMode)
}

fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<BackingStat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, WANTED).map(|raw| BackingStat::from_statx(&raw))
}

/// `fchmodat` follows symlinks; a descriptor of the entry itself does not.
fn set_mode_at(place: &Place<'_>, mode: u32) -> io::Result<()> {
    let named = Named::open(place)?;
    let raw = rustix::fs::statx(named.fd(), c"", AtFlags::EMPTY_PATH, WANTED)?;
    if BackingStat::from_statx(&raw).file_type == FileType::Symlink {
        return Ok(());
    }
    Ok(rustix::fs::chmod(named.proc_path(), permissions(mode))?)
}
