//! What cannot be done is refused with the thing, the reason and the next step; nothing is lost.

use crate::support::command::{Outcome, run};
use crate::support::environment::{NOBODY, has_root, mounts_below, unmount_below};
use crate::support::pair::{Layout, Pair};
use crate::support::peer::{Peer, Placing};
use crate::support::repository::noise;
use crate::support::scratch::set_mode;
use crate::support::{SOON, connected, eventually};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn share(peer: &Peer, dir: &Path, more: &[&str]) -> Outcome {
    let mut args = vec![OsStr::new("share"), dir.as_os_str()];
    args.extend(["--listen", "127.0.0.1:0"].map(OsStr::new));
    args.extend(more.iter().map(OsStr::new));
    peer.run(&args)
}

/// Two peers that have done nothing yet.
fn strangers() -> Option<Pair> {
    Pair::apart(Layout::default())
}

#[test]
fn usage_errors_exit_with_2() {
    let Some(pair) = strangers() else { return };
    for line in [
        &["share"][..],
        &["join"],
        &["join", "only-a-code"],
        &["no-such-command"],
        &["status", "--no-such-flag"],
        &["wait", "--timeout", "soon"],
        &["share", ".", "--listen", "nonsense"],
        &["share", ".", "--mount", "x", "--no-mount"],
    ] {
        pair.a.run(line).fails_with(2, &[]);
    }
    pair.a.run(&["--help"]).success();
    assert!(pair.a.run(&["--version"]).success().stdout.starts_with("lockstep "));
}

#[test]
fn errors_are_json_when_asked_for() {
    let Some(pair) = strangers() else { return };
    let outcome = share(&pair.a, Path::new("/no/such/directory"), &["--no-mount", "--json"]);
    outcome.fails_with(1, &["/no/such/directory"]);
    let error = &outcome.json()["error"];
    assert!(error["message"].is_string() && error["hint"].is_string(), "{error:#}");
}

#[test]
fn not_a_directory() {
    let Some(pair) = strangers() else { return };
    let file = pair.outside("place").join("file");
    std::fs::write(&file, "x").unwrap();
    share(&pair.a, &file, &["--no-mount"]).fails_with(1, &["file", "not a directory"]);
    let missing = pair.outside("place").join("missing");
    share(&pair.a, &missing, &["--no-mount"]).fails_with(1, &["missing", "mkdir"]);
    assert!(!missing.exists());
    assert_eq!(std::fs::read_to_string(file).unwrap(), "x");
}

#[test]
fn not_writable() {
    if !has_root("to run as an ordinary user") {
        return;
    }
    let layout = Layout { as_nobody: true, ..Layout::default() };
    let Some(pair) = Pair::apart(layout) else { return };
    let dir = pair.outside("roots-own");
    set_mode(&dir, 0o755);
    share(&pair.a, &dir, &["--no-mount"]).fails_with(1, &["roots-own", "writable"]);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn already_shared() {
    let Some(pair) = strangers() else { return };
    pair.a.share();
    share(&pair.a, &pair.a.backing, &["--no-mount"]).fails_with(1, &["already shared"]);
    share(&pair.b, &pair.a.backing, &["--no-mount"]).fails_with(1, &["already shared"]);
    let inner = pair.a.at("inner");
    std::fs::create_dir(inner).unwrap();
    share(&pair.a, &pair.a.backing.join("inner"), &["--no-mount"]).fails_with(1, &["inside"]);
    assert_eq!(pair.a.volume()["backing"], pair.a.backing.to_str().unwrap());
}

#[test]
fn mount_point_of_something_else() {
    let Some(pair) = strangers() else { return };
    pair.a.share();
    // Another home's volume is mounted there.
    share(&pair.b, pair.a.mnt(), &["--no-mount"]).fails_with(1, &["mounted"]);
    let taken = pair.a.mnt().to_str().unwrap();
    share(&pair.b, &pair.b.backing, &["--mount", taken]).fails_with(1, &["mount point"]);
    share(&pair.b, &pair.b.backing, &["--mount", "/proc"]).fails_with(1, &["/proc"]);
    let full = pair.outside("full");
    std::fs::write(full.join("file"), "x").unwrap();
    let full = full.to_str().unwrap();
    share(&pair.b, &pair.b.backing, &["--mount", full]).fails_with(1, &["not empty"]);
    assert_eq!(mounts_below(pair.a.mnt()).len(), 1);
    pair.b.share();
}

#[test]
fn malformed_code() {
    let Some(pair) = strangers() else { return };
    let code = pair.a.share()["invite"].as_str().unwrap().to_owned();
    let cut = &code[..code.len() / 2];
    let mut changed = code.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'a' { 'b' } else { 'a' });
    for bad in ["hello", "", cut, "lockstep", &changed] {
        let dir = pair.b.backing.to_str().unwrap();
        let outcome = pair.b.run(&["join", bad, dir, "--no-mount", "--listen", "127.0.0.1:0"]);
        outcome.fails_with(2, &["code"]);
    }
    pair.b.join(&code);
    pair.reconnected();
}

#[test]
fn an_unreachable_peer_is_named() {
    let Some(pair) = strangers() else { return };
    let code = pair.a.share()["invite"].as_str().unwrap().to_owned();
    pair.a.stop();
    let dir = pair.b.backing.to_str().unwrap();
    let outcome = pair.b.run(&["join", &code, dir, "--no-mount", "--listen", "127.0.0.1:0"]);
    outcome.fails_with(1, &["127.0.0.1"]);
    pair.a.start();
    pair.b.join(&code);
    pair.reconnected();
}

/// Runs the command where there is a `/dev` without `fuse`.
fn without_fuse(command: &Command) -> Outcome {
    let script = "set -e; d=$(mktemp -d); mount -t tmpfs none $d; \
        for n in null zero full random urandom tty; do touch $d/$n; mount --bind /dev/$n $d/$n; done; \
        mount --move $d /dev; rmdir $d; exec \"$@\"";
    let mut hidden = Command::new("unshare");
    hidden
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    run(&mut hidden, Duration::from_secs(60))
}

#[test]
fn no_dev_fuse() {
    if !has_root("to hide /dev/fuse") {
        return;
    }
    let Some(pair) = strangers() else { return };
    let (dir, mount) = (pair.a.backing.to_str().unwrap(), pair.a.mnt().to_str().unwrap());
    std::fs::write(pair.a.backing.join("mine"), "x").unwrap();
    let command = pair.a.command(&["share", dir, "--mount", mount, "--listen", "127.0.0.1:0"]);
    without_fuse(&command).fails_with(1, &["/dev/fuse", "--no-mount"]);
    let _ = pair.a.run(&["stop"]);
    assert_eq!(std::fs::read_dir(&pair.a.backing).unwrap().count(), 1, "nothing is left behind");
    pair.a.share();
    assert_eq!(std::fs::read_to_string(pair.a.at("mine")).unwrap(), "x");
}

#[test]
fn port_in_use() {
    let Some(pair) = strangers() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = pair.a.backing.to_str().unwrap();
    let outcome = pair.a.run(&["share", dir, "--no-mount", "--listen", &address]);
    outcome.fails_with(1, &[&address, "use"]);
    drop(taken);
    pair.a.share();
}

#[test]
fn a_port_in_use_at_a_restart_is_reported() {
    let Some(pair) = strangers() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let dir = pair.a.backing.to_str().unwrap();
    let listen = address.to_string();
    pair.a.run(&["share", dir, "--no-mount", "--listen", &listen]).success();
    pair.a.stop();
    let _taken = std::net::TcpListener::bind(address).unwrap();
    let outcome = pair.a.run(&["start"]);
    let status = pair.a.run(&["status"]);
    let said = format!("{outcome:?}{status:?}");
    assert!(said.contains(&listen), "the port is taken and nothing says so: {said}");
}

/// A small filesystem at `b`'s directory.
pub fn with_small_disk(size: &str) -> Option<(Pair, SmallDisk)> {
    let pair = strangers()?;
    mount_tmpfs(&pair.b.backing, &format!("size={size}"));
    let disk = SmallDisk(pair.b.backing.clone());
    pair.b.join(pair.a.share()["invite"].as_str().unwrap());
    pair.reconnected();
    Some((pair, disk))
}

/// Gone, with its mount, when dropped.
pub struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Makes it larger.
    pub fn grow(&self, size: &str) {
        let mut grow = Command::new("mount");
        run(grow.args(["-o", &format!("remount,size={size}")]).arg(&self.0), SOON).success();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount_below(&self.0);
    }
}

fn mount_tmpfs(at: &Path, options: &str) {
    let owner = format!("{options},mode=0755,uid={},gid={}", 0, 0);
    let mut mount = Command::new("mount");
    run(mount.args(["-t", "tmpfs", "-o", &owner, "none"]).arg(at), SOON).success();
}

#[test]
fn full_disk_on_the_receiver() {
    if !has_root("to mount a small filesystem") {
        return;
    }
    let Some((pair, disk)) = with_small_disk("8m") else { return };
    std::fs::write(pair.a.at("fits"), noise(1, 1 << 20)).unwrap();
    pair.wait();
    std::fs::write(pair.a.at("fits"), noise(2, 1 << 20)).unwrap();
    std::fs::write(pair.a.at("too-large"), noise(3, 16 << 20)).unwrap();
    pair.a.run(&["wait", "--timeout", "3"]).fails_with(1, &[]);
    eventually("status says why on one side", SOON, || {
        [&pair.a, &pair.b].iter().any(|side| {
            let said = side.run(&["status", "--json"]).stdout.to_lowercase();
            said.contains("space") || said.contains("full")
        })
    });
    assert!(std::fs::read(pair.a.at("too-large")).unwrap() == noise(3, 16 << 20));
    disk.grow("64m");
    pair.identical();
    assert!(std::fs::read(pair.b.at("too-large")).unwrap() == noise(3, 16 << 20));
    assert!(std::fs::read(pair.b.at("fits")).unwrap() == noise(2, 1 << 20));
}

#[test]
fn full_disk_below_the_writer() {
    if !has_root("to mount a small filesystem") {
        return;
    }
    let Some((pair, _disk)) = with_small_disk("4m") else { return };
    let refused = std::fs::write(pair.b.at("too-large"), noise(4, 8 << 20)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC));
    std::fs::remove_file(pair.b.at("too-large")).unwrap();
    // The kernel tells of the close of a file, which frees its blocks, when it finds the time.
    eventually("there is space again", SOON, || std::fs::write(pair.b.at("small"), "fits").is_ok());
    pair.identical();
    assert_eq!(std::fs::read_to_string(pair.a.at("small")).unwrap(), "fits");
}

#[test]
fn a_home_of_another_user_is_refused() {
    if !has_root("to run as an ordinary user") {
        return;
    }
    let layout =
        Layout { as_nobody: true, a: Placing::Nowhere, b: Placing::Nowhere, ..Layout::default() };
    let Some(pair) = Pair::apart(layout) else { return };
    std::os::unix::fs::chown(&pair.a.home, Some(0), Some(0)).unwrap();
    set_mode(&pair.a.home, 0o700);
    share(&pair.a, &pair.a.backing, &["--no-mount"]).fails_with(1, &["home"]);
    std::os::unix::fs::chown(&pair.a.home, Some(NOBODY), Some(NOBODY)).unwrap();
    pair.a.share();
}

#[test]
fn a_disk_that_is_not_mounted_is_not_taken_for_files_removed() {
    let pair = connected!();
    for number in 0..50u64 {
        std::fs::write(pair.a.at(number.to_string()), noise(number, 100)).unwrap();
    }
    pair.wait();
    pair.b.stop();
    // What an unmounted disk leaves: an empty directory.
    let away = pair.b.backing.with_extension("away");
    std::fs::rename(&pair.b.backing, &away).unwrap();
    std::fs::create_dir(&pair.b.backing).unwrap();
    pair.b.run(&["start"]).fails_with(1, &["does not hold the volume's files", "mount it"]);
    pair.b.stop();
    std::fs::remove_dir(&pair.b.backing).unwrap();
    std::fs::rename(&away, &pair.b.backing).unwrap();
    pair.b.start();
    pair.reconnected();
    pair.identical();
    assert_eq!(std::fs::read_dir(pair.a.mnt()).unwrap().count(), 50);
}
