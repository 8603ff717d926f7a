//! System calls beyond reading and writing, as shells, compilers, databases and git make them.

use crate::support::connected;
use crate::support::mapping::Mapping;
use crate::support::repository::noise;
use rustix::fs::{
    CWD, FallocateFlags, RenameFlags, SeekFrom, copy_file_range, fallocate, renameat_with, seek,
};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

fn open_both_ways(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn mmap_shared_and_private() {
    let pair = connected!();
    let mut bytes = noise(1, 64 * 1024);
    std::fs::write(pair.a.at("file"), &bytes).unwrap();
    let file = open_both_ways(&pair.a.at("file"));
    let mut shared = Mapping::new(&file, bytes.len(), true).unwrap();
    assert!(shared.bytes() == bytes);
    shared.put(5000, b"through the mapping");
    bytes[5000..5019].copy_from_slice(b"through the mapping");
    shared.flush().unwrap();
    let mut private = Mapping::new(&file, bytes.len(), false).unwrap();
    private.put(0, b"nobody else sees this");
    assert!(private.bytes()[..6] == *b"nobody");
    drop((shared, private, file));
    assert!(std::fs::read(pair.a.at("file")).unwrap() == bytes);
    pair.a.wait();
    assert!(std::fs::read(pair.b.at("file")).unwrap() == bytes);
    let there = open_both_ways(&pair.b.at("file"));
    assert!(Mapping::new(&there, bytes.len(), true).unwrap().bytes() == bytes);
    drop(there);
    pair.identical();
}

#[test]
fn open_but_unlinked_file_still_reads_and_writes() {
    let pair = connected!();
    let mut file = open_both_ways(&pair.a.at("gone"));
    file.write_all(b"before").unwrap();
    std::fs::remove_file(pair.a.at("gone")).unwrap();
    file.write_all(b" and after").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before and after");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.set_len(3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    rustix::fs::fsetxattr(&file, "user.k", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    let mut value = [0; 5];
    rustix::fs::fgetxattr(&file, "user.k", &mut value[..]).unwrap();
    assert_eq!(&value, b"value");
    drop(file);
    pair.identical();
    assert_eq!(std::fs::read_dir(pair.b.mnt()).unwrap().count(), 0);
}

#[test]
fn a_file_open_here_and_removed_or_replaced_there_keeps_its_bytes() {
    let pair = connected!();
    let bytes = noise(2, 500_000);
    for (name, replaced) in [("removed", false), ("replaced", true)] {
        std::fs::write(pair.a.at(name), &bytes).unwrap();
        pair.a.wait();
        let held = File::open(pair.b.at(name)).unwrap();
        let mut start = vec![0; 1000];
        held.read_exact_at(&mut start, 0).unwrap();
        if replaced {
            std::fs::write(pair.a.at("new"), noise(3, 400_000)).unwrap();
            std::fs::rename(pair.a.at("new"), pair.a.at(name)).unwrap();
        } else {
            std::fs::remove_file(pair.a.at(name)).unwrap();
        }
        pair.a.wait();
        let mut whole = vec![0; bytes.len()];
        held.read_exact_at(&mut whole, 0).unwrap();
        assert!(whole == bytes, "{name}: the open file changed");
    }
    assert!(!pair.b.at("removed").exists());
    assert!(std::fs::read(pair.b.at("replaced")).unwrap() == noise(3, 400_000));
}

#[test]
fn rename_noreplace_and_exchange() {
    let pair = connected!();
    let (one, two) = (pair.a.at("one"), pair.a.at("two"));
    std::fs::write(&one, "1").unwrap();
    std::fs::write(&two, "2").unwrap();
    std::fs::create_dir(pair.a.at("dir")).unwrap();
    std::fs::write(pair.a.at("dir/in"), "in").unwrap();
    pair.identical();
    let refused = renameat_with(CWD, &one, CWD, &two, RenameFlags::NOREPLACE);
    assert_eq!(refused, Err(Errno::EXIST));
    renameat_with(CWD, &one, CWD, pair.a.at("three"), RenameFlags::NOREPLACE).unwrap();
    pair.identical();
    renameat_with(CWD, &two, CWD, pair.a.at("three"), RenameFlags::EXCHANGE).unwrap();
    pair.identical();
    assert_eq!(std::fs::read_to_string(pair.b.at("two")).unwrap(), "1");
    renameat_with(CWD, pair.b.at("dir"), CWD, pair.b.at("two"), RenameFlags::EXCHANGE).unwrap();
    pair.identical();
    assert_eq!(std::fs::read_to_string(pair.a.at("two/in")).unwrap(), "in");
    let missing = renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE);
    assert_eq!(missing, Err(Errno::NOENT));
}

#[test]
fn rename_errors_are_those_of_a_local_disk() {
    let pair = connected!();
    let root = pair.a.mnt();
    std::fs::create_dir_all(root.join("dir/sub")).unwrap();
    std::fs::create_dir(root.join("empty")).unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    let errno = |from: &str, to: &str| {
        let refused = std::fs::rename(root.join(from), root.join(to));
        refused.err().and_then(|why| why.raw_os_error())
    };
    assert_eq!(errno("dir", "dir/sub/inside"), Some(libc::EINVAL));
    assert_eq!(errno("dir", "file"), Some(libc::ENOTDIR));
    assert_eq!(errno("file", "dir"), Some(libc::EISDIR));
    assert_eq!(errno("empty", "dir"), Some(libc::ENOTEMPTY));
    assert_eq!(errno("missing", "x"), Some(libc::ENOENT));
    assert_eq!(errno("dir", "empty"), None);
    assert_eq!(errno("file", "file"), None);
    pair.identical();
}

#[test]
fn fallocate_punch_zero_keep_size() {
    let pair = connected!();
    let mut bytes = noise(4, 256 * 1024);
    std::fs::write(pair.a.at("file"), &bytes).unwrap();
    pair.a.wait();
    let file = open_both_ways(&pair.a.at("file"));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 65_536, 65_536).unwrap();
    bytes[65_536..131_072].fill(0);
    match fallocate(&file, FallocateFlags::ZERO_RANGE, 200_000, 1000) {
        Ok(()) => bytes[200_000..201_000].fill(0),
        Err(why) => assert_eq!(why, Errno::OPNOTSUPP, "the backing filesystem cannot zero ranges"),
    }
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 256 * 1024, "KEEP_SIZE keeps the size");
    assert!(std::fs::read(pair.a.at("file")).unwrap() == bytes);
    fallocate(&file, FallocateFlags::empty(), 0, 300_000).unwrap();
    bytes.resize(300_000, 0);
    drop(file);
    pair.identical();
    assert!(std::fs::read(pair.b.at("file")).unwrap() == bytes);
}

#[test]
fn lseek_hole_and_data() {
    let pair = connected!();
    let file = open_both_ways(&pair.a.at("sparse"));
    file.write_all_at(&[1; 4096], 1 << 20).unwrap();
    file.set_len(2 << 20).unwrap();
    let offsets = |file: &File| {
        let data = seek(file, SeekFrom::Data(0)).unwrap();
        let hole = seek(file, SeekFrom::Hole(data)).unwrap();
        (data, hole, seek(file, SeekFrom::Data(hole)))
    };
    assert_eq!(offsets(&file), (1 << 20, (1 << 20) + 4096, Err(Errno::NXIO)));
    assert_eq!(seek(&file, SeekFrom::Data(3 << 20)), Err(Errno::NXIO));
    drop(file);
    pair.identical();
}

#[test]
fn copy_file_range_within_the_mount() {
    let pair = connected!();
    let bytes = noise(5, 700_000);
    std::fs::write(pair.a.at("from"), &bytes).unwrap();
    let (from, to) = (File::open(pair.a.at("from")).unwrap(), open_both_ways(&pair.a.at("to")));
    let (mut read_at, mut write_at) = (0u64, 0u64);
    while write_at < bytes.len() as u64 {
        let left = bytes.len() - write_at as usize;
        let copied =
            copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), left).unwrap();
        assert!(copied > 0, "stuck at {write_at}");
    }
    drop((from, to));
    pair.identical();
    assert!(std::fs::read(pair.b.at("to")).unwrap() == bytes);
}

#[test]
fn open_flags() {
    let pair = connected!();
    let path = pair.a.at("file");
    let mut exclusive = OpenOptions::new();
    exclusive.write(true).create_new(true);
    exclusive.open(&path).unwrap().write_all(b"0123456789").unwrap();
    let again = exclusive.open(&path).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
    pair.a.wait();
    let there = exclusive.open(pair.b.at("file")).unwrap_err();
    assert_eq!(there.raw_os_error(), Some(libc::EEXIST), "O_EXCL on b");
    OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 0);
    std::os::unix::fs::symlink("file", pair.a.at("link")).unwrap();
    use std::os::unix::fs::OpenOptionsExt;
    let mut no_follow = OpenOptions::new();
    no_follow.read(true).custom_flags(libc::O_NOFOLLOW);
    assert_eq!(no_follow.open(pair.a.at("link")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    let mut directory = OpenOptions::new();
    directory.read(true).custom_flags(libc::O_DIRECTORY);
    assert_eq!(directory.open(&path).unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
    pair.identical();
}

#[test]
fn fsync_fsyncdir_statfs_access() {
    let pair = connected!();
    let mut file = File::create(pair.a.at("file")).unwrap();
    file.write_all(b"durable").unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(pair.a.mnt()).unwrap().sync_all().unwrap();
    let (below, shown) =
        (rustix::fs::statvfs(&pair.a.backing).unwrap(), rustix::fs::statvfs(pair.a.mnt()).unwrap());
    assert_eq!(shown.f_blocks * shown.f_frsize, below.f_blocks * below.f_frsize);
    assert_eq!(shown.f_namemax, 255);
    let access = |mode| rustix::fs::access(pair.a.at("file"), mode);
    access(rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).unwrap();
    assert_eq!(access(rustix::fs::Access::EXEC_OK), Err(Errno::ACCESS));
}

#[test]
fn sticky_and_setgid_modes_arrive() {
    let pair = connected!();
    std::fs::create_dir(pair.a.at("dir")).unwrap();
    crate::support::scratch::set_mode(&pair.a.at("dir"), 0o1777);
    std::fs::write(pair.a.at("dir/file"), "x").unwrap();
    crate::support::scratch::set_mode(&pair.a.at("dir/file"), 0o2751);
    pair.identical();
    let mode = |name: &str| pair.b.at(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("dir"), mode("dir/file")), (0o1777, 0o2751));
}
