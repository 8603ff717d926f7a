//! What this machine lets a test do. A test that cannot run says so; in CI it fails instead.

use rustix::mount::UnmountFlags;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard};

/// The user and group that stand for "an ordinary user" when tests run as root.
pub const NOBODY: u32 = 65_534;

/// The program under test: the one just built, or that of `LOCKSTEP_TEST_BINARY`.
pub fn binary() -> PathBuf {
    let other = std::env::var_os("LOCKSTEP_TEST_BINARY").map(PathBuf::from);
    other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_lockstep")))
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says loudly why a test does nothing here; in CI (`CI=true`) that is a failure.
#[track_caller]
pub fn skip(why: &str) {
    let in_ci = std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
    assert!(!in_ci, "this test cannot run and CI must run it: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Whether FUSE mounts can be made; says why not.
pub fn has_fuse() -> bool {
    let device = Path::new("/dev/fuse");
    if !device.exists() {
        skip("/dev/fuse does not exist (try `modprobe fuse`)");
        return false;
    }
    true
}

/// Whether the test is root; says what it would need root for.
pub fn has_root(what_for: &str) -> bool {
    if !is_root() {
        skip(&format!("needs root {what_for}"));
    }
    is_root()
}

/// Lets ordinary users open `/dev/fuse`, as every distribution does.
pub fn open_fuse_to_users() {
    let device = Path::new("/dev/fuse");
    let mode = device.metadata().expect("/dev/fuse exists").permissions().mode() & 0o777;
    if mode != 0o666 {
        std::fs::set_permissions(device, PermissionsExt::from_mode(0o666))
            .expect("root may widen /dev/fuse");
    }
}

/// `program` as [`NOBODY`], without groups.
pub fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(program.as_ref());
    command
}

/// A line of the mount table.
struct Mount {
    /// The number its FUSE connection has under `/sys/fs/fuse/connections`.
    minor: String,
    point: PathBuf,
}

/// All mounts at or below `root`, innermost first.
fn table_below(root: &Path) -> Vec<Mount> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mut found: Vec<Mount> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let minor = fields.next()?.strip_prefix("0:")?.to_owned();
            let point = PathBuf::from(fields.nth(1)?.replace("\\040", " "));
            point.starts_with(root).then_some(Mount { minor, point })
        })
        .collect();
    found.reverse();
    found
}

/// All mount points at or below `root`, innermost first.
pub fn mounts_below(root: &Path) -> Vec<PathBuf> {
    table_below(root).into_iter().map(|mount| mount.point).collect()
}

/// Detaches every mount at or below `root`, whoever uses it. FUSE connections are aborted first:
/// with a call and an invalidation waiting for each other, unmounting would wait, too.
pub fn unmount_below(root: &Path) {
    for mount in table_below(root) {
        let abort = format!("/sys/fs/fuse/connections/{}/abort", mount.minor);
        let _ = std::fs::write(abort, "1");
        let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        if rustix::mount::unmount(&mount.point, flags).is_err() {
            let _ = Command::new("fusermount3").arg("-uz").arg(&mount.point).output();
        }
    }
}

/// A turn among the pairs of this process: each is two daemons and their threads.
pub struct Turn(());

static TURNS_LEFT: Mutex<u32> = Mutex::new(3);
static TURN_FREED: Condvar = Condvar::new();

fn turns() -> MutexGuard<'static, u32> {
    TURNS_LEFT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Turn {
    /// Waits until fewer than three pairs run.
    pub fn take() -> Turn {
        let mut left = turns();
        while *left == 0 {
            left = TURN_FREED.wait(left).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        *left -= 1;
        Turn(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *turns() += 1;
        TURN_FREED.notify_one();
    }
}
