//! Between the kernel's words and the volume's: attributes, times, callers, flags.

use fuser::{FileAttr, FileType, INodeNo, OpenFlags, RenameFlags, Request, TimeOrNow};
use lockstep_core::{Kind, NodeId, Timespec};
use lockstep_vfs::{Caller, Fh, RenameMode, SetAttr, SetTime, Stat};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What `st_blksize` says: the unit in which tools like `cp` read.
const BLOCK_SIZE_BYTES: u32 = 4096;
const NANOS_MAX: u32 = 999_999_999;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// The node the kernel calls `ino`: the same number.
pub fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

/// The handle the kernel was given.
pub fn fh(handle: fuser::FileHandle) -> Fh {
    Fh(handle.0)
}

/// The handle as the kernel keeps it.
pub fn handle(fh: Fh) -> fuser::FileHandle {
    fuser::FileHandle(fh.0)
}

/// Who asks. Requests that create nothing carry no umask and pass 0.
pub fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask }
}

/// What `stat` shows.
pub fn attributes(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.node.0),
        size: stat.size_bytes,
        blocks: stat.blocks,
        atime: system_time(stat.times.atime),
        mtime: system_time(stat.times.mtime),
        ctime: system_time(stat.times.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(stat),
        perm: stat.perm.mode,
        nlink: stat.nlink,
        uid: stat.perm.uid,
        gid: stat.perm.gid,
        rdev: stat.device.map_or(0, |device| device.rdev),
        blksize: BLOCK_SIZE_BYTES,
        flags: 0,
    }
}

/// The answer "no such name", to be remembered: node 0.
pub fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The kernel's word for what a node is on this machine.
pub fn file_type(stat: &Stat) -> FileType {
    match stat.kind {
        _ if stat.device.is_some_and(|device| device.is_block) => FileType::BlockDevice,
        _ if stat.device.is_some() => FileType::CharDevice,
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

/// Times before 1970 included; nanoseconds always count forwards.
fn system_time(time: Timespec) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos.min(NANOS_MAX)));
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let whole =
        if time.secs < 0 { UNIX_EPOCH.checked_sub(secs) } else { UNIX_EPOCH.checked_add(secs) };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// Undoes fuser's decoding, which before 1970 takes seconds *and* nanoseconds off the epoch
/// although nanoseconds count forwards (`system_time_from_time`, fuser 0.18).
fn timespec(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timespec { secs: after.as_secs() as i64, nanos: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Timespec {
                secs: 0i64.saturating_sub_unsigned(before.as_secs()),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

/// A time to be set.
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timespec(time)),
    }
}

/// `renameat2` flags; `None` for those without a meaning here (`RENAME_WHITEOUT`, unknown ones).
pub fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    match flags.bits() {
        0 => Some(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

/// Whether writes go to the end of the file, wherever that is.
pub fn appends(flags: OpenFlags) -> bool {
    flags.0 & libc::O_APPEND != 0
}

/// Whether nothing can be written through a descriptor opened so.
pub fn reads_only(flags: i32) -> bool {
    flags & libc::O_ACCMODE == libc::O_RDONLY
}

/// Whether a change of bytes by who asks takes setuid and setgid bits: uid 0 stands for
/// `CAP_FSETID`, where the kernel does not say.
pub fn takes_set_id(request: &Request) -> bool {
    request.uid() != 0
}

/// The permission bits left after `set`, if it costs the file its setuid or setgid bit.
///
/// With `FUSE_HANDLE_KILLPRIV_V2` this is ours to do: a change of owner always takes the bits,
/// truncation takes them from all but `CAP_FSETID` (`chown(2)`, `ftruncate(2)`). fuser does not
/// show the kernel's verdict on the latter (`FATTR_KILL_SUIDGID`), so uid 0 stands for it.
pub fn mode_without_privileges(stat: &Stat, set: &SetAttr, caller: &Caller) -> Option<u32> {
    let owner = set.uid.is_some() || set.gid.is_some();
    let truncated = set.size.is_some() && caller.uid != 0;
    if stat.kind == Kind::Dir || set.mode.is_some() || !(owner || truncated) {
        return None;
    }
    let mode = u32::from(stat.perm.mode);
    let setgid = if mode & S_IXGRP != 0 { S_ISGID } else { 0 };
    let kept = mode & !(S_ISUID | setgid);
    (kept != mode).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_core::{Perm, Times};

    fn stat(kind: Kind, mode: u16) -> Stat {
        Stat {
            node: NodeId(9),
            kind,
            device: None,
            perm: Perm { mode, uid: 1, gid: 2 },
            times: Times::default(),
            size_bytes: 3,
            blocks: 1,
            nlink: 1,
        }
    }

    fn set(size: Option<u64>, uid: Option<u32>) -> SetAttr {
        SetAttr { mode: None, uid, gid: None, size, atime: None, mtime: None }
    }

    fn as_user(uid: u32) -> Caller {
        Caller { uid, gid: uid, pid: 1, umask: 0 }
    }

    /// As fuser 0.18 decodes a time the kernel sends.
    fn decoded(secs: i64, nanos: u32) -> SystemTime {
        if secs >= 0 {
            UNIX_EPOCH + Duration::new(secs as u64, nanos)
        } else {
            UNIX_EPOCH - Duration::new((-secs) as u64, nanos)
        }
    }

    #[test]
    fn times_survive_both_directions_also_before_1970() {
        for (secs, nanos) in [(0, 0), (1_700_000_000, 123_456_789), (-1, 1), (-2, NANOS_MAX)] {
            let time = Timespec { secs, nanos };
            assert_eq!(timespec(decoded(secs, nanos)), time, "from the kernel");
            let total = i128::from(secs) * 1_000_000_000 + i128::from(nanos);
            let shown = match system_time(time).duration_since(UNIX_EPOCH) {
                Ok(after) => after.as_nanos() as i128,
                Err(before) => -(before.duration().as_nanos() as i128),
            };
            assert_eq!(shown, total, "to the kernel");
        }
    }

    #[test]
    fn absurd_times_do_not_panic() {
        for secs in [i64::MIN, i64::MAX] {
            system_time(Timespec { secs, nanos: u32::MAX });
        }
    }

    #[test]
    fn owner_changes_and_truncation_take_setuid_bits() {
        let file = stat(Kind::File, 0o6755);
        let mode = |set, uid| mode_without_privileges(&file, &set, &as_user(uid));
        assert_eq!(mode(set(None, Some(5)), 0), Some(0o755), "chown, even by root");
        assert_eq!(mode(set(Some(0), None), 7), Some(0o755), "truncation by a user");
        assert_eq!(mode(set(Some(0), None), 0), None, "truncation by root");
        assert_eq!(mode(set(None, None), 7), None, "anything else");
        let locked = stat(Kind::File, 0o2644);
        assert_eq!(mode_without_privileges(&locked, &set(Some(0), None), &as_user(7)), None);
        let dir = stat(Kind::Dir, 0o2755);
        assert_eq!(mode_without_privileges(&dir, &set(None, Some(5)), &as_user(0)), None);
    }

    #[test]
    fn only_known_rename_flags_have_a_meaning() {
        let mode = |bits| rename_mode(RenameFlags::from_bits_retain(bits));
        assert!(matches!(mode(0), Some(RenameMode::Replace)));
        assert!(matches!(mode(1), Some(RenameMode::NoReplace)));
        assert!(matches!(mode(2), Some(RenameMode::Exchange)));
        assert!(mode(3).is_none() && mode(4).is_none() && mode(8).is_none());
    }
}
