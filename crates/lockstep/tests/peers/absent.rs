//! Content that is named here and not here yet.

use crate::support::pair::Pair;
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::{SOON, connected, eventually};
use rustix::process::Signal;
use std::io::Read;
use std::time::{Duration, Instant};

const BIG: usize = 96 << 20;

/// Opens `big` on `b` as soon as its name is there, and stops the peer that has its bytes.
#[test]
fn absent_content_without_its_peer_is_an_error_and_never_an_end() {
    let pair = connected!();
    let bytes = noise(7, BIG);
    std::fs::write(pair.a.at("big"), &bytes).unwrap();
    eventually("the name is on b", SOON, || {
        std::fs::metadata(pair.b.at("big")).is_ok_and(|stat| stat.len() == BIG as u64)
    });
    pair.a.signal(Signal::STOP);
    let mut read = Vec::new();
    let outcome = std::fs::File::open(pair.b.at("big")).and_then(|mut f| f.read_to_end(&mut read));
    pair.a.signal(Signal::CONT);
    match outcome {
        Ok(len) => assert!(len == BIG && read == bytes, "a short or wrong read of {len} bytes"),
        Err(why) => assert_eq!(why.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error())),
    }
    assert!(bytes.starts_with(&read), "what was read before the error is right");
    pair.reconnected();
    pair.wait();
    assert!(std::fs::read(pair.b.at("big")).unwrap() == bytes, "it is whole once the peer is back");
}

#[test]
fn a_file_replaced_while_it_is_read_from_afar_is_read_to_its_end() {
    let pair = connected!();
    let (old, new) = (noise(1, 8 << 20), noise(2, 8 << 20));
    std::fs::write(pair.a.at("f"), &old).unwrap();
    let opened = std::cell::RefCell::new(None);
    eventually("f can be opened on b", SOON, || {
        *opened.borrow_mut() = std::fs::File::open(pair.b.at("f")).ok();
        opened.borrow().is_some()
    });
    std::fs::write(pair.a.at("f.new"), &new).unwrap();
    std::fs::rename(pair.a.at("f.new"), pair.a.at("f")).unwrap();
    let mut read = Vec::new();
    opened.into_inner().unwrap().read_to_end(&mut read).unwrap();
    assert!(
        read == old || read == new || read.is_empty(),
        "{} bytes of neither version",
        read.len()
    );
    pair.wait();
    assert!(std::fs::read(pair.b.at("f")).unwrap() == new);
    pair.identical();
}

#[test]
fn a_mount_made_again_in_the_same_daemon_hears_of_changes() {
    let pair = connected!();
    std::fs::write(pair.a.at("f"), "one").unwrap();
    pair.wait();
    assert_eq!(std::fs::read(pair.b.at("f")).unwrap(), b"one");
    let volume = pair.b.volume()["name"].as_str().unwrap().to_owned();
    assert!(pair.b.command(&["unmount", &volume]).status().unwrap().success());
    pair.b.start();
    assert_eq!(std::fs::read(pair.b.at("f")).unwrap(), b"one");
    assert!(std::fs::metadata(pair.b.at("g")).is_err());
    std::fs::write(pair.a.at("f"), "two").unwrap();
    std::fs::write(pair.a.at("g"), "new").unwrap();
    pair.wait();
    assert_eq!(std::fs::read(pair.b.at("f")).unwrap(), b"two");
    assert_eq!(std::fs::read(pair.b.at("g")).unwrap(), b"new");
}

/// Reads `name` on `side` to its end: how it failed, and after how long.
fn failed_read(side: &Peer, name: &str) -> (Option<i32>, Duration) {
    let since = Instant::now();
    let read = std::fs::read(side.at(name));
    (read.err().and_then(|why| why.raw_os_error()), since.elapsed())
}

#[test]
fn slow_a_read_fails_when_no_right_bytes_came_for_30_s_from_a_connected_peer() {
    let Some(pair) = Pair::on_demand() else { return };
    for (number, name) in ["gone", "spoilt"].into_iter().enumerate() {
        std::fs::write(pair.a.at(name), noise(number as u64, 300_000)).unwrap();
    }
    pair.wait();
    // The peer cannot serve the one, and serves other bytes than it announced of the other.
    std::fs::remove_file(pair.a.backing.join("gone")).unwrap();
    std::fs::write(pair.a.backing.join("spoilt"), noise(9, 300_000)).unwrap();
    std::thread::scope(|threads| {
        let reads = ["gone", "spoilt"].map(|name| {
            (
                name,
                threads.spawn({
                    let b = &pair.b;
                    move || failed_read(b, name)
                }),
            )
        });
        for (name, read) in reads {
            let (errno, after) = read.join().unwrap();
            assert_eq!(errno, Some(libc::EIO), "{name} after {after:?}");
            assert!((29..60).contains(&after.as_secs()), "{name} after {after:?}");
        }
    });
    assert!(pair.b.is_connected(), "the peer was there all the time");
}

#[test]
fn a_file_removed_before_its_bytes_came_and_that_nobody_has_reads_as_estale() {
    let Some(pair) = Pair::on_demand() else { return };
    std::fs::write(pair.a.at("f"), noise(1, 300_000)).unwrap();
    pair.wait();
    let held = std::fs::File::open(pair.b.at("f")).unwrap();
    std::fs::remove_file(pair.a.at("f")).unwrap();
    eventually("the removal is on b", SOON, || !pair.b.at("f").exists());
    // The bytes are kept on a as long as b has not said that it is done.
    for kept in std::fs::read_dir(pair.a.backing.join(".lockstep/keep")).unwrap().flatten() {
        std::fs::remove_file(kept.path()).unwrap();
    }
    let failed = std::io::Read::read(&mut &held, &mut [0; 100]).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::ESTALE));
}

#[test]
fn the_private_directory_is_refused_at_the_root_only() {
    let pair = connected!();
    let private = std::fs::create_dir(pair.a.at(".lockstep")).unwrap_err();
    assert_eq!(private.raw_os_error(), Some(rustix::io::Errno::PERM.raw_os_error()));
    std::fs::create_dir_all(pair.a.at("d/.lockstep")).unwrap();
    pair.wait();
    assert!(pair.b.at("d/.lockstep").is_dir(), "below the root the name is an ordinary one");
}
