//! Names, kinds and attributes.

use crate::{Backing, bytes_path, errno, is_root};
use lockstep_core::{Kind, Timespec};
use lockstep_disk::{Disk, FileType, RenameMode};
use rustix::io::Errno;
use std::path::Path;

#[test]
fn creation_takes_the_mode_exactly_whatever_the_umask() {
    let tree = Backing::new();
    for mode in [0o777, 0o666, 0o000, 0o444, 0o4755, 0o2755] {
        let (file, dir) = (format!("f{mode:o}"), format!("d{mode:o}"));
        tree.disk.create(Path::new(&file), mode).unwrap();
        tree.disk.mkdir(Path::new(&dir), mode | 0o1000).unwrap();
        assert_eq!(tree.disk.stat(Path::new(&file)).unwrap().mode, mode);
        assert_eq!(tree.disk.stat(Path::new(&dir)).unwrap().mode, mode | 0o1000);
    }
}

#[test]
fn creation_refuses_a_name_that_is_taken() {
    let tree = Backing::new();
    tree.write("a", b"first");
    let taken = Errno::EXIST.raw_os_error();
    assert_eq!(errno(tree.disk.create(Path::new("a"), 0o644)), taken);
    assert_eq!(errno(tree.disk.mkdir(Path::new("a"), 0o755)), taken);
    assert_eq!(errno(tree.disk.symlink(b"x", Path::new("a"))), taken);
    assert_eq!(tree.read("a"), b"first");
}

#[test]
fn every_kind_is_made_and_seen() {
    let tree = Backing::new();
    let disk = &tree.disk;
    tree.write("file", b"12345");
    disk.mkdir(Path::new("dir"), 0o755).unwrap();
    disk.symlink(b"any\xfftarget", Path::new("link")).unwrap();
    disk.mknod(Path::new("fifo"), 0o010_666, 0).unwrap();
    disk.mknod(Path::new("socket"), 0o140_600, 0).unwrap();
    let kind = |name| disk.stat(Path::new(name)).unwrap().file_type;
    assert_eq!(kind("file"), FileType::File);
    assert_eq!(kind("dir"), FileType::Dir);
    assert_eq!(kind("link"), FileType::Symlink);
    assert_eq!(kind("fifo"), FileType::Fifo);
    assert_eq!(kind("socket").kind(), Kind::Socket);
    assert_eq!(disk.stat(Path::new("fifo")).unwrap().mode, 0o666);
    assert_eq!(disk.stat(Path::new("file")).unwrap().size_bytes, 5);
    assert_eq!(disk.readlink(Path::new("link")).unwrap(), b"any\xfftarget");
    if is_root() {
        let null = rustix::fs::makedev(1, 3);
        disk.mknod(Path::new("null"), 0o020_666, null).unwrap();
        let stat = disk.stat(Path::new("null")).unwrap();
        assert_eq!((stat.file_type, stat.rdev), (FileType::CharDevice, null));
        assert_eq!(stat.file_type.kind(), Kind::Socket);
    }
}

#[test]
fn names_are_bytes_not_text() {
    let tree = Backing::new();
    let longest = [0xfe; 255];
    for name in [&b"\xff\xfe latin \xe9"[..], b"new\nline", b" ", b"...", &longest] {
        tree.disk.create(bytes_path(name), 0o644).unwrap().write_all_at(name, 0).unwrap();
        let file = tree.disk.open(bytes_path(name)).unwrap();
        assert_eq!(file.stat().unwrap().size_bytes, name.len() as u64);
    }
    let names = tree.names("");
    assert_eq!(names.len(), 5);
    assert!(names.contains(&b"\xff\xfe latin \xe9".to_vec()) && names.contains(&longest.to_vec()));
    let too_long = [b'x'; 256];
    let failed = errno(tree.disk.create(bytes_path(&too_long), 0o644));
    assert_eq!(failed, Errno::NAMETOOLONG.raw_os_error());
}

#[test]
fn the_root_is_a_place_too() {
    let tree = Backing::new();
    let root = Path::new("");
    tree.disk.set_mode(root, 0o750).unwrap();
    let time = Timespec { secs: 1_000, nanos: 7 };
    tree.disk.set_times(root, time, time).unwrap();
    tree.disk.set_owner(root, u32::MAX, u32::MAX).unwrap();
    let stat = tree.disk.stat(root).unwrap();
    assert_eq!((stat.file_type, stat.mode, stat.mtime), (FileType::Dir, 0o750, time));
    tree.disk.sync_dir(root).unwrap();
    assert!(tree.disk.rmdir(root).is_err());
    assert!(tree.disk.rename(root, Path::new("x"), RenameMode::Replace).is_err());
}

#[test]
fn rename_replaces_refuses_or_exchanges() {
    let tree = Backing::new();
    let (a, b) = (Path::new("a"), Path::new("b"));
    tree.write("a", b"A");
    tree.write("b", b"B");
    let refused = errno(tree.disk.rename(a, b, RenameMode::NoReplace));
    assert_eq!(refused, Errno::EXIST.raw_os_error());
    tree.disk.rename(a, b, RenameMode::Exchange).unwrap();
    assert_eq!((tree.read("a"), tree.read("b")), (b"B".to_vec(), b"A".to_vec()));
    tree.disk.rename(a, b, RenameMode::Replace).unwrap();
    assert_eq!(tree.read("b"), b"B");
    assert_eq!(tree.names(""), [b"b"]);
    tree.disk.rename(b, Path::new("c"), RenameMode::NoReplace).unwrap();
    let missing = errno(tree.disk.rename(b, Path::new("c"), RenameMode::Exchange));
    assert_eq!(missing, Errno::NOENT.raw_os_error());
}

#[test]
fn exchange_swaps_a_file_and_a_directory() {
    let tree = Backing::new();
    tree.write("file", b"F");
    tree.disk.mkdir(Path::new("dir"), 0o755).unwrap();
    tree.write("dir/inside", b"I");
    tree.disk.rename(Path::new("file"), Path::new("dir"), RenameMode::Exchange).unwrap();
    assert_eq!(tree.read("dir"), b"F");
    assert_eq!(tree.read("file/inside"), b"I");
}

#[test]
fn links_share_an_inode_and_symlinks_are_linked_not_followed() {
    let tree = Backing::new();
    tree.write("a", b"A");
    tree.disk.link(Path::new("a"), Path::new("b")).unwrap();
    let (a, b) = (tree.disk.stat(Path::new("a")).unwrap(), tree.disk.stat(Path::new("b")).unwrap());
    assert_eq!((a.ino, a.nlink, b.nlink), (b.ino, 2, 2));
    tree.disk.symlink(b"a", Path::new("s")).unwrap();
    tree.disk.link(Path::new("s"), Path::new("t")).unwrap();
    assert_eq!(tree.disk.stat(Path::new("t")).unwrap().file_type, FileType::Symlink);
    tree.disk.unlink(Path::new("a")).unwrap();
    assert_eq!(tree.disk.stat(Path::new("b")).unwrap().nlink, 1);
}

#[test]
fn attributes_are_set_to_the_nanosecond_and_never_through_a_symlink() {
    let tree = Backing::new();
    tree.write("file", b"");
    tree.disk.symlink(b"file", Path::new("link")).unwrap();
    let old = tree.disk.stat(Path::new("file")).unwrap();
    let atime = Timespec { secs: -5, nanos: 123_456_789 };
    let mtime = Timespec { secs: 4_000_000_000, nanos: 1 };
    tree.disk.set_times(Path::new("link"), atime, mtime).unwrap();
    tree.disk.set_mode(Path::new("link"), 0o600).unwrap();
    assert_eq!(tree.disk.stat(Path::new("file")).unwrap(), old);
    let link = tree.disk.stat(Path::new("link")).unwrap();
    assert_eq!((link.atime, link.mtime), (atime, mtime));
    tree.disk.set_mode(Path::new("file"), 0o5711).unwrap();
    tree.disk.set_times(Path::new("file"), atime, mtime).unwrap();
    let file = tree.disk.stat(Path::new("file")).unwrap();
    assert_eq!((file.mode, file.atime, file.mtime), (0o5711, atime, mtime));
    if is_root() {
        tree.disk.set_owner(Path::new("link"), 12, 34).unwrap();
        tree.disk.set_owner(Path::new("file"), u32::MAX, 56).unwrap();
        let (link, file) = (
            tree.disk.stat(Path::new("link")).unwrap(),
            tree.disk.stat(Path::new("file")).unwrap(),
        );
        assert_eq!((link.uid, link.gid), (12, 34));
        assert_eq!((file.uid, file.gid), (old.uid, 56));
    }
}

#[test]
fn modes_of_fifos_and_directories_are_set() {
    let tree = Backing::new();
    tree.disk.mknod(Path::new("fifo"), 0o010_600, 0).unwrap();
    tree.disk.mkdir(Path::new("dir"), 0o000).unwrap();
    tree.disk.set_mode(Path::new("fifo"), 0o640).unwrap();
    tree.disk.set_mode(Path::new("dir"), 0o711).unwrap();
    assert_eq!(tree.disk.stat(Path::new("fifo")).unwrap().mode, 0o640);
    assert_eq!(tree.disk.stat(Path::new("dir")).unwrap().mode, 0o711);
}

#[test]
fn removal_tells_directories_from_files() {
    let tree = Backing::new();
    tree.disk.mkdir(Path::new("dir"), 0o755).unwrap();
    tree.write("dir/file", b"");
    assert_eq!(errno(tree.disk.unlink(Path::new("dir"))), Errno::ISDIR.raw_os_error());
    assert_eq!(errno(tree.disk.rmdir(Path::new("dir"))), Errno::NOTEMPTY.raw_os_error());
    assert_eq!(errno(tree.disk.rmdir(Path::new("dir/file"))), Errno::NOTDIR.raw_os_error());
    tree.disk.unlink(Path::new("dir/file")).unwrap();
    tree.disk.rmdir(Path::new("dir")).unwrap();
    assert_eq!(tree.names(""), Vec::<Vec<u8>>::new());
}

#[test]
fn a_directory_of_many_entries_is_listed_completely() {
    let tree = Backing::new();
    tree.disk.mkdir(Path::new("many"), 0o755).unwrap();
    for n in 0..2_000 {
        tree.write(&format!("many/{n:04}"), b"");
    }
    let names = tree.names("many");
    assert_eq!(names.len(), 2_000);
    assert_eq!((names[0].as_slice(), names[1_999].as_slice()), (&b"0000"[..], &b"1999"[..]));
}

#[test]
fn trees_deeper_than_the_longest_path_are_reached() {
    let tree = Backing::new();
    let mut path = Vec::new();
    for depth in 0..30 {
        if depth > 0 {
            path.push(b'/');
        }
        path.extend([b'a' + depth; 250]);
        tree.disk.mkdir(bytes_path(&path), 0o755).unwrap();
    }
    assert!(path.len() > 7_000);
    path.extend(b"/file");
    tree.disk.create(bytes_path(&path), 0o644).unwrap().write_all_at(b"deep", 0).unwrap();
    assert_eq!(tree.disk.open(bytes_path(&path)).unwrap().stat().unwrap().size_bytes, 4);
    assert_eq!(tree.disk.stat(bytes_path(&path)).unwrap().size_bytes, 4);
    tree.disk.set_mode(bytes_path(&path), 0o600).unwrap();
    path.truncate(path.len() - b"/file".len());
    assert_eq!(tree.disk.read_dir(bytes_path(&path)).unwrap().len(), 1);
}

#[test]
fn the_filesystem_answers_for_its_capacity() {
    let usage = Backing::new().disk.statfs().unwrap();
    assert!(usage.block_size_bytes > 0 && usage.fragment_size_bytes > 0);
    assert!(usage.blocks >= usage.blocks_free && usage.name_max_bytes >= 255);
}
