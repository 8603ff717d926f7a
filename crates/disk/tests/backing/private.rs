//! Temporary files, kept files, placeholders.

use crate::{Backing, errno, is_root};
use lockstep_disk::{Disk, FileType, PlainDisk};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[test]
fn a_temporary_file_replaces_what_is_installed_over() {
    let tree = Backing::new();
    tree.write("target", b"old");
    let part = tree.disk.temp_create("part").unwrap();
    part.write_all_at(b"new content", 0).unwrap();
    assert_eq!(part.stat().unwrap().mode, 0o600);
    assert_eq!(tree.disk.temp_list().unwrap(), ["part"]);
    let reader = tree.disk.open(Path::new("target")).unwrap();
    tree.disk.temp_install("part", Path::new("target")).unwrap();
    assert_eq!(tree.read("target"), b"new content");
    let mut old = [0; 3];
    assert_eq!(reader.read_at(&mut old, 0).unwrap(), 3);
    assert_eq!(&old, b"old");
    assert_eq!(tree.disk.temp_list().unwrap(), Vec::<String>::new());
    assert_eq!(errno(tree.disk.temp_open("part")), Errno::NOENT.raw_os_error());
}

#[test]
fn temporary_files_outlive_the_disk_and_names_are_not_reused() {
    let tree = Backing::new();
    tree.disk.temp_create("part").unwrap().write_all_at(b"half", 0).unwrap();
    assert_eq!(errno(tree.disk.temp_create("part")), Errno::EXIST.raw_os_error());
    let Backing { dir, disk } = tree;
    drop(disk);
    let disk = PlainDisk::open(dir.path()).unwrap();
    assert_eq!(disk.temp_open("part").unwrap().stat().unwrap().size_bytes, 4);
    disk.temp_remove("part").unwrap();
    assert_eq!(disk.temp_list().unwrap(), Vec::<String>::new());
}

#[test]
fn kept_files_leave_the_tree_and_replace_nothing() {
    let tree = Backing::new();
    tree.write("a", b"A");
    tree.write("b", b"B");
    tree.disk.keep(Path::new("a"), "k").unwrap();
    assert_eq!(tree.names(""), [b"b"]);
    let taken = Errno::EXIST.raw_os_error();
    assert_eq!(errno(tree.disk.keep(Path::new("b"), "k")), taken);
    assert_eq!(errno(tree.disk.keep_link(Path::new("b"), "k")), taken);
    let mut kept = [0; 1];
    tree.disk.keep_open("k").unwrap().read_at(&mut kept, 0).unwrap();
    assert_eq!(&kept, b"A");
    tree.disk.keep_link(Path::new("b"), "l").unwrap();
    tree.disk.keep_copy(Path::new("b"), "copy").unwrap();
    let writer = tree.disk.open(Path::new("b")).unwrap();
    let before = tree.read("b");
    writer.write_all_at(b"X", 0).unwrap();
    let mut copied = vec![0; before.len()];
    tree.disk.keep_open("copy").unwrap().read_at(&mut copied, 0).unwrap();
    assert_eq!(copied, before, "a copy stays as it was");
    writer.write_all_at(&before, 0).unwrap();
    tree.disk.keep_remove("copy").unwrap();
    assert_eq!(tree.disk.stat(Path::new("b")).unwrap().nlink, 2);
    let mut names = tree.disk.keep_list().unwrap();
    names.sort();
    assert_eq!(names, ["k", "l"]);
    tree.disk.keep_remove("k").unwrap();
    tree.disk.keep_remove("l").unwrap();
    assert_eq!(tree.disk.keep_list().unwrap(), Vec::<String>::new());
    assert_eq!(tree.read("b"), b"B");
}

#[test]
fn any_kind_can_be_kept() {
    let tree = Backing::new();
    tree.disk.mkdir(Path::new("d"), 0o755).unwrap();
    tree.disk.symlink(b"nowhere", Path::new("s")).unwrap();
    tree.disk.keep(Path::new("d"), "d").unwrap();
    tree.disk.keep(Path::new("s"), "s").unwrap();
    assert_eq!(tree.names(""), Vec::<Vec<u8>>::new());
    tree.disk.keep_remove("d").unwrap();
    tree.disk.keep_remove("s").unwrap();
}

#[test]
fn a_placeholder_has_the_size_and_cannot_pass_for_content() {
    let tree = Backing::new();
    let p = Path::new("p");
    tree.disk.placeholder(p, 5_000_000_000).unwrap();
    let stat = tree.disk.stat(p).unwrap();
    assert_eq!((stat.file_type, stat.mode, stat.size_bytes), (FileType::File, 0, 5_000_000_000));
    assert!(fs::metadata(tree.outside("p")).unwrap().blocks() < 64, "it must be sparse");
    assert!(tree.disk.is_placeholder(p).unwrap());
    assert_eq!(errno(tree.disk.placeholder(p, 1)), Errno::EXIST.raw_os_error());
    assert_eq!(tree.disk.temp_list().unwrap(), Vec::<String>::new());
    if !is_root() {
        assert_eq!(errno(tree.disk.open(p)), Errno::ACCESS.raw_os_error());
    }
    tree.disk.temp_create("part").unwrap().write_all_at(b"real", 0).unwrap();
    tree.disk.temp_install("part", p).unwrap();
    assert!(!tree.disk.is_placeholder(p).unwrap());
}

#[test]
fn nothing_else_is_a_placeholder() {
    let tree = Backing::new();
    tree.disk.create(Path::new("locked"), 0o000).unwrap().set_len(1_000).unwrap();
    tree.write("file", b"");
    tree.disk.mkdir(Path::new("dir"), 0o000).unwrap();
    tree.disk.symlink(b"file", Path::new("link")).unwrap();
    tree.disk.mknod(Path::new("fifo"), 0o010_000, 0).unwrap();
    for name in ["locked", "file", "dir", "link", "fifo", ""] {
        assert!(!tree.disk.is_placeholder(Path::new(name)).unwrap(), "{name}");
    }
    let missing = errno(tree.disk.is_placeholder(Path::new("missing")));
    assert_eq!(missing, Errno::NOENT.raw_os_error());
}

#[test]
fn a_placeholder_that_cannot_be_placed_leaves_nothing_behind() {
    let tree = Backing::new();
    assert!(tree.disk.placeholder(Path::new("missing/p"), 1).is_err());
    assert!(tree.disk.placeholder(Path::new("p"), u64::MAX).is_err());
    tree.write("taken", b"mine");
    assert!(tree.disk.placeholder(Path::new("taken"), 1).is_err());
    assert_eq!(tree.disk.temp_list().unwrap(), Vec::<String>::new());
    assert_eq!(tree.read("taken"), b"mine");
    assert_eq!(tree.names(""), [b"taken"]);
}

#[test]
fn opening_removes_placeholders_in_the_making() {
    let tree = Backing::new();
    fs::write(tree.outside(".lockstep/tmp/placeholder-3"), b"").unwrap();
    fs::write(tree.outside(".lockstep/tmp/fetch"), b"").unwrap();
    let Backing { dir, disk } = tree;
    drop(disk);
    let disk = PlainDisk::open(dir.path()).unwrap();
    assert_eq!(disk.temp_list().unwrap(), ["fetch"]);
}

#[test]
fn what_is_kept_can_be_put_back_and_replaces_nothing() {
    let tree = Backing::new();
    tree.write("a", b"A");
    tree.disk.keep(Path::new("a"), "k").unwrap();
    tree.write("a", b"new");
    let taken = errno(tree.disk.keep_restore("k", Path::new("a")));
    assert_eq!(taken, Errno::EXIST.raw_os_error());
    tree.disk.keep_restore("k", Path::new("b")).unwrap();
    assert_eq!((tree.read("a"), tree.read("b")), (b"new".to_vec(), b"A".to_vec()));
    assert_eq!(tree.disk.keep_list().unwrap(), Vec::<String>::new());
}
