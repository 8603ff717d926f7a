//! The real disk on real directories.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod content;
mod entries;
mod escape;
mod holes;
mod mounted;
mod opening;
mod private;
mod without_fd;
mod xattrs;

use lockstep_disk::{Disk, PlainDisk};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A backing tree that goes away with the test.
struct Backing {
    dir: TempDir,
    disk: PlainDisk,
}

impl Backing {
    fn new() -> Backing {
        let dir = TempDir::new().unwrap();
        let disk = PlainDisk::open(dir.path()).unwrap();
        Backing { dir, disk }
    }

    /// Where a path of the tree is for those who look at it from outside.
    fn outside(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        self.disk.create(Path::new(path), 0o644).unwrap().write_all_at(content, 0).unwrap();
    }

    fn read(&self, path: &str) -> Vec<u8> {
        let file = self.disk.open(Path::new(path)).unwrap();
        let mut content = vec![0; file.stat().unwrap().size_bytes as usize];
        assert_eq!(file.read_at(&mut content, 0).unwrap(), content.len());
        content
    }

    fn names(&self, path: &str) -> Vec<Vec<u8>> {
        let entries = self.disk.read_dir(Path::new(path)).unwrap();
        let mut names: Vec<_> = entries.into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }
}

/// The path of these bytes.
fn bytes_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The system's error number that `result` failed with.
fn errno<T>(result: io::Result<T>) -> i32 {
    result.err().expect("must fail").raw_os_error().expect("must be a system error")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
