//! Sockets and device nodes: names with nothing to read behind them.

use crate::support::environment::has_root;
use crate::support::peer::Peer;
use crate::support::scratch::set_mode;
use crate::support::{SOON, connected, eventually};
use rustix::fs::{CWD, FileType, makedev, mknodat};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

fn stat(path: &Path) -> std::fs::Metadata {
    path.symlink_metadata().unwrap()
}

/// Types, numbers and modes of the two device nodes, on the mount and below.
#[track_caller]
fn assert_devices(side: &Peer, null: &str, mode: u32) {
    for at in [side.at(null), side.backing.join(null)] {
        let null = stat(&at);
        assert!(null.file_type().is_char_device(), "{}", at.display());
        assert_eq!((null.rdev(), null.mode() & 0o7777), (makedev(1, 3), mode), "{}", at.display());
    }
    for at in [side.at("dir/disk"), side.backing.join("dir/disk")] {
        let disk = stat(&at);
        assert!(disk.file_type().is_block_device(), "{}", at.display());
        assert_eq!(disk.rdev(), makedev(250, 70_000), "{}", at.display());
    }
}

#[test]
fn a_device_node_is_one_on_its_own_machine_and_a_socket_on_the_peer() {
    if !has_root("to make device nodes") {
        return;
    }
    let pair = connected!();
    let (a, b) = (&pair.a, &pair.b);
    std::fs::create_dir(a.at("dir")).unwrap();
    mknodat(CWD, a.at("null"), FileType::CharacterDevice, 0o640.into(), makedev(1, 3)).unwrap();
    let number = makedev(250, 70_000);
    mknodat(CWD, a.at("dir/disk"), FileType::BlockDevice, 0o600.into(), number).unwrap();
    pair.wait();
    assert_devices(a, "null", 0o640);
    for at in [b.at("null"), b.backing.join("null"), b.at("dir/disk"), b.backing.join("dir/disk")] {
        assert!(stat(&at).file_type().is_socket(), "{} on the peer", at.display());
        assert_eq!(stat(&at).rdev(), 0);
    }
    assert_eq!(stat(&b.at("null")).ino(), stat(&a.at("null")).ino());

    // What either side does with the name reaches both and leaves the device a device.
    set_mode(&a.at("null"), 0o604);
    std::fs::rename(b.at("null"), b.at("dir/zero")).unwrap();
    std::fs::hard_link(a.at("dir/disk"), a.at("same")).unwrap();
    pair.wait();
    assert_devices(a, "dir/zero", 0o604);
    assert!(stat(&a.at("same")).file_type().is_block_device());
    assert_eq!(stat(&b.at("dir/zero")).mode() & 0o7777, 0o604);
    for side in [a, b] {
        side.stop();
        side.start();
    }
    pair.reconnected();
    pair.wait();
    assert_devices(a, "dir/zero", 0o604);
    assert!(stat(&b.backing.join("dir/zero")).file_type().is_socket());
    for side in [a, b] {
        assert_eq!(side.run(&["verify", "--json"]).success().json()["clean"], true);
    }
    std::fs::remove_file(b.at("dir/zero")).unwrap();
    pair.wait();
    assert!(a.backing.join("dir/zero").symlink_metadata().is_err());
}

#[test]
fn a_device_node_found_in_the_shared_directory_stays_and_is_a_socket_on_the_peer() {
    if !has_root("to make device nodes") {
        return;
    }
    let pair = connected!();
    pair.a.stop();
    let (place, mode) = (pair.a.backing.join("zero"), 0o666.into());
    mknodat(CWD, &place, FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
    pair.a.start();
    pair.reconnected();
    pair.wait();
    assert!(stat(&pair.a.at("zero")).file_type().is_char_device());
    assert_eq!(stat(&pair.a.at("zero")).rdev(), makedev(1, 5));
    assert!(stat(&pair.b.backing.join("zero")).file_type().is_socket());
}

#[test]
fn a_socket_serves_on_its_machine_and_arrives_as_a_name() {
    let pair = connected!();
    let at = pair.a.at("socket");
    let listener = UnixListener::bind(&at).unwrap();
    pair.identical();
    let there = stat(&pair.b.at("socket"));
    assert!(there.file_type().is_socket());
    assert!(stat(&pair.b.backing.join("socket")).file_type().is_socket());
    let mut calls = UnixStream::connect(&at).unwrap();
    std::io::Write::write_all(&mut calls, b"over the mount").unwrap();
    drop(calls);
    let mut heard = String::new();
    std::io::Read::read_to_string(&mut listener.accept().unwrap().0, &mut heard).unwrap();
    assert_eq!(heard, "over the mount");
    let refused = UnixStream::connect(pair.b.at("socket")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED), "nobody listens on the peer");
    drop(listener);
    std::fs::remove_file(pair.b.at("socket")).unwrap();
    eventually("the socket goes on a", SOON, || at.symlink_metadata().is_err());
    pair.identical();
}
