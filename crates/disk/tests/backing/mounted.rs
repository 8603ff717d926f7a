//! The tree stays reachable when something is mounted over it: that is how a volume is mounted
//! over its own backing directory.

use crate::{Backing, is_root};
use lockstep_core::Timespec;
use lockstep_disk::{Disk, RenameMode, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::path::{Path, PathBuf};

/// A tmpfs over a directory, gone when dropped.
struct Cover(PathBuf);

impl Cover {
    /// `None`, with a note, where mounting is not allowed.
    fn over(dir: &Path) -> Option<Cover> {
        if !is_root() {
            eprintln!("SKIPPED: mounting over a directory needs root");
            return None;
        }
        match mount("tmpfs", dir, "tmpfs", MountFlags::empty(), None) {
            Ok(()) => Some(Cover(dir.to_owned())),
            Err(errno) => {
                eprintln!("SKIPPED: a tmpfs cannot be mounted here: {errno}");
                None
            }
        }
    }
}

impl Drop for Cover {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn every_operation_works_below_a_mount() {
    let tree = Backing::new();
    tree.write("before", b"below");
    let Some(cover) = Cover::over(tree.dir.path()) else { return };
    let disk = &tree.disk;
    let (root, time) = (Path::new(""), Timespec { secs: 9, nanos: 9 });

    assert_eq!(tree.names(""), [b"before"]);
    assert_eq!(tree.read("before"), b"below");
    disk.mkdir(Path::new("d"), 0o755).unwrap();
    tree.write("d/new", b"n");
    disk.symlink(b"new", Path::new("d/link")).unwrap();
    disk.mknod(Path::new("fifo"), 0o010_600, 0).unwrap();
    disk.link(Path::new("d/new"), Path::new("hard")).unwrap();
    disk.rename(Path::new("hard"), Path::new("d/hard"), RenameMode::NoReplace).unwrap();
    disk.set_xattr(root, b"user.r", b"1", XattrFlags::Any).unwrap();
    disk.set_xattr(Path::new("d"), b"user.d", b"2", XattrFlags::Any).unwrap();
    assert_eq!(disk.get_xattr(root, b"user.r").unwrap(), b"1");
    disk.set_mode(root, 0o711).unwrap();
    disk.set_times(root, time, time).unwrap();
    assert_eq!(disk.stat(root).unwrap().mode, 0o711);
    disk.temp_create("t").unwrap().write_all_at(b"T", 0).unwrap();
    disk.temp_install("t", Path::new("installed")).unwrap();
    disk.placeholder(Path::new("p"), 100).unwrap();
    disk.keep(Path::new("before"), "k").unwrap();
    disk.sync_dir(root).unwrap();
    disk.sync_all().unwrap();
    assert!(disk.statfs().unwrap().blocks > 0);
    assert_eq!(fs::read_dir(tree.dir.path()).unwrap().count(), 0, "nothing reached the mount");

    drop(cover);
    assert_eq!(fs::read(tree.outside("d/hard")).unwrap(), b"n");
    assert_eq!(fs::read(tree.outside("installed")).unwrap(), b"T");
    assert_eq!(fs::read(tree.outside(".lockstep/keep/k")).unwrap(), b"below");
}
