//! What `stat` shows, besides the bytes.

use crate::support::connected;
use crate::support::scratch::set_mode;
use crate::support::tree::user_xattrs as xattrs_of;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

fn stamp(path: &Path) -> [(i64, i64); 2] {
    let meta = path.symlink_metadata().unwrap();
    [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())]
}

fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn chmod_only() {
    let pair = connected!();
    std::fs::write(pair.a.at("tool"), "#!/bin/sh\necho it runs\n").unwrap();
    pair.identical();
    for mode in [0o755, 0o400, 0o4755, 0o644, 0o700] {
        let mtime = stamp(&pair.a.at("tool"))[0];
        set_mode(&pair.a.at("tool"), mode);
        pair.identical();
        let there = pair.b.at("tool");
        assert_eq!(there.metadata().unwrap().mode() & 0o7777, mode);
        assert_eq!(stamp(&there)[0], mtime, "chmod leaves mtime alone");
    }
    let ran = std::process::Command::new(pair.b.at("tool")).output().unwrap();
    assert_eq!(ran.stdout, b"it runs\n");
}

#[test]
fn touch_only() {
    let pair = connected!();
    std::fs::write(pair.a.at("file"), "x").unwrap();
    std::fs::create_dir(pair.a.at("dir")).unwrap();
    symlink("nowhere", pair.a.at("link")).unwrap();
    pair.identical();
    for (name, seconds, nanoseconds) in
        [("file", 1_000_000_007, 123_456_789), ("dir", 1, 1), ("link", 1_234_567_890, 999_999_999)]
    {
        touch(&pair.a.at(name), seconds, nanoseconds);
        pair.identical();
        assert_eq!(stamp(&pair.b.at(name))[0], (seconds, nanoseconds));
    }
    touch(&pair.b.at("file"), -86_400, 5);
    pair.identical();
    assert_eq!(stamp(&pair.a.at("file"))[0], (-86_400, 5), "before 1970");
}

#[test]
fn attributes_stay_as_they_are_when_nothing_happens() {
    let pair = connected!();
    for number in 0..20u64 {
        let bytes = crate::support::repository::noise(number, 10 + 10_000 * number as usize);
        std::fs::write(pair.a.at(format!("file{number}")), bytes).unwrap();
    }
    let before: Vec<_> = (0..20).map(|n| stamp(&pair.a.at(format!("file{n}")))).collect();
    pair.wait();
    for number in 0..20 {
        std::fs::read(pair.b.at(format!("file{number}"))).unwrap();
    }
    pair.wait();
    for (number, before) in before.iter().enumerate() {
        assert_eq!(stamp(&pair.a.at(format!("file{number}"))), *before);
        assert_eq!(stamp(&pair.b.at(format!("file{number}"))), *before);
    }
}

#[test]
fn hard_links_symlinks_fifos() {
    let pair = connected!();
    let (a, b) = (&pair.a, &pair.b);
    std::fs::create_dir(a.at("dir")).unwrap();
    std::fs::write(a.at("one"), "first").unwrap();
    std::fs::hard_link(a.at("one"), a.at("dir/two")).unwrap();
    symlink("dir/two", a.at("link")).unwrap();
    symlink(std::ffi::OsStr::new(&"x/".repeat(2000)), a.at("long")).unwrap();
    rustix::fs::mknodat(CWD, a.at("pipe"), rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
    pair.identical();
    let (one, two) = (b.at("one").metadata().unwrap(), b.at("dir/two").metadata().unwrap());
    assert_eq!((one.ino(), one.nlink(), two.nlink()), (two.ino(), 2, 2));
    assert!(b.at("pipe").symlink_metadata().unwrap().file_type().is_fifo());
    assert_eq!(std::fs::read_to_string(b.at("link")).unwrap(), "first");

    std::fs::write(b.at("dir/two"), "written through the second name").unwrap();
    pair.identical();
    assert_eq!(std::fs::read_to_string(a.at("one")).unwrap(), "written through the second name");
    std::fs::remove_file(b.at("one")).unwrap();
    pair.identical();
    assert_eq!(a.at("dir/two").metadata().unwrap().nlink(), 1);
    assert_eq!(std::fs::read_to_string(a.at("link")).unwrap(), "written through the second name");
}

#[test]
fn a_pipe_carries_bytes_on_one_side() {
    let pair = connected!();
    rustix::fs::mknodat(CWD, pair.a.at("p"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let path = pair.a.at("p");
    let writer = std::thread::spawn(move || std::fs::write(path, "through the pipe").unwrap());
    assert_eq!(std::fs::read_to_string(pair.a.at("p")).unwrap(), "through the pipe");
    writer.join().unwrap();
}

#[test]
fn user_xattrs() {
    let pair = connected!();
    let (on_a, on_b) = (pair.a.at("file"), pair.b.at("file"));
    std::fs::write(&on_a, "x").unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    set(&on_a, "user.color", b"blue");
    set(&on_a, "user.empty", b"");
    set(&on_a, "user.bytes", &[0, 255, 10, 13]);
    set(pair.a.mnt(), "user.root", b"of the volume");
    pair.identical();
    assert_eq!(xattrs_of(&on_b).unwrap().len(), 3);
    set(&on_b, "user.color", b"green");
    rustix::fs::removexattr(&on_b, "user.bytes").unwrap();
    pair.identical();
    let here = xattrs_of(&on_a).unwrap();
    assert_eq!(here[&b"user.color"[..]], b"green");
    assert_eq!(here.len(), 2);
    let create = rustix::fs::setxattr(&on_a, "user.color", b"x", XattrFlags::CREATE);
    assert_eq!(create, Err(rustix::io::Errno::EXIST));
    let replace = rustix::fs::setxattr(&on_a, "user.none", b"x", XattrFlags::REPLACE);
    assert_eq!(replace, Err(rustix::io::Errno::NODATA));
}

#[test]
fn owners_are_replicated() {
    if !crate::support::environment::has_root("to give files away") {
        return;
    }
    let pair = connected!();
    std::fs::write(pair.a.at("file"), "x").unwrap();
    std::os::unix::fs::chown(pair.a.at("file"), Some(12), Some(34)).unwrap();
    pair.identical();
    let there = pair.b.at("file").metadata().unwrap();
    assert_eq!((there.uid(), there.gid()), (12, 34));
}
