//! What programs on one machine rely on without a thought: limits, bits that writes take, access
//! times, locks.

use crate::support::command::run;
use crate::support::environment::{NOBODY, as_nobody, has_root};
use crate::support::pair::Pair;
use crate::support::scratch::set_mode;
use crate::support::{SOON, connected};
use rustix::fs::{
    CWD, FallocateFlags, FileType, FlockOperation, XattrFlags, flock, fsetxattr, lsetxattr,
    makedev, mknodat, setxattr,
};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

const ANY: XattrFlags = XattrFlags::empty();

#[test]
fn attributes_and_targets_have_the_limits_of_a_local_disk() {
    let pair = connected!();
    let at = |name: &str| pair.a.at(name);
    std::fs::write(at("file"), "x").unwrap();
    symlink("file", at("link")).unwrap();
    mknodat(CWD, at("pipe"), FileType::Fifo, 0o600.into(), makedev(0, 0)).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    for name in ["link", "pipe", "socket"] {
        assert_eq!(lsetxattr(at(name), "user.k", b"v", ANY), Err(Errno::PERM), "{name}");
    }
    let set = |name: &str, len: usize| setxattr(at("file"), name, &vec![b'v'; len], ANY);
    assert_eq!(set("user.lockstep.mark", 1), Err(Errno::PERM), "Lockstep's own");
    let longest = format!("user.{}", "n".repeat(250));
    assert_eq!(set(&longest, 1), Ok(()));
    assert_eq!(set(&format!("{longest}n"), 1), Err(Errno::RANGE));
    assert_eq!(set("user.large", 65_537), Err(Errno::TOOBIG));
    let target = "t".repeat(4095);
    symlink(&target, at("longest")).unwrap();
    let too_long = symlink(format!("{target}t"), at("longer")).unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(libc::ENAMETOOLONG));
    pair.identical();
    assert_eq!(std::fs::read_link(pair.b.at("longest")).unwrap(), Path::new(&target));
}

/// Of a file without a name the disk below holds no attributes, so that its own limits do not count.
#[test]
fn a_node_has_at_most_1024_attributes_and_2_mib_of_them() {
    let pair = connected!();
    let nameless = |name: &str| {
        let file = File::create(pair.a.at(name)).unwrap();
        std::fs::remove_file(pair.a.at(name)).unwrap();
        file
    };
    let filled = |file: &File, value: &[u8]| {
        let set = |number: usize| fsetxattr(file, format!("user.{number:04}"), value, ANY);
        (0..2000).map(set).position(|outcome| outcome == Err(Errno::NOSPC))
    };
    assert_eq!(filled(&nameless("many"), b"v"), Some(1024));
    let per_attribute = 65_000 + "user.0000".len();
    assert_eq!(filled(&nameless("large"), &[0; 65_000]), Some((2 << 20) / per_attribute));
}

fn shell_as_nobody(script: &str, file: &Path) {
    run(as_nobody("sh").args(["-c", script, "sh"]).arg(file), SOON).success();
}

/// The mode left of `before` after `act` on a file of an ordinary user, on the mount and natively.
fn modes_after(pair: &Pair, before: u32, act: &dyn Fn(&Path)) -> [u32; 2] {
    [pair.a.at("program"), pair.outside("native").join("program")].map(|at| {
        std::fs::write(&at, "echo it runs").unwrap();
        chown(&at, Some(NOBODY), Some(NOBODY)).unwrap();
        set_mode(&at, before);
        act(&at);
        at.metadata().unwrap().mode() & 0o7777
    })
}

#[test]
fn writes_drop_setuid_and_setgid_as_on_a_local_disk() {
    if !has_root("to give files away") {
        return;
    }
    let pair = connected!();
    type Act<'a> = (&'a str, &'a dyn Fn(&Path));
    let by_root: [Act<'_>; 3] = [
        ("root allocates", &|at| {
            let file = OpenOptions::new().write(true).open(at).unwrap();
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 9000).unwrap();
        }),
        ("root writes", &|at| std::fs::write(at, "new").unwrap()),
        ("root gives it away", &|at| chown(at, Some(1), Some(1)).unwrap()),
    ];
    let appends = |at: &Path| shell_as_nobody("echo x >> \"$1\"", at);
    let truncates = |at: &Path| shell_as_nobody("truncate -s 3 \"$1\"", at);
    let allocates = |at: &Path| shell_as_nobody("fallocate -l 9000 \"$1\"", at);
    let empties = |at: &Path| shell_as_nobody(": > \"$1\"", at);
    let reads = |at: &Path| shell_as_nobody("cat \"$1\"", at);
    let by_user: [Act<'_>; 5] = [
        ("its owner appends", &appends),
        ("its owner truncates", &truncates),
        ("its owner allocates", &allocates),
        ("its owner empties it", &empties),
        ("its owner reads", &reads),
    ];
    for (what, act) in by_root.into_iter().chain(by_user) {
        for mode in [0o6755, 0o2644, 0o4711] {
            let [shown, native] = modes_after(&pair, mode, act);
            assert_eq!(shown, native, "{what}, {mode:o}");
            pair.identical();
            let there = pair.b.at("program").metadata().unwrap().mode() & 0o7777;
            assert_eq!(there, native, "{what}, {mode:o}, on the peer");
        }
    }
}

#[test]
fn reads_leave_atime_alone() {
    let pair = connected!();
    for (name, len) in [("small", 100), ("large", 3 << 20)] {
        std::fs::write(pair.a.at(name), vec![b'x'; len]).unwrap();
    }
    std::fs::create_dir(pair.a.at("dir")).unwrap();
    symlink("small", pair.a.at("link")).unwrap();
    pair.identical();
    for side in [&pair.a, &pair.b] {
        let times = || {
            ["small", "large", "dir", "link"].map(|name| {
                let stat = side.at(name).symlink_metadata().unwrap();
                (stat.atime(), stat.atime_nsec(), stat.mtime_nsec(), stat.ctime_nsec())
            })
        };
        let before = times();
        for name in ["small", "large", "link"] {
            std::fs::read(side.at(name)).unwrap();
        }
        assert_eq!(std::fs::read_dir(side.at("dir")).unwrap().count(), 0);
        std::fs::read_link(side.at("link")).unwrap();
        assert_eq!(times(), before, "at once");
        side.stop();
        side.start();
        assert_eq!(times(), before, "after a restart, when nothing is cached");
    }
}

/// A lock of bytes 0 to 9, or its removal, by `command` (`F_SETLK` or `F_OFD_SETLK`).
fn lock(file: &File, command: libc::c_int, kind: libc::c_int) -> std::io::Result<()> {
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 10,
        l_pid: 0,
    };
    // SAFETY: `range` is what these commands take, and outlives the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &range) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn locks_of_one_machine_exclude_each_other() {
    let pair = connected!();
    std::fs::write(pair.a.at("file"), "0123456789").unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(pair.a.at("file")).unwrap();
    let (one, two) = (open(), open());
    let whole = |file: &File, operation| flock(file, operation);
    whole(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(whole(&two, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    whole(&one, FlockOperation::Unlock).unwrap();
    whole(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
    drop(two);
    whole(&one, FlockOperation::NonBlockingLockExclusive).unwrap();

    // Locks of a process, and those of an open file, exclude each other, too.
    let (write, none) = (libc::F_WRLCK, libc::F_UNLCK);
    let two = open();
    lock(&one, libc::F_OFD_SETLK, write).unwrap();
    for command in [libc::F_OFD_SETLK, libc::F_SETLK] {
        let refused = lock(&two, command, write).unwrap_err().raw_os_error();
        assert!(matches!(refused, Some(libc::EAGAIN | libc::EACCES)), "{refused:?}");
    }
    lock(&one, libc::F_OFD_SETLK, none).unwrap();
    lock(&two, libc::F_SETLK, write).unwrap();
    assert!(lock(&one, libc::F_OFD_SETLK, write).is_err(), "held by this process");
    pair.identical();
}
