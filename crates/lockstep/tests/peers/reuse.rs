//! Bytes that are here already are not sent again.

use crate::bad_input::with_small_disk;
use crate::support::environment::has_root;
use crate::support::pair::Pair;
use crate::support::repository::noise;
use crate::support::{SOON, connected, eventually};
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

const MIB: usize = 1 << 20;

/// A figure of `b`'s volume in `status --json`.
pub fn figure(pair: &Pair, name: &str) -> u64 {
    let volume = pair.b.volume();
    volume["counters"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {volume:#}"))
}

/// Bytes of content that `b` received while `change` was made on `a` and arrived.
pub fn received_by_b(pair: &Pair, change: impl FnOnce()) -> u64 {
    let before = figure(pair, "content_bytes_received");
    change();
    pair.a.wait();
    figure(pair, "content_bytes_received") - before
}

fn assert_same(pair: &Pair, name: &str, bytes: &[u8]) {
    assert!(fs::read(pair.b.at(name)).unwrap() == bytes, "{name} differs on b");
}

#[test]
fn copies_insertions_and_moved_parts_cost_almost_nothing_on_the_wire() {
    let pair = connected!();
    let body = noise(11, 24 * MIB);
    let whole = received_by_b(&pair, || fs::write(pair.a.at("original"), &body).unwrap());
    assert!((body.len() as u64..body.len() as u64 * 101 / 100).contains(&whole), "{whole}");

    let copy = received_by_b(&pair, || drop(fs::copy(pair.a.at("original"), pair.a.at("copy"))));
    assert_same(&pair, "copy", &body);
    assert!(copy * 100 <= body.len() as u64, "a copy cost {copy} bytes");

    let longer = [noise(12, 1024), body.clone()].concat();
    let front = received_by_b(&pair, || fs::write(pair.a.at("original"), &longer).unwrap());
    assert_same(&pair, "original", &longer);
    assert!(front <= 3 * MIB as u64, "1 KiB at the front cost {front} bytes");

    let (first, second) = body.split_at(10 * MIB);
    let swapped = [second, first].concat();
    let parts = received_by_b(&pair, || fs::write(pair.a.at("swapped"), &swapped).unwrap());
    assert_same(&pair, "swapped", &swapped);
    assert!(parts <= 4 * MIB as u64, "the halves swapped cost {parts} bytes");
    assert!(figure(&pair, "content_bytes_reused") >= 60 * MIB as u64);
    pair.identical();
}

#[test]
fn files_with_the_same_bytes_that_arrive_together_are_fetched_once() {
    let pair = connected!();
    pair.b.stop();
    let body = noise(19, 24 * MIB);
    let (first, second) = body.split_at(12 * MIB);
    for number in 0..6 {
        fs::write(pair.a.at(format!("same{number}")), &body).unwrap();
    }
    fs::write(pair.a.at("twice"), [first, second, first].concat()).unwrap();
    pair.b.start();
    pair.reconnected();
    pair.a.wait();
    let received = figure(&pair, "content_bytes_received");
    assert!(received <= (body.len() + 4 * MIB) as u64, "{received} bytes for seven files");
    pair.identical();
}

#[test]
fn small_copies_are_found_too() {
    let pair = connected!();
    let body = noise(13, 50_000);
    fs::write(pair.a.at("one"), &body).unwrap();
    pair.wait();
    let copy = received_by_b(&pair, || fs::write(pair.a.at("two"), &body).unwrap());
    assert_same(&pair, "two", &body);
    assert_eq!(copy, 0);
}

#[test]
fn what_was_here_before_a_restart_is_reused_after_it() {
    let pair = connected!();
    let body = noise(14, 8 * MIB);
    fs::write(pair.a.at("original"), &body).unwrap();
    pair.wait();
    pair.b.kill9();
    pair.b.start();
    pair.reconnected();
    let copy = received_by_b(&pair, || drop(fs::copy(pair.a.at("original"), pair.a.at("copy"))));
    assert_same(&pair, "copy", &body);
    assert_eq!(copy, 0);
}

#[test]
fn a_file_that_grows_is_not_sent_again() {
    let pair = connected!();
    let body = noise(15, 32 * MIB);
    let received = received_by_b(&pair, || {
        for part in body.chunks(4 * MIB) {
            let mut log = OpenOptions::new().create(true).append(true).open(pair.a.at("log"));
            log.as_mut().unwrap().write_all(part).unwrap();
            drop(log);
            pair.a.wait();
        }
    });
    assert_same(&pair, "log", &body);
    // Each append replaces the last chunk, of 256 KiB on average and 1 MiB at most.
    assert!(received <= (body.len() + 8 * MIB) as u64, "{received} bytes for 32 MiB");
    pair.identical();
}

#[test]
fn holes_stay_holes_on_the_other_side() {
    let pair = connected!();
    let (size, at) = (1u64 << 30, 700 * MIB as u64 + 12_345);
    let data = noise(16, 100_000);
    let received = received_by_b(&pair, || {
        let mut file = fs::File::create(pair.a.at("sparse")).unwrap();
        file.set_len(size).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&data).unwrap();
    });
    let there = pair.b.at("sparse").metadata().unwrap();
    assert_eq!(there.size(), size);
    let stored = pair.b.backing.join("sparse").metadata().unwrap().blocks() * 512;
    assert!(stored <= 2 * MIB as u64, "{stored} bytes stored for 100,000");
    assert!(received <= 4 * MIB as u64, "{received} bytes received for 100,000");
    let mut file = fs::File::open(pair.b.at("sparse")).unwrap();
    let mut read = vec![1; data.len() + 200];
    file.seek(SeekFrom::Start(at - 100)).unwrap();
    file.read_exact(&mut read).unwrap();
    assert!(read == [&[0; 100][..], &data, &[0; 100]].concat());
}

#[test]
fn a_sparse_file_of_64_gib_takes_little_time_disk_and_memory() {
    let pair = connected!();
    let size = 64u64 << 30;
    let data = noise(20, 3 * MIB);
    let received = received_by_b(&pair, || {
        let mut file = fs::File::create(pair.a.at("image")).unwrap();
        file.set_len(size).unwrap();
        for at in [0, 1 << 30, 40 << 30, size - data.len() as u64] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&data).unwrap();
        }
    });
    assert_eq!(pair.b.at("image").metadata().unwrap().size(), size);
    let stored = pair.b.backing.join("image").metadata().unwrap().blocks() * 512;
    assert!(stored <= 20 * MIB as u64, "{stored} bytes stored");
    assert!(received <= 24 * MIB as u64, "{received} bytes received");
    let mut file = fs::File::open(pair.b.at("image")).unwrap();
    file.seek(SeekFrom::Start((40 << 30) - 100)).unwrap();
    let mut read = vec![1; data.len() + 200];
    file.read_exact(&mut read).unwrap();
    assert!(read == [&[0; 100][..], &data, &[0; 100]].concat());
    for side in [&pair.a, &pair.b] {
        let peak = peak_memory_bytes(side.pid());
        println!("largest resident memory of {}: {} MiB", side.name, peak >> 20);
        assert!(peak <= 200 << 20, "{} took {peak} bytes of memory", side.name);
    }
}

fn peak_memory_bytes(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn an_interrupted_transfer_goes_on_after_a_full_disk_and_a_restart_of_either_daemon() {
    if !has_root("to mount a small filesystem") {
        return;
    }
    let Some((pair, disk)) = with_small_disk("24m") else { return };
    let body = noise(17, 48 * MIB);
    fs::write(pair.a.at("big"), &body).unwrap();
    let fills_up = || {
        eventually("the transfer stops at a full disk", SOON, || {
            pair.b.volume()["problems"].to_string().contains("full")
        });
    };
    fills_up();
    let first = figure(&pair, "content_bytes_received");
    assert!(first >= 16 * MIB as u64, "only {first} bytes fetched before the disk was full");

    pair.b.kill9();
    pair.b.start();
    pair.reconnected();
    fills_up();
    let resumed = figure(&pair, "content_bytes_resumed");
    assert!(resumed >= 16 * MIB as u64, "only {resumed} of {first} bytes resumed");

    pair.a.kill9();
    eventually("b notices", SOON, || !pair.b.is_connected());
    pair.a.start();
    pair.reconnected();
    disk.grow("128m");
    pair.a.wait();
    assert_same(&pair, "big", &body);
    let received = figure(&pair, "content_bytes_received");
    let most = body.len() as u64 - resumed + 2 * MIB as u64;
    assert!(received <= most, "{received} bytes received after {resumed} were resumed");
    pair.identical();
}

#[test]
fn what_is_damaged_of_an_interrupted_transfer_is_fetched_again() {
    if !has_root("to mount a small filesystem") {
        return;
    }
    let Some((pair, disk)) = with_small_disk("12m") else { return };
    let body = noise(19, 16 * MIB);
    fs::write(pair.a.at("big"), &body).unwrap();
    eventually("the transfer stops at a full disk", SOON, || {
        pair.b.volume()["problems"].to_string().contains("full")
    });
    pair.b.kill9();
    let mut spoilt = 0;
    for entry in fs::read_dir(pair.b.backing.join(".lockstep/tmp")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(part) = bytes.get_mut(3 * MIB..4 * MIB) {
            spoilt += usize::from(part.iter().any(|byte| *byte != 0));
            part.iter_mut().for_each(|byte| *byte ^= 0x55);
            let file = fs::File::options().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, part, 3 * MIB as u64).unwrap();
        }
    }
    assert_eq!(spoilt, 1, "one file is on its way");
    pair.b.start();
    pair.reconnected();
    disk.grow("64m");
    pair.a.wait();
    assert_same(&pair, "big", &body);
    let resumed = figure(&pair, "content_bytes_resumed");
    assert!(resumed > 2 * MIB as u64, "what is whole is not fetched again: {resumed} resumed");
    pair.identical();
}

#[test]
fn a_wrong_chunk_is_refused_counted_and_fetched_again() {
    let pair = connected!();
    pair.b.stop();
    let body = noise(18, 8 * MIB);
    fs::write(pair.a.at("f"), &body).unwrap();
    pair.a.run(&["wait"]).success();
    // Behind the back of a's daemon: it still serves the file as what it announced.
    let below = pair.a.backing.join("f");
    let spoil = |bytes: &[u8]| {
        let mut file = OpenOptions::new().write(true).open(&below).unwrap();
        file.seek(SeekFrom::Start(4 * MIB as u64)).unwrap();
        file.write_all(bytes).unwrap();
    };
    spoil(&[0xaa; 1000]);
    pair.b.start();
    pair.reconnected();
    eventually("b refuses the wrong chunk", SOON, || figure(&pair, "chunks_refused") >= 2);
    assert_ne!(fs::metadata(pair.b.backing.join("f")).unwrap().mode() & 0o777, 0o644);
    spoil(&body[4 * MIB..4 * MIB + 1000]);
    pair.a.wait();
    assert_same(&pair, "f", &body);
}
