//! Which directories can be a backing tree, and what the others are told.

use crate::is_root;
use lockstep_disk::{DiskError, PlainDisk};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

fn refused(dir: &Path) -> DiskError {
    let error = PlainDisk::open(dir).err().expect("must be refused");
    assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
    error
}

#[test]
fn the_private_directory_is_private_and_opening_again_changes_nothing() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("mine"), b"untouched").unwrap();
    for _ in 0..2 {
        drop(PlainDisk::open(dir.path()).unwrap());
    }
    for name in [".lockstep", ".lockstep/tmp", ".lockstep/keep"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    assert_eq!(fs::read_dir(dir.path().join(".lockstep/tmp")).unwrap().count(), 0);
    assert_eq!(fs::read(dir.path().join("mine")).unwrap(), b"untouched");
}

#[test]
fn what_is_not_a_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(refused(&file), DiskError::NotADirectory { .. }));
    assert!(matches!(refused(&dir.path().join("missing")), DiskError::Missing { .. }));
}

#[test]
fn a_tree_has_one_owner() {
    let dir = TempDir::new().unwrap();
    let first = PlainDisk::open(dir.path()).unwrap();
    assert!(matches!(refused(dir.path()), DiskError::InUse { .. }));
    drop(first);
    PlainDisk::open(dir.path()).unwrap();
}

#[test]
fn a_foreign_private_name_is_refused_not_followed() {
    let outside = TempDir::new().unwrap();
    let dir = TempDir::new().unwrap();
    let private = dir.path().join(".lockstep");
    fs::write(&private, b"a user's file").unwrap();
    assert!(matches!(refused(dir.path()), DiskError::NameTaken { .. }));
    fs::remove_file(&private).unwrap();
    symlink(outside.path(), &private).unwrap();
    assert!(matches!(refused(dir.path()), DiskError::NameTaken { .. }));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let dir = TempDir::new().unwrap();
    if is_root() {
        assert!(matches!(refused(Path::new("/proc")), DiskError::NotWritable { .. }));
        return;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    assert!(matches!(refused(dir.path()), DiskError::NotWritable { .. }));
}
