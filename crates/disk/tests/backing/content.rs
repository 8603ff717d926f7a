//! Open files.

use crate::without_fd::WithoutFd;
use crate::{Backing, errno};
use lockstep_core::Timespec;
use lockstep_disk::{AllocateMode, Disk, DiskFile, SeekWhat};
use rustix::io::Errno;
use std::path::Path;
use std::sync::Arc;

const BLOCK: u64 = 4096;

fn filled(tree: &Backing, name: &str, blocks: u64) -> Arc<dyn DiskFile> {
    let file = tree.disk.create(Path::new(name), 0o644).unwrap();
    for block in 0..blocks {
        file.write_all_at(&[block as u8 + 1; BLOCK as usize], block * BLOCK).unwrap();
    }
    file
}

/// First byte of each block.
fn blocks(file: &dyn DiskFile) -> Vec<u8> {
    let mut content = vec![0; file.stat().unwrap().size_bytes as usize];
    assert_eq!(file.read_at(&mut content, 0).unwrap(), content.len());
    content.iter().step_by(BLOCK as usize).copied().collect()
}

#[test]
fn reads_are_short_only_at_the_end() {
    let tree = Backing::new();
    let file = filled(&tree, "f", 2);
    let mut buf = vec![0; 3 * BLOCK as usize];
    assert_eq!(file.read_at(&mut buf, BLOCK).unwrap(), BLOCK as usize);
    assert_eq!(file.read_at(&mut buf, 2 * BLOCK).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
    file.set_len(2 * BLOCK + 5).unwrap();
    assert_eq!(file.read_at(&mut buf, 2 * BLOCK - 1).unwrap(), 6);
    assert_eq!(&buf[..6], b"\x02\0\0\0\0\0");
}

#[test]
fn an_unlinked_file_stays_usable() {
    let tree = Backing::new();
    let file = filled(&tree, "f", 1);
    tree.disk.unlink(Path::new("f")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!((blocks(&*file), file.stat().unwrap().nlink), (vec![b'x'], 0));
    file.sync_data().unwrap();
    file.sync_all().unwrap();
}

#[test]
fn attributes_are_set_on_the_open_file() {
    let tree = Backing::new();
    let file = filled(&tree, "f", 1);
    let (atime, mtime) = (Timespec { secs: 1, nanos: 2 }, Timespec { secs: 3, nanos: 4 });
    file.set_mode(0o4701).unwrap();
    file.set_owner(u32::MAX, u32::MAX).unwrap();
    file.set_mode(0o4701).unwrap();
    file.set_times(atime, mtime).unwrap();
    let stat = file.stat().unwrap();
    assert_eq!((stat.mode, stat.atime, stat.mtime), (0o4701, atime, mtime));
    assert_eq!(stat, tree.disk.stat(Path::new("f")).unwrap());
}

#[test]
fn ranges_are_allocated_punched_and_zeroed() {
    let tree = Backing::new();
    let file = filled(&tree, "f", 4);
    file.allocate(AllocateMode::PunchHole, BLOCK, BLOCK).unwrap();
    assert_eq!(blocks(&*file), [1, 0, 3, 4]);
    file.allocate(AllocateMode::KeepSize, 0, 8 * BLOCK).unwrap();
    assert_eq!(file.stat().unwrap().size_bytes, 4 * BLOCK);
    file.allocate(AllocateMode::ZeroRangeKeepSize, 3 * BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(blocks(&*file), [1, 0, 3, 0]);
    file.allocate(AllocateMode::Extend, 0, 5 * BLOCK).unwrap();
    assert_eq!(blocks(&*file), [1, 0, 3, 0, 0]);
    file.allocate(AllocateMode::ZeroRange, 2 * BLOCK, 4 * BLOCK).unwrap();
    assert_eq!(blocks(&*file), [1, 0, 0, 0, 0, 0]);
    assert_eq!(errno(file.allocate(AllocateMode::Extend, 0, 0)), Errno::INVAL.raw_os_error());
}

#[test]
fn ranges_are_collapsed_and_inserted_where_the_filesystem_can() {
    let tree = Backing::new();
    let file = filled(&tree, "f", 4);
    match file.allocate(AllocateMode::Collapse, BLOCK, BLOCK) {
        Ok(()) => assert_eq!(blocks(&*file), [1, 3, 4]),
        Err(e) => {
            assert_eq!(e.raw_os_error(), Some(Errno::OPNOTSUPP.raw_os_error()));
            eprintln!("SKIPPED: this filesystem cannot collapse or insert ranges");
            return;
        }
    }
    file.allocate(AllocateMode::Insert, BLOCK, BLOCK).unwrap();
    assert_eq!(blocks(&*file), [1, 0, 3, 4]);
}

#[test]
fn holes_and_content_are_found() {
    let tree = Backing::new();
    let file = tree.disk.create(Path::new("f"), 0o644).unwrap();
    let far = 1024 * BLOCK;
    file.write_all_at(b"x", far).unwrap();
    assert_eq!(file.seek(0, SeekWhat::Data).unwrap(), far);
    assert_eq!(file.seek(0, SeekWhat::Hole).unwrap(), 0);
    assert_eq!(file.seek(far, SeekWhat::Hole).unwrap(), far + 1);
    let past = Errno::NXIO.raw_os_error();
    assert_eq!(errno(file.seek(far + 1, SeekWhat::Data)), past);
    assert_eq!(errno(file.seek(far + 1, SeekWhat::Hole)), past);
}

#[test]
fn ranges_are_copied_between_files() {
    let tree = Backing::new();
    let (from, to) = (filled(&tree, "from", 3), filled(&tree, "to", 1));
    assert_eq!(from.copy_range_to(BLOCK, &*to, 2 * BLOCK, BLOCK).unwrap(), BLOCK);
    assert_eq!(blocks(&*to), [1, 0, 2]);
    assert_eq!(from.copy_range_to(2 * BLOCK, &*to, 0, 9 * BLOCK).unwrap(), BLOCK);
    assert_eq!(blocks(&*to), [3, 0, 2]);
    assert_eq!(from.copy_range_to(3 * BLOCK, &*to, 0, BLOCK).unwrap(), 0);
}

#[test]
fn a_range_overlapping_itself_is_refused_as_the_kernel_does() {
    let tree = Backing::new();
    let file = filled(&tree, "f", 3);
    let refused = errno(file.copy_range_to(0, &*file, BLOCK, 2 * BLOCK));
    assert_eq!(refused, Errno::INVAL.raw_os_error());
    assert_eq!(file.copy_range_to(0, &*file, BLOCK, BLOCK).unwrap(), BLOCK);
    assert_eq!(blocks(&*file), [1, 1, 3]);
}

#[test]
fn a_file_without_a_descriptor_is_copied_to_through_memory() {
    let tree = Backing::new();
    let from = filled(&tree, "from", 130);
    let to = WithoutFd(tree.disk.create(Path::new("to"), 0o644).unwrap());
    assert_eq!(from.copy_range_to(0, &to, 0, u64::MAX).unwrap(), 130 * BLOCK);
    assert_eq!(blocks(&to), blocks(&*from));
}

#[test]
fn a_file_that_cannot_be_written_is_opened_for_reading() {
    let tree = Backing::new();
    tree.write("readonly", b"r");
    tree.disk.set_mode(Path::new("readonly"), 0o444).unwrap();
    let mut byte = [0];
    let file = tree.disk.open(Path::new("readonly")).unwrap();
    assert_eq!(file.read_at(&mut byte, 0).unwrap(), 1);
    if !crate::is_root() {
        assert_eq!(errno(file.write_all_at(b"w", 0)), Errno::BADF.raw_os_error());
    }
}

#[test]
fn what_is_not_a_regular_file_is_not_opened_or_does_not_block() {
    let tree = Backing::new();
    tree.disk.mkdir(Path::new("d"), 0o755).unwrap();
    tree.disk.mknod(Path::new("fifo"), 0o010_444, 0).unwrap();
    assert_eq!(errno(tree.disk.open(Path::new("d"))), Errno::ISDIR.raw_os_error());
    // Read-only without privileges: would wait for a writer if it could.
    let _ = tree.disk.open(Path::new("fifo"));
    assert_eq!(errno(tree.disk.open(Path::new("missing"))), Errno::NOENT.raw_os_error());
}
