//! One handler per kernel request: decode, call the volume, encode. What they share is in
//! [`super::adapter`].

use super::adapter::{Adapter, set_attributes};
use super::answer::{self, Answer, GENERATION, PlusListing};
use super::convert::{
    absent, appends, caller, fh, handle, node, rename_mode, set_time, takes_set_id,
};
use super::errno::errno;
use super::negotiate;
use super::requests::RequestKind;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use lockstep_vfs::SetAttr;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// Most bytes copied by one `copy_file_range` request; callers go on from there. A larger copy
/// would keep its caller unkillable for too long.
const COPY_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// A copy longer than this is not made on a worker.
const COPY_ON_WORKER_MAX_BYTES: u64 = 1024 * 1024;

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.volume.set_passing(negotiate::configure(config, self.passthrough));
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.count(RequestKind::Lookup, parent);
        match self.volume.lookup(node(parent), name.as_bytes()) {
            Err(lockstep_vfs::Errno::NoEntry) => reply.entry(&self.ttl, &absent(), GENERATION),
            result => self.entry(reply, result),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.count(RequestKind::Forget, ino);
        self.volume.forget(node(ino), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.count(RequestKind::Getattr, ino);
        answer::attr(reply, self.ttl, self.volume.getattr(node(ino)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        file: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.count(RequestKind::Setattr, ino);
        let (node, ttl, caller, file) = (node(ino), self.ttl, caller(req, 0), file.map(fh));
        let (atime, mtime) = (atime.map(set_time), mtime.map(set_time));
        let set = SetAttr { mode, uid, gid, size, atime, mtime };
        self.run(size.is_some() && self.volume.may_wait(node), move |volume| {
            answer::attr(reply, ttl, set_attributes(volume, &caller, node, file, set));
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.count(RequestKind::Readlink, ino);
        reply.answer(self.volume.readlink(node(ino)));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.count(RequestKind::Mknod, parent);
        let (caller, name) = (caller(req, umask), name.as_bytes());
        self.entry(reply, self.volume.mknod(&caller, node(parent), name, mode, rdev));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.count(RequestKind::Mkdir, parent);
        let caller = caller(req, umask);
        self.entry(reply, self.volume.mkdir(&caller, node(parent), name.as_bytes(), mode));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.count(RequestKind::Symlink, parent);
        let (name, target) = (link_name.as_bytes(), target.as_os_str().as_bytes());
        self.entry(reply, self.volume.symlink(&caller(req, 0), node(parent), name, target));
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.count(RequestKind::Link, ino);
        self.entry(reply, self.volume.link(node(ino), node(newparent), newname.as_bytes()));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.count(RequestKind::Unlink, parent);
        reply.answer(self.volume.unlink(node(parent), name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.count(RequestKind::Rmdir, parent);
        reply.answer(self.volume.rmdir(node(parent), name.as_bytes()));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.count(RequestKind::Rename, parent);
        let Some(mode) = rename_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (from, to) = (node(parent), node(newparent));
        let (name, newname) = (name.as_bytes(), newname.as_bytes());
        reply.answer(self.volume.rename(from, name, to, newname, mode));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.count(RequestKind::Create, parent);
        let (caller, mode) = (caller(req, umask), mode & 0o7777);
        let result = self.volume.create(&caller, node(parent), name.as_bytes(), mode, flags);
        self.created(reply, flags, result);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.count(RequestKind::Open, ino);
        self.opened(caller(req, 0), node(ino), flags.0, reply);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.count(RequestKind::Read, ino);
        let fh = fh(file);
        self.run(self.volume.may_wait_fh(fh), move |volume| {
            reply.answer(volume.read(fh, offset, size));
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.count(RequestKind::Write, ino);
        let (fh, append) = (fh(file), appends(flags));
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        if self.volume.may_wait_fh(fh) {
            let data = data.to_vec();
            self.run(true, move |v| reply.answer(v.write(fh, offset, &data, append, kill)));
        } else {
            reply.answer(self.volume.write(fh, offset, data, append, kill));
        }
    }

    fn flush(
        &self,
        _req: &Request,
        ino: INodeNo,
        file: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.count(RequestKind::Flush, ino);
        let fh = fh(file);
        self.run(self.volume.may_wait_fh(fh), move |volume| reply.answer(volume.flush(fh)));
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        file: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.count(RequestKind::Release, ino);
        let (fh, backings) = (fh(file), self.backings.clone());
        self.run(self.volume.may_wait_fh(fh), move |volume| {
            volume.release(fh);
            backings.release(ino, fh);
            reply.ok();
        });
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        file: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.count(RequestKind::Fsync, ino);
        let fh = fh(file);
        self.run(true, move |volume| reply.answer(volume.fsync(fh, datasync)));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count(RequestKind::Opendir, ino);
        match self.volume.open_dir(node(ino)) {
            Ok(fh) => {
                reply.opened(handle(fh), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE)
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        dir: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.count(RequestKind::Readdir, ino);
        self.list(ino, dir, offset, reply);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        dir: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.count(RequestKind::Readdirplus, ino);
        let (ttl, introduced) = (self.ttl, &self.introduced);
        self.list(ino, dir, offset, PlusListing { reply, ttl, introduced });
    }

    fn releasedir(
        &self,
        _req: &Request,
        ino: INodeNo,
        dir: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.count(RequestKind::Releasedir, ino);
        self.volume.release_dir(fh(dir));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _dir: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.count(RequestKind::Fsyncdir, ino);
        let node = node(ino);
        self.run(true, move |volume| reply.answer(volume.fsync_dir(node)));
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.count(RequestKind::Statfs, ino);
        reply.answer(self.volume.statfs());
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.count(RequestKind::Setxattr, ino);
        reply.answer(self.volume.set_xattr(node(ino), name.as_bytes(), value, flags));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.count(RequestKind::Getxattr, ino);
        answer::xattr(reply, size, self.volume.get_xattr(node(ino), name.as_bytes()));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.count(RequestKind::Listxattr, ino);
        let names = self.volume.list_xattrs(node(ino)).map(answer::xattr_names);
        answer::xattr(reply, size, names);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.count(RequestKind::Removexattr, ino);
        reply.answer(self.volume.remove_xattr(node(ino), name.as_bytes()));
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.count(RequestKind::Fallocate, ino);
        let (fh, kill) = (fh(file), takes_set_id(req));
        self.run(self.volume.may_wait_fh(fh), move |volume| {
            reply.answer(volume.fallocate(fh, mode, offset, length, kill));
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.count(RequestKind::Lseek, ino);
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let fh = fh(file);
        self.run(self.volume.may_wait_fh(fh), move |volume| {
            reply.answer(volume.lseek(fh, offset, whence));
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.count(RequestKind::CopyFileRange, ino_in);
        let (from, to, len) = (fh(fh_in), fh(fh_out), len.min(COPY_MAX_BYTES));
        let kill = takes_set_id(req);
        let long = len > COPY_ON_WORKER_MAX_BYTES;
        let may_wait = long || self.volume.may_wait_fh(from) || self.volume.may_wait_fh(to);
        self.run(may_wait, move |volume| {
            let copied = volume.copy_file_range((from, offset_in), (to, offset_out), len, kill);
            reply.answer(copied.map(|bytes| bytes.min(len) as u32));
        });
    }

    fn ioctl(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.count(RequestKind::Ioctl, ino);
        reply.error(Errno::ENOTTY);
    }

    // The kernel asks for these two once, is told they do not exist, and answers itself from then
    // on: a file is always ready, and its blocks have no place on a device.
    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }
}
