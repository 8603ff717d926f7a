//! Tests through a real mount of a real volume. What a peer would change is changed on the volume
//! itself, behind the kernel's back, and pushed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::mount::Unmounted;
use super::mountinfo::MountKind;
use super::{MountError, Mounted, clear_stale, mount, mount_at};
use lockstep_core::{NodeId, Slot};
use lockstep_disk::{PlainDisk, StateDb};
use lockstep_vfs::{Caller, KernelCache, Origin, Volume};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };

struct Place {
    mounted: Option<Mounted>,
    volume: Arc<Volume>,
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("files")).unwrap();
        let disk = Arc::new(PlainDisk::open(&dir.path().join("files")).unwrap());
        let db = StateDb::open(&dir.path().join("state")).unwrap();
        let volume = Volume::start(disk, db, Slot(1), "here", Origin::Created).unwrap();
        let mut place = Place { mounted: None, volume, dir };
        // Over the backing directory itself: the harder of the two cases.
        place.mounted = Some(mount(place.volume.clone(), "live", &place.path("")).unwrap());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().unwrap()
    }

    fn requests(&self, kind: &str) -> u64 {
        let counts = self.mounted().requests();
        counts.into_iter().find(|(name, _)| *name == kind).unwrap().1
    }

    /// Waits until everything pushed so far has reached the kernel.
    fn settle(&self) {
        let (done, reached) = mpsc::channel();
        self.mounted().cache().after(Box::new(move || done.send(()).unwrap()));
        reached.recv_timeout(SOON).unwrap();
    }

    /// As if a peer had written `bytes` to `name` in the root.
    fn remote_write(&self, name: &str, bytes: &[u8]) -> NodeId {
        let name = name.as_bytes();
        let cache = self.mounted().cache();
        let (node, opened) = match self.volume.lookup(NodeId::ROOT, name) {
            Ok(stat) => {
                let flags = libc::O_WRONLY | libc::O_TRUNC;
                (stat.node, self.volume.open(stat.node, flags).unwrap())
            }
            Err(_) => {
                let flags = libc::O_WRONLY | libc::O_CREAT;
                let made = self.volume.create(&ROOT, NodeId::ROOT, name, 0o644, flags);
                let (stat, opened) = made.unwrap();
                (stat.node, opened)
            }
        };
        self.volume.write(opened.fh, 0, bytes, false, false).unwrap();
        self.volume.release(opened.fh);
        cache.invalidate_entry(NodeId::ROOT, name);
        cache.invalidate_node(node);
        self.settle();
        node
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn seed_bug_3_absent_names_are_cached_and_appear_when_pushed() {
    let place = Place::new();
    let path = place.path("late");
    for _ in 0..100 {
        assert!(!path.exists());
    }
    assert_eq!(place.requests("lookup"), 1, "asked once, then known to be absent");
    let node = place.remote_write("late", b"arrived");
    assert_eq!(fs::read(&path).unwrap(), b"arrived");
    assert_eq!(fs::metadata(&path).unwrap().ino(), node.0);
}

#[test]
fn listings_are_cached_and_show_names_nobody_looked_up() {
    let place = Place::new();
    place.remote_write("a", b"1");
    assert_eq!(place.names(), ["a"]);
    let asked = place.requests("readdirplus");
    assert_eq!(place.names(), ["a"]);
    assert_eq!(place.requests("readdirplus"), asked, "the second listing comes from the cache");
    place.remote_write("b", b"2");
    assert_eq!(place.names(), ["a", "b"]);
    assert_eq!(place.requests("readdir"), 0, "always with attributes");
}

#[test]
fn content_is_read_once_until_it_changes() {
    let place = Place::new();
    place.remote_write("f", b"first!");
    assert_eq!(fs::read(place.path("f")).unwrap(), b"first!");
    let read = place.requests("read");
    for _ in 0..10 {
        assert_eq!(fs::read(place.path("f")).unwrap(), b"first!");
    }
    assert_eq!(place.requests("read"), read);
    place.remote_write("f", b"second");
    assert_eq!(fs::read(place.path("f")).unwrap(), b"second", "same size, other bytes");
}

#[test]
fn after_a_listing_no_attributes_are_asked_for() {
    let place = Place::new();
    for i in 0..50 {
        place.remote_write(&format!("{i}"), b"x");
    }
    let names = place.names();
    assert_eq!(names.len(), 50);
    let before = place.requests("lookup") + place.requests("getattr");
    for name in names {
        fs::symlink_metadata(place.path(&name)).unwrap();
    }
    assert_eq!(place.requests("lookup") + place.requests("getattr"), before);
}

#[test]
fn the_calls_of_a_shell_arrive_and_answer() {
    let place = Place::new();
    let (a, b) = (place.path("a"), place.path("b"));
    fs::write(&a, b"hello").unwrap();
    assert_eq!(
        fs::OpenOptions::new().create_new(true).write(true).open(&a).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    fs::OpenOptions::new().append(true).open(&a).unwrap().write_all(b" world").unwrap();
    fs::hard_link(&a, &b).unwrap();
    assert_eq!(fs::metadata(&a).unwrap().nlink(), 2);
    fs::remove_file(&a).unwrap();
    assert_eq!(fs::metadata(&b).unwrap().nlink(), 1);
    symlink("b", place.path("link")).unwrap();
    assert_eq!(fs::read_link(place.path("link")).unwrap(), Path::new("b"));
    fs::create_dir(place.path("d")).unwrap();
    fs::rename(&b, place.path("d/c")).unwrap();
    assert_eq!(fs::remove_dir(place.path("d")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    assert_eq!(fs::read(place.path("d/c")).unwrap(), b"hello world");
    File::options().write(true).open(place.path("d/c")).unwrap().set_len(5).unwrap();
    assert_eq!(fs::read(place.path("d/c")).unwrap(), b"hello");
    fs::set_permissions(place.path("d/c"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(place.path("d/c")).unwrap().mode() & 0o7777, 0o640);
    File::open(place.path("d/c")).unwrap().sync_all().unwrap();
    File::open(place.path("d")).unwrap().sync_all().unwrap();
    assert_eq!(place.names(), ["d", "link"]);
}

#[test]
fn times_before_1970_survive_with_their_nanoseconds() {
    let place = Place::new();
    let path = place.path("old");
    let file = File::create(&path).unwrap();
    let time = std::time::UNIX_EPOCH - Duration::new(2, 250_000_000);
    file.set_modified(time).unwrap();
    let shown = fs::metadata(&path).unwrap();
    assert_eq!((shown.mtime(), shown.mtime_nsec()), (-3, 750_000_000));
}

#[test]
fn an_unlinked_file_stays_readable_while_it_is_open() {
    let place = Place::new();
    fs::write(place.path("gone"), b"still here").unwrap();
    let mut file = File::open(place.path("gone")).unwrap();
    fs::remove_file(place.path("gone")).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
}

#[test]
fn the_backing_directory_is_plain_again_after_unmounting() {
    let mut place = Place::new();
    fs::write(place.path("f"), b"plain").unwrap();
    let kind = mount_at(&place.path("")).unwrap();
    assert_eq!(kind, Some(MountKind::Lockstep { volume: "live".into() }));
    assert_eq!(place.mounted.take().unwrap().unmount().unwrap(), Unmounted::Clean);
    assert_eq!(mount_at(&place.path("")).unwrap(), None);
    assert_eq!(fs::read(place.path("f")).unwrap(), b"plain");
}

#[test]
fn a_busy_mount_is_hidden_and_served_to_its_users() {
    let mut place = Place::new();
    fs::write(place.path("f"), b"abc").unwrap();
    let file = File::open(place.path("f")).unwrap();
    assert_eq!(place.mounted.take().unwrap().unmount().unwrap(), Unmounted::InUse);
    assert_eq!(mount_at(&place.path("")).unwrap(), None);
    let mut bytes = [0; 3];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"abc");
}

#[test]
fn an_unmount_by_someone_else_is_noticed() {
    let mut place = Place::new();
    rustix::mount::unmount(place.path(""), rustix::mount::UnmountFlags::empty())
        .expect("tests of mounts run as root");
    wait_until("the end of the session", || !place.mounted().is_served());
    assert_eq!(place.mounted.take().unwrap().unmount().unwrap(), Unmounted::Already);
}

#[test]
fn a_mount_in_use_is_neither_cleared_nor_covered() {
    let place = Place::new();
    let again = mount(place.volume.clone(), "other", &place.path("")).err().unwrap();
    assert!(matches!(again, MountError::Occupied { .. }), "{again}");
    let clear = clear_stale(&place.path("")).unwrap_err();
    assert!(clear.to_string().contains("'live'"), "{clear}");
}

/// Ends the readers also when the test fails, so that it fails instead of hanging.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A lookup may be answered from the older state and taken up by the kernel after the change was
/// pushed (see [`super::introduced`]).
#[test]
fn a_lookup_that_races_with_a_change_is_not_cached_for_long() {
    let place = Place::new();
    let stop = AtomicBool::new(false);
    let current = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let name = current.load(Ordering::Relaxed).to_string();
                    let _ = fs::symlink_metadata(place.path(&name));
                }
            });
        }
        let _stop = OnDrop(&stop);
        for round in 0..200u64 {
            current.store(round, Ordering::Relaxed);
            let name = round.to_string();
            let node = place.remote_write(&name, b"1");
            let opened = place.volume.open(node, libc::O_WRONLY).unwrap();
            place.volume.write(opened.fh, 0, b"123", false, false).unwrap();
            place.volume.release(opened.fh);
            place.mounted().cache().invalidate_node(node);
            wait_until("the newer size", || fs::metadata(place.path(&name)).unwrap().len() == 3);
        }
    });
}
