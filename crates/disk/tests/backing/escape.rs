//! Nothing leaves the tree, and nothing reaches the private directory.

use crate::{Backing, errno};
use lockstep_core::Timespec;
use lockstep_disk::{Disk, RenameMode, XattrFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Every operation on `path`, by name.
fn all_operations(tree: &Backing, path: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let disk = &tree.disk;
    let time = Timespec::default();
    tree.write("here", b"");
    disk.temp_create("part").unwrap();
    vec![
        ("create", disk.create(path, 0o644).map(drop)),
        ("open", disk.open(path).map(drop)),
        ("mkdir", disk.mkdir(path, 0o755)),
        ("symlink", disk.symlink(b"x", path)),
        ("mknod", disk.mknod(path, 0o010_644, 0)),
        ("link from", disk.link(path, Path::new("linked"))),
        ("link to", disk.link(Path::new("here"), path)),
        ("unlink", disk.unlink(path)),
        ("rmdir", disk.rmdir(path)),
        ("rename from", disk.rename(path, Path::new("moved"), RenameMode::Replace)),
        ("rename to", disk.rename(Path::new("here"), path, RenameMode::Replace)),
        ("exchange", disk.rename(Path::new("here"), path, RenameMode::Exchange)),
        ("stat", disk.stat(path).map(drop)),
        ("read_dir", disk.read_dir(path).map(drop)),
        ("readlink", disk.readlink(path).map(drop)),
        ("set_mode", disk.set_mode(path, 0o777)),
        ("set_owner", disk.set_owner(path, 1, 1)),
        ("set_times", disk.set_times(path, time, time)),
        ("get_xattr", disk.get_xattr(path, b"user.x").map(drop)),
        ("set_xattr", disk.set_xattr(path, b"user.x", b"", XattrFlags::Any)),
        ("list_xattrs", disk.list_xattrs(path).map(drop)),
        ("remove_xattr", disk.remove_xattr(path, b"user.x")),
        ("sync_dir", disk.sync_dir(path)),
        ("temp_install", disk.temp_install("part", path)),
        ("keep", disk.keep(path, "kept")),
        ("keep_link", disk.keep_link(path, "kept")),
        ("placeholder", disk.placeholder(path, 1)),
        ("is_placeholder", disk.is_placeholder(path).map(drop)),
    ]
}

fn assert_all_refused(path: &str, prepare: impl Fn(&Backing)) {
    let tree = Backing::new();
    prepare(&tree);
    for (operation, result) in all_operations(&tree, Path::new(path)) {
        assert!(result.is_err(), "{operation} of {path} must be refused");
    }
}

#[test]
fn no_operation_passes_through_a_symlink() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), b"untouched").unwrap();
    let before = fs::metadata(outside.path().join("secret")).unwrap();
    for target in [outside.path(), Path::new("/proc/self/cwd"), Path::new("..")] {
        assert_all_refused("way/out/secret", |tree| {
            symlink(target, tree.outside("way")).unwrap();
        });
        assert_all_refused("way/secret", |tree| symlink(target, tree.outside("way")).unwrap());
    }
    // Not even through one that stays inside: the tree knows every directory by its real path.
    assert_all_refused("alias/file", |tree| {
        fs::create_dir(tree.outside("dir")).unwrap();
        fs::write(tree.outside("dir/file"), b"").unwrap();
        symlink("dir", tree.outside("alias")).unwrap();
    });
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    let after = fs::metadata(outside.path().join("secret")).unwrap();
    assert_eq!(before.permissions(), after.permissions());
}

#[test]
fn a_symlink_at_the_end_is_never_opened_or_written_through() {
    let outside = TempDir::new().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, b"untouched").unwrap();
    let tree = Backing::new();
    symlink(&secret, tree.outside("link")).unwrap();
    symlink(outside.path().join("new"), tree.outside("dangling")).unwrap();
    let link = Path::new("link");
    assert_eq!(errno(tree.disk.open(link)), Errno::LOOP.raw_os_error());
    assert_eq!(errno(tree.disk.create(link, 0o644)), Errno::EXIST.raw_os_error());
    assert!(tree.disk.create(Path::new("dangling"), 0o644).is_err());
    assert!(tree.disk.read_dir(link).is_err());
    tree.disk.temp_create("part").unwrap().write_all_at(b"new", 0).unwrap();
    tree.disk.temp_install("part", link).unwrap();
    assert_eq!(tree.read("link"), b"new");
    assert_eq!(fs::read(&secret).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn swapping_a_directory_for_a_symlink_meanwhile_gains_nothing() {
    let outside = TempDir::new().unwrap();
    let tree = Backing::new();
    fs::create_dir(tree.outside("way")).unwrap();
    symlink(outside.path(), tree.outside("trap")).unwrap();
    let done = AtomicBool::new(false);
    let (mut passed, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let (way, trap) = (Path::new("way"), Path::new("trap"));
                tree.disk.rename(way, trap, RenameMode::Exchange).unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while (passed < 200 || refused < 200) && Instant::now() < deadline {
            match tree.disk.create(Path::new("way/file"), 0o644) {
                Ok(_) => passed += 1,
                Err(_) => refused += 1,
            }
            let _ = tree.disk.mkdir(Path::new("way/dir"), 0o755);
            let _ = tree.disk.unlink(Path::new("way/file"));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(
        passed >= 200 && refused >= 200,
        "both must be met: {passed} passed, {refused} refused"
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn paths_that_are_not_plainly_relative_are_refused() {
    for path in ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "."] {
        assert_all_refused(path, |tree| fs::create_dir(tree.outside("a")).unwrap());
    }
    assert_all_refused("nul\0byte", |_| {});
    assert_all_refused("nul\0byte/x", |_| {});
}

#[test]
fn the_private_directory_does_not_exist_for_paths() {
    for path in [".lockstep", ".lockstep/tmp/file", ".lockstep/keep", ".lockstep/new"] {
        assert_all_refused(path, |tree| {
            fs::write(tree.outside(".lockstep/tmp/file"), b"").unwrap();
        });
    }
    let tree = Backing::new();
    assert_eq!(tree.names(""), Vec::<Vec<u8>>::new());
    let private = Path::new(".lockstep");
    assert_eq!(errno(tree.disk.stat(private)), Errno::NOENT.raw_os_error());
    assert_eq!(errno(tree.disk.mkdir(private, 0o755)), Errno::PERM.raw_os_error());
}

#[test]
fn that_name_is_private_at_the_root_only() {
    let tree = Backing::new();
    tree.disk.mkdir(Path::new("sub"), 0o755).unwrap();
    tree.disk.mkdir(Path::new("sub/.lockstep"), 0o755).unwrap();
    tree.write("sub/.lockstep/file", b"user's");
    assert_eq!(tree.names("sub"), [b".lockstep"]);
    assert_eq!(tree.read("sub/.lockstep/file"), b"user's");
}

#[test]
fn private_names_are_single_components() {
    let tree = Backing::new();
    for name in ["", ".", "..", "a/b", "../escape", "/abs", "nul\0"] {
        let invalid = Errno::INVAL.raw_os_error();
        assert_eq!(errno(tree.disk.temp_create(name)), invalid, "{name:?}");
        assert_eq!(errno(tree.disk.temp_open(name)), invalid, "{name:?}");
        assert_eq!(errno(tree.disk.temp_remove(name)), invalid, "{name:?}");
        assert_eq!(errno(tree.disk.temp_install(name, Path::new("x"))), invalid, "{name:?}");
        assert_eq!(errno(tree.disk.keep_open(name)), invalid, "{name:?}");
        assert_eq!(errno(tree.disk.keep_remove(name)), invalid, "{name:?}");
    }
}
