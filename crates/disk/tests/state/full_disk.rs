//! A full disk: the commit fails, nothing is lost, and it works again once there is space.

use crate::numbered;
use lockstep_core::{NodeId, Sequence};
use lockstep_disk::{StateBatch, StateDb, StateError, StateStore};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use tempfile::TempDir;

struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Option<SmallDisk> {
        let dir = TempDir::new().unwrap();
        if let Err(errno) =
            mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(c"size=8m"))
        {
            eprintln!("SKIPPED: a small tmpfs cannot be mounted here: {errno}");
            return None;
        }
        Some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn commits_fail_while_the_disk_is_full_and_succeed_afterwards() {
    let Some(disk) = SmallDisk::new() else { return };
    let (dir, ballast) = (disk.0.path().join("state"), disk.0.path().join("ballast"));
    let db = StateDb::open(&dir).unwrap();
    db.commit(&numbered(1)).unwrap();
    fs::write(&ballast, vec![0; 6 << 20]).unwrap();

    let big = |n: u64| StateBatch {
        nodes: vec![(NodeId(n), Some(vec![n as u8; 200_000]))],
        ..Default::default()
    };
    let mut committed = 1;
    let error = loop {
        match db.commit(&big(committed + 1)) {
            Ok(()) => committed += 1,
            Err(error) => break error,
        }
        assert!(committed < 100, "an 8 MiB disk must fill up");
    };
    assert!(matches!(error, StateError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    let full = Some(rustix::io::Errno::NOSPC.raw_os_error());
    assert_eq!(error.raw_os_error(), full);
    let again = db.commit(&big(committed + 1)).expect_err("the disk is still full");
    assert_eq!(again.raw_os_error(), full);

    fs::remove_file(&ballast).unwrap();
    db.commit(&big(committed + 1)).unwrap();
    committed += 1;
    db.sync().unwrap();
    let check = |db: &StateDb| {
        let nodes = db.load_nodes().unwrap();
        assert_eq!(nodes.len() as u64, committed);
        assert!(nodes[1..].iter().all(|(id, v)| *v == vec![id.0 as u8; 200_000]));
        assert_eq!(db.read_log(Sequence(0), 9).unwrap(), [(Sequence(1), b"1".to_vec())]);
    };
    check(&db);
    drop(db);
    check(&StateDb::open(&dir).unwrap());
}
