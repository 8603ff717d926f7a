//! The backing tree of the simulated disk, as [`Disk`] offers it.

use super::disk::{Core, SimDisk, refused};
use super::file::SimFile;
use super::image::{Change, Inode, KEPT, Meta, ROOT, TEMP};
use lockstep_core::Timespec;
use lockstep_disk::{BackingStat, Disk, DiskFile, DiskUsage, FileType, RenameMode, XattrFlags};
use lockstep_vfs::Errno;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::Arc;

/// Marks a placeholder.
const ABSENT: &[u8] = b"user.lockstep.absent";
/// Says what the bytes of a file are meant to be.
pub const SEAL: &[u8] = b"user.lockstep.seal";
const OWN_PREFIX: &[u8] = b"user.lockstep.";
const PRIVATE_DIR: &[u8] = b".lockstep";
/// `ELOOP`: a symlink is in the way.
const LOOP: Errno = Errno::Other(40);
/// Size of the disk, in blocks.
const DISK_BLOCKS: u64 = 1 << 24;

/// A directory and a name in it.
type Place = (u64, Vec<u8>);

/// Finds the directory of `path` and its last name; `None` is the root.
fn place(core: &Core, path: &Path, private: Errno) -> io::Result<Option<Place>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.as_bytes()),
            _ => return Err(refused(Errno::Invalid)),
        }
    }
    if names.first() == Some(&PRIVATE_DIR) {
        return Err(refused(private));
    }
    let Some((last, above)) = names.split_last() else { return Ok(None) };
    let mut dir = ROOT;
    for name in above {
        dir = *core.inode(dir)?.entries.get(*name).ok_or_else(|| refused(Errno::NoEntry))?;
        match core.inode(dir)?.file_type {
            FileType::Dir => {}
            FileType::Symlink => return Err(refused(LOOP)),
            _ => return Err(refused(Errno::NotDir)),
        }
    }
    Ok(Some((dir, last.to_vec())))
}

fn existing(core: &Core, path: &Path) -> io::Result<(Place, u64)> {
    match place(core, path, Errno::NoEntry)? {
        None => Ok(((ROOT, Vec::new()), ROOT)),
        Some((dir, name)) => {
            let ino = standing(core, dir, &name)?;
            Ok(((dir, name), ino))
        }
    }
}

fn standing(core: &Core, dir: u64, name: &[u8]) -> io::Result<u64> {
    core.inode(dir)?.entries.get(name).copied().ok_or_else(|| refused(Errno::NoEntry))
}

fn new_name(core: &Core, path: &Path) -> io::Result<Place> {
    place(core, path, Errno::Perm)?.ok_or_else(|| refused(Errno::Exists))
}

impl SimDisk {
    fn inode_at<T>(&self, path: &Path, look: impl FnOnce(u64, &Inode) -> T) -> io::Result<T> {
        let core = self.reading()?;
        let (_, ino) = existing(&core, path)?;
        Ok(look(ino, core.inode(ino)?))
    }

    /// The bytes of the file at `path`, for a look from outside.
    pub fn bytes_at(&self, path: &Path) -> Option<Vec<u8>> {
        let core = self.core();
        let (_, ino) = existing(&core, path).ok()?;
        core.inode(ino).ok().map(Inode::bytes)
    }

    fn edit(&self, path: &Path, edit: impl FnOnce(&mut Meta)) -> io::Result<()> {
        let now = self.now();
        let mut core = self.changing()?;
        let (_, ino) = existing(&core, path)?;
        core.update(ino, |meta| {
            meta.ctime = now;
            edit(meta);
        })
    }

    /// Enters a new inode.
    fn make(&self, core: &mut Core, (dir, name): Place, inode: Inode) -> io::Result<u64> {
        if core.inode(dir)?.entries.contains_key(&name) {
            return Err(refused(Errno::Exists));
        }
        if core.is_full {
            return Err(refused(Errno::NoSpace));
        }
        let ino = core.live.free_number();
        let enter = Change::Enter { dir, name, ino };
        core.change(&[dir, ino], vec![Change::Make(ino, Box::new(inode)), enter]);
        Ok(ino)
    }

    fn make_at(&self, path: &Path, inode: Inode) -> io::Result<()> {
        let mut core = self.changing()?;
        let place = new_name(&core, path)?;
        self.make(&mut core, place, inode).map(drop)
    }

    fn open_ino(&self, core: &mut Core, ino: u64) -> io::Result<Arc<dyn DiskFile>> {
        match core.inode(ino)?.file_type {
            FileType::File => Ok(Arc::new(SimFile::new(self.clone(), core, ino))),
            FileType::Dir => Err(refused(Errno::IsDir)),
            FileType::Symlink => Err(refused(LOOP)),
            _ => Err(refused(Errno::NoSuchOffset)),
        }
    }

    fn make_file(&self, core: &mut Core, place: Place, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        let ino = self.make(core, place, Inode::new(FileType::File, mode, self.now()))?;
        self.open_ino(core, ino)
    }

    fn move_name(
        &self,
        core: &mut Core,
        from: Place,
        to: Place,
        mode: RenameMode,
    ) -> io::Result<()> {
        let ino = standing(core, from.0, &from.1)?;
        let replaced = standing(core, to.0, &to.1).ok();
        if replaced == Some(ino) {
            return Ok(());
        }
        let exchanged = replaced.filter(|_| mode == RenameMode::Exchange);
        if is_below(core, to.0, ino) || exchanged.is_some_and(|other| is_below(core, from.0, other))
        {
            return Err(refused(Errno::Invalid));
        }
        let leave = |(dir, name): &Place| Change::Leave { dir: *dir, name: name.clone() };
        let enter = |(dir, name): &Place, ino| Change::Enter { dir: *dir, name: name.clone(), ino };
        let mut changes = vec![leave(&from)];
        match (mode, replaced) {
            (RenameMode::NoReplace, Some(_)) => return Err(refused(Errno::Exists)),
            (RenameMode::Exchange, None) => return Err(refused(Errno::NoEntry)),
            (RenameMode::Exchange, Some(other)) => {
                changes.extend([leave(&to), enter(&from, other)]);
            }
            (_, Some(other)) => {
                may_replace(core.inode(ino)?, core.inode(other)?)?;
                changes.push(leave(&to));
                changes.extend(gone_dir(core.inode(other)?, other));
            }
            (_, None) => {}
        }
        changes.push(enter(&to, ino));
        let touches: Vec<u64> = [from.0, to.0, ino].into_iter().chain(replaced).collect();
        core.change(&touches, changes);
        replaced.into_iter().for_each(|other| core.free_if_gone(other));
        Ok(())
    }

    fn remove(&self, core: &mut Core, (dir, name): Place, is_dir: Option<bool>) -> io::Result<()> {
        let ino = standing(core, dir, &name)?;
        let inode = core.inode(ino)?;
        match (inode.file_type == FileType::Dir, is_dir) {
            (true, Some(false)) => return Err(refused(Errno::IsDir)),
            (false, Some(true)) => return Err(refused(Errno::NotDir)),
            (true, _) if !inode.entries.is_empty() => return Err(refused(Errno::NotEmpty)),
            _ => {}
        }
        let gone = gone_dir(inode, ino);
        let changes = [Change::Leave { dir, name }].into_iter().chain(gone).collect();
        core.change(&[dir, ino], changes);
        core.free_if_gone(ino);
        Ok(())
    }

    fn private(&self, dir: u64, name: &str) -> Place {
        (dir, name.as_bytes().to_vec())
    }

    fn names(&self, dir: u64) -> io::Result<Vec<String>> {
        let core = self.reading()?;
        let names = core.inode(dir)?.entries.keys();
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// A placeholder appears under its name at once: it is put together elsewhere.
    fn put_placeholder(&self, path: &Path, size: u64, mode: RenameMode) -> io::Result<()> {
        let mut core = self.changing()?;
        let place = new_name(&core, path)?;
        let mut inode = Inode::new(FileType::File, 0, self.now());
        inode.meta.xattrs.insert(ABSENT.to_vec(), b"1".to_vec());
        inode.size_bytes = size;
        let temp = self.private(TEMP, "placeholder-0");
        self.make(&mut core, temp.clone(), inode)?;
        let moved = self.move_name(&mut core, temp.clone(), place, mode);
        if moved.is_err() {
            self.remove(&mut core, temp, Some(false))?;
        }
        moved
    }
}

/// Whether the directory `dir` is `top` or somewhere in it.
fn is_below(core: &Core, dir: u64, top: u64) -> bool {
    let Some(inode) = core.live.0.get(&top) else { return false };
    dir == top || inode.entries.values().any(|child| is_below(core, dir, *child))
}

/// The links of a directory that is removed: it counts itself.
fn gone_dir(inode: &Inode, ino: u64) -> Option<Change> {
    (inode.file_type == FileType::Dir).then_some(Change::Free(ino))
}

fn may_replace(moved: &Inode, other: &Inode) -> io::Result<()> {
    match (moved.file_type == FileType::Dir, other.file_type == FileType::Dir) {
        (true, false) => Err(refused(Errno::NotDir)),
        (false, true) => Err(refused(Errno::IsDir)),
        (true, true) if !other.entries.is_empty() => Err(refused(Errno::NotEmpty)),
        _ => Ok(()),
    }
}

fn file_type(mode: u32) -> FileType {
    match mode & 0o170_000 {
        0o010_000 => FileType::Fifo,
        0o140_000 => FileType::Socket,
        0o020_000 => FileType::CharDevice,
        0o060_000 => FileType::BlockDevice,
        _ => FileType::File,
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mut core = self.changing()?;
        let place = new_name(&core, path)?;
        self.make_file(&mut core, place, mode)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut core = self.reading()?;
        let (_, ino) = existing(&core, path)?;
        self.open_ino(&mut core, ino)
    }

    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let inode = Inode { nlink: 1, ..Inode::new(FileType::Dir, mode, self.now()) };
        self.make_at(path, inode)
    }

    fn symlink(&self, target: &[u8], path: &Path) -> io::Result<()> {
        let inode = Inode::new(FileType::Symlink, 0o777, self.now());
        self.make_at(path, Inode { target: target.to_vec(), ..inode })
    }

    fn mknod(&self, path: &Path, mode: u32, rdev: u64) -> io::Result<()> {
        let inode = Inode::new(file_type(mode), mode & 0o7777, self.now());
        self.make_at(path, Inode { rdev, ..inode })
    }

    fn link(&self, from: &Path, new: &Path) -> io::Result<()> {
        let mut core = self.changing()?;
        let (_, ino) = existing(&core, from)?;
        let (dir, name) = new_name(&core, new)?;
        if core.inode(dir)?.entries.contains_key(&name) {
            return Err(refused(Errno::Exists));
        }
        core.change(&[dir, ino], vec![Change::Enter { dir, name, ino }]);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut core = self.changing()?;
        let (place, _) = existing(&core, path)?;
        self.remove(&mut core, place, Some(false))
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        let mut core = self.changing()?;
        let (place, _) = existing(&core, path)?;
        self.remove(&mut core, place, Some(true))
    }

    fn rename(&self, from: &Path, to: &Path, mode: RenameMode) -> io::Result<()> {
        let mut core = self.changing()?;
        let ((from, _), to) = (existing(&core, from)?, new_name(&core, to)?);
        self.move_name(&mut core, from, to, mode)
    }

    fn stat(&self, path: &Path) -> io::Result<BackingStat> {
        self.inode_at(path, |ino, inode| inode.stat(ino))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<(Vec<u8>, BackingStat)>> {
        let core = self.reading()?;
        let (_, dir) = existing(&core, path)?;
        let dir = core.inode(dir)?;
        if dir.file_type != FileType::Dir {
            return Err(refused(Errno::NotDir));
        }
        let entry =
            |(name, ino): (&Vec<u8>, &u64)| Ok((name.clone(), core.inode(*ino)?.stat(*ino)));
        dir.entries.iter().map(entry).collect()
    }

    fn readlink(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.inode_at(path, |_, inode| inode.target.clone())
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        if self.stat(path)?.file_type == FileType::Symlink {
            return Ok(());
        }
        self.edit(path, |meta| meta.mode = mode & 0o7777)
    }

    fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        self.edit(path, |meta| meta.own(uid, gid))
    }

    fn set_times(&self, path: &Path, atime: Timespec, mtime: Timespec) -> io::Result<()> {
        self.edit(path, |meta| (meta.atime, meta.mtime) = (atime, mtime))
    }

    fn get_xattr(&self, path: &Path, name: &[u8]) -> io::Result<Vec<u8>> {
        let found = self.inode_at(path, |_, inode| inode.meta.xattrs.get(name).cloned())?;
        let found = found.filter(|_| !name.starts_with(OWN_PREFIX));
        found.ok_or_else(|| refused(Errno::NoData))
    }

    fn set_xattr(
        &self,
        path: &Path,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> io::Result<()> {
        if name.starts_with(OWN_PREFIX) {
            return Err(refused(Errno::Perm));
        }
        let exists = self.inode_at(path, |_, inode| inode.meta.xattrs.contains_key(name))?;
        match (flags, exists) {
            (XattrFlags::Create, true) => return Err(refused(Errno::Exists)),
            (XattrFlags::Replace, false) => return Err(refused(Errno::NoData)),
            _ => {}
        }
        self.edit(path, |meta| drop(meta.xattrs.insert(name.to_vec(), value.to_vec())))
    }

    fn list_xattrs(&self, path: &Path) -> io::Result<Vec<Vec<u8>>> {
        self.inode_at(path, |_, inode| {
            let names = inode.meta.xattrs.keys().filter(|name| !name.starts_with(OWN_PREFIX));
            names.cloned().collect()
        })
    }

    fn remove_xattr(&self, path: &Path, name: &[u8]) -> io::Result<()> {
        self.get_xattr(path, name)?;
        self.edit(path, |meta| drop(meta.xattrs.remove(name)))
    }

    fn statfs(&self) -> io::Result<DiskUsage> {
        let core = self.reading()?;
        let free = if core.is_full { 0 } else { DISK_BLOCKS / 2 };
        Ok(DiskUsage {
            block_size_bytes: 4096,
            fragment_size_bytes: 4096,
            blocks: DISK_BLOCKS,
            blocks_free: free,
            blocks_available: free,
            files: DISK_BLOCKS,
            files_free: free,
            files_available: free,
            name_max_bytes: 255,
        })
    }

    fn mounting(&self) -> io::Result<Vec<u8>> {
        Ok(self.reading()?.cuts.to_le_bytes().to_vec())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.changing()?.sync_all();
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut core = self.changing()?;
        let (_, ino) = existing(&core, path)?;
        core.sync(ino);
        Ok(())
    }

    fn temp_create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut core = self.changing()?;
        self.make_file(&mut core, self.private(TEMP, name), 0o600)
    }

    fn temp_open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut core = self.reading()?;
        let ino = standing(&core, TEMP, name.as_bytes())?;
        self.open_ino(&mut core, ino)
    }

    fn temp_remove(&self, name: &str) -> io::Result<()> {
        let mut core = self.changing()?;
        self.remove(&mut core, self.private(TEMP, name), None)
    }

    fn temp_list(&self) -> io::Result<Vec<String>> {
        self.names(TEMP)
    }

    fn temp_install(&self, name: &str, path: &Path) -> io::Result<()> {
        let mut core = self.changing()?;
        let to = new_name(&core, path)?;
        self.move_name(&mut core, self.private(TEMP, name), to, RenameMode::Replace)
    }

    fn keep(&self, path: &Path, name: &str) -> io::Result<()> {
        let mut core = self.changing()?;
        let (from, _) = existing(&core, path)?;
        self.move_name(&mut core, from, self.private(KEPT, name), RenameMode::NoReplace)
    }

    fn keep_link(&self, path: &Path, name: &str) -> io::Result<()> {
        let mut core = self.changing()?;
        let (_, ino) = existing(&core, path)?;
        let (dir, name) = self.private(KEPT, name);
        if core.inode(dir)?.entries.contains_key(&name) {
            return Err(refused(Errno::Exists));
        }
        core.change(&[dir, ino], vec![Change::Enter { dir, name, ino }]);
        Ok(())
    }

    fn keep_copy(&self, path: &Path, name: &str) -> io::Result<()> {
        let source = self.open(path)?;
        let copy = {
            let mut core = self.changing()?;
            self.make_file(&mut core, self.private(KEPT, name), 0o600)?
        };
        source.copy_all_to(&*copy).map(drop)
    }

    fn keep_restore(&self, name: &str, path: &Path) -> io::Result<()> {
        let mut core = self.changing()?;
        let to = new_name(&core, path)?;
        self.move_name(&mut core, self.private(KEPT, name), to, RenameMode::NoReplace)
    }

    fn keep_open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut core = self.reading()?;
        let ino = standing(&core, KEPT, name.as_bytes())?;
        self.open_ino(&mut core, ino)
    }

    fn keep_remove(&self, name: &str) -> io::Result<()> {
        let mut core = self.changing()?;
        self.remove(&mut core, self.private(KEPT, name), None)
    }

    fn keep_list(&self) -> io::Result<Vec<String>> {
        self.names(KEPT)
    }

    fn placeholder(&self, path: &Path, size: u64) -> io::Result<()> {
        self.put_placeholder(path, size, RenameMode::NoReplace)
    }

    fn replace_by_placeholder(&self, path: &Path, size: u64) -> io::Result<()> {
        self.put_placeholder(path, size, RenameMode::Replace)
    }

    fn is_placeholder(&self, path: &Path) -> io::Result<bool> {
        self.inode_at(path, |_, inode| is_placeholder(inode))
    }

    fn seal(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.inode_at(path, |_, inode| inode.meta.xattrs.get(SEAL).cloned())
    }
}

/// Whether it stands for absent content.
pub fn is_placeholder(inode: &Inode) -> bool {
    inode.meta.mode == 0 && inode.meta.xattrs.contains_key(ABSENT)
}
