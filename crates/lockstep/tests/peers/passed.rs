//! Files that the kernel reads and writes by itself: nobody tells the daemon of a write. Where the
//! kernel does not take them, all of this holds with the daemon in between.

use crate::support::mapping::Mapping;
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::{SOON, connected, eventually};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

fn made(path: &Path) -> File {
    OpenOptions::new().write(true).create_new(true).open(path).unwrap()
}

/// Who may map it to write has it from the daemon.
fn made_to_map(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
}

/// The write requests that `peer` answered while `work` was done; none where the kernel passes.
fn writes(peer: &Peer, work: impl FnOnce()) -> u64 {
    let before = peer.requests("write");
    work();
    peer.requests("write") - before
}

fn passes(peer: &Peer) -> bool {
    peer.volume()["passthrough"] == true
}

#[test]
fn what_the_kernel_writes_by_itself_arrives_while_the_file_is_held_open() {
    let pair = connected!();
    let bytes = noise(1, 300_000);
    let mut file = made(&pair.a.at("made"));
    let requests = writes(&pair.a, || {
        for part in bytes.chunks(100_000) {
            file.write_all(part).unwrap();
            let end = file.stream_position().unwrap();
            assert_eq!(file.metadata().unwrap().len(), end);
            assert_eq!(fs::metadata(pair.a.at("made")).unwrap().len(), end);
            let shown = fs::read_dir(pair.a.mnt()).unwrap().map(|e| e.unwrap().metadata().unwrap());
            assert_eq!(shown.map(|m| m.len()).max(), Some(end));
            assert_eq!(fs::read(pair.a.at("made")).unwrap(), bytes[..end as usize]);
            pair.a.wait();
            assert!(fs::read(pair.b.at("made")).unwrap() == bytes[..end as usize]);
        }
    });
    assert!(requests > 0 || passes(&pair.a), "somebody must have written");
    assert!(requests == 0 || !passes(&pair.a), "{requests} writes went through the daemon");
    drop(file);
    pair.identical();
    let (a, b) =
        (fs::metadata(pair.a.at("made")).unwrap(), fs::metadata(pair.b.at("made")).unwrap());
    assert_eq!((a.mtime(), a.mtime_nsec()), (b.mtime(), b.mtime_nsec()));
}

#[test]
fn what_is_written_and_not_closed_shows_within_two_seconds() {
    let pair = connected!();
    let mut file = made(&pair.a.at("made"));
    for length in [5, 10, 15] {
        file.write_all(b"12345").unwrap();
        eventually("the file grows at b", Duration::from_secs(4), || {
            fs::metadata(pair.b.at("made")).is_ok_and(|m| m.len() == length)
        });
    }
}

#[test]
fn a_mapping_written_to_after_it_was_announced_is_announced_at_its_end() {
    let pair = connected!();
    let file = made_to_map(&pair.a.at("mapped"));
    file.set_len(8192).unwrap();
    let mut mapping = Mapping::new(&file, 8192, true).unwrap();
    mapping.put(0, b"first");
    pair.a.wait();
    // The page is dirty already: this leaves no trace in the file's times.
    mapping.put(0, b"later");
    drop(mapping);
    drop(file);
    pair.identical();
    assert_eq!(fs::read(pair.b.at("mapped")).unwrap()[..5], *b"later");
}

#[test]
fn what_is_written_through_a_mapping_after_the_close_arrives() {
    let pair = connected!();
    let file = made_to_map(&pair.a.at("mapped"));
    file.set_len(8192).unwrap();
    let mut mapping = Mapping::new(&file, 8192, true).unwrap();
    drop(file);
    pair.a.wait();
    mapping.put(5000, b"after the close");
    drop(mapping);
    pair.identical();
    assert_eq!(fs::read(pair.b.at("mapped")).unwrap()[5000..5015], *b"after the close");
}

#[test]
fn an_idle_reader_and_writer_of_a_file_that_is_made_makes_no_conflict() {
    let pair = connected!();
    let path = pair.a.at("made");
    let mut maker = made(&path);
    maker.write_all(b"mine").unwrap();
    let idle = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    pair.a.wait();
    fs::write(pair.b.at("made"), b"theirs, later").unwrap();
    pair.b.run(&["wait", "--timeout", "2"]);
    drop((maker, idle));
    pair.identical();
    assert_eq!(fs::read(&path).unwrap(), b"theirs, later");
    assert_eq!(fs::read_dir(pair.a.mnt()).unwrap().count(), 1, "no conflict");
}

#[test]
fn who_opens_a_file_while_it_is_made_reads_and_writes_the_same_bytes() {
    let pair = connected!();
    let path = pair.a.at("made");
    let mut maker = made(&path);
    maker.write_all(b"0123456789").unwrap();
    let (mut reader, writer) =
        (File::open(&path).unwrap(), OpenOptions::new().write(true).open(&path).unwrap());
    writer.write_all_at(b"ab", 8).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "01234567ab");
    drop(maker);
    writer.set_len(4).unwrap();
    reader.seek(SeekFrom::Start(0)).unwrap();
    text.clear();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "0123");
    drop((reader, writer));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123");
    pair.identical();
}

#[test]
fn a_file_appended_to_and_one_opened_again_follow_their_peer() {
    let pair = connected!();
    let mut log = OpenOptions::new().append(true).create(true).open(pair.a.at("log")).unwrap();
    log.write_all(b"one\n").unwrap();
    pair.a.wait();
    fs::write(pair.b.at("log"), b"theirs\n").unwrap();
    pair.b.wait();
    log.write_all(b"two\n").unwrap();
    drop(log);
    pair.identical();
    assert_eq!(fs::read(pair.b.at("log")).unwrap(), b"theirs\ntwo\n");
}

#[test]
fn a_peers_newer_bytes_show_once_the_maker_has_closed() {
    let pair = connected!();
    let mut file = made(&pair.a.at("made"));
    file.write_all(b"mine").unwrap();
    pair.a.wait();
    fs::write(pair.b.at("made"), b"theirs, later").unwrap();
    eventually("the new version is known", SOON, || {
        pair.a.volume()["peers"][0]["missing"].as_u64() != Some(0)
            || fs::read(pair.a.at("made")).unwrap() != b"mine"
    });
    drop(file);
    pair.identical();
    assert_eq!(fs::read(pair.a.at("made")).unwrap(), b"theirs, later");
    assert_eq!(fs::read_dir(pair.a.mnt()).unwrap().count(), 1, "no conflict: one saw the other");
}

#[test]
fn what_both_sides_write_to_a_file_while_its_maker_holds_it_open_is_kept() {
    let pair = connected!();
    let mut file = made(&pair.a.at("made"));
    file.write_all(b"mine").unwrap();
    pair.a.wait();
    fs::write(pair.b.at("made"), b"theirs").unwrap();
    pair.b.run(&["wait", "--timeout", "3"]);
    file.write_all(b", and more").unwrap();
    drop(file);
    pair.identical();
    let texts: Vec<_> = fs::read_dir(pair.a.mnt())
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(texts.iter().any(|text| text.contains("and more")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("theirs")), "{texts:?}");
}

#[test]
fn a_name_taken_from_a_file_that_is_being_written_does_not_take_its_bytes() {
    let pair = connected!();
    let mut file = made(&pair.a.at("made"));
    file.write_all(b"before").unwrap();
    pair.a.wait();
    file.write_all(b", after").unwrap();
    fs::rename(pair.a.at("made"), pair.a.at("moved")).unwrap();
    fs::hard_link(pair.a.at("moved"), pair.a.at("second")).unwrap();
    fs::remove_file(pair.a.at("moved")).unwrap();
    file.write_all(b", last").unwrap();
    drop(file);
    pair.identical();
    assert_eq!(fs::read(pair.b.at("second")).unwrap(), b"before, after, last");
}
