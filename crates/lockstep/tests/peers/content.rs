//! How bytes change, and that the other side has exactly them.

use crate::support::repository::noise;
use crate::support::{SOON, connected};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

fn open_to_write(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn equal_size_overwrite() {
    let pair = connected!();
    for round in 0..5u8 {
        let (from, to) = if round % 2 == 0 { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        let bytes = vec![b'0' + round; 41];
        std::fs::write(from.at("ref"), &bytes).unwrap();
        from.wait();
        assert_eq!(std::fs::read(to.at("ref")).unwrap(), bytes);
    }
    pair.identical();
}

#[test]
fn one_byte_edit_in_the_middle_of_a_mebibyte() {
    let pair = connected!();
    let mut bytes = noise(3, 1 << 20);
    std::fs::write(pair.a.at("file"), &bytes).unwrap();
    pair.a.wait();
    assert!(std::fs::read(pair.b.at("file")).unwrap() == bytes);
    bytes[1 << 19] ^= 0xff;
    open_to_write(&pair.a.at("file")).write_all_at(&bytes[1 << 19..][..1], 1 << 19).unwrap();
    pair.a.wait();
    assert!(std::fs::read(pair.b.at("file")).unwrap() == bytes);
    bytes[7] ^= 0xff;
    open_to_write(&pair.b.at("file")).write_all_at(&bytes[7..8], 7).unwrap();
    pair.b.wait();
    assert!(std::fs::read(pair.a.at("file")).unwrap() == bytes);
    pair.identical();
}

#[test]
fn truncate_to_zero_and_to_a_hole() {
    let pair = connected!();
    let path = pair.a.at("file");
    std::fs::write(&path, noise(4, 100_000)).unwrap();
    pair.identical();
    open_to_write(&path).set_len(0).unwrap();
    pair.identical();
    assert_eq!(pair.b.at("file").metadata().unwrap().len(), 0);
    open_to_write(&path).set_len(1 << 20).unwrap();
    pair.identical();
    assert!(std::fs::read(pair.b.at("file")).unwrap() == vec![0; 1 << 20]);
    open_to_write(&pair.b.at("file")).set_len(4097).unwrap();
    pair.identical();
    assert_eq!(path.metadata().unwrap().len(), 4097);
}

#[test]
fn append_from_two_opens() {
    let pair = connected!();
    let path = pair.a.at("log");
    let open = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let (mut one, mut two) = (open(), open());
    let mut expected = String::new();
    for line in 0..50 {
        let (file, name) = if line % 2 == 0 { (&mut one, "one") } else { (&mut two, "two") };
        let text = format!("{line} {name}\n");
        file.write_all(text.as_bytes()).unwrap();
        expected.push_str(&text);
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    drop((one, two));
    pair.a.wait();
    assert_eq!(std::fs::read_to_string(pair.b.at("log")).unwrap(), expected);
    let mut there = OpenOptions::new().append(true).open(pair.b.at("log")).unwrap();
    there.write_all(b"from b\n").unwrap();
    drop(there);
    pair.b.wait();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected + "from b\n");
    pair.identical();
}

#[test]
fn a_file_held_open_and_written_arrives_without_a_close() {
    let pair = connected!();
    let mut file = File::create(pair.a.at("held")).unwrap();
    file.write_all(b"first\n").unwrap();
    pair.seen_on_b("held");
    file.write_all(b"second\n").unwrap();
    crate::support::eventually("both lines show on b", crate::support::SOON, || {
        std::fs::read(pair.b.at("held")).is_ok_and(|bytes| bytes == b"first\nsecond\n")
    });
    file.write_all(b"third\n").unwrap();
    pair.a.wait();
    assert_eq!(std::fs::read(pair.b.at("held")).unwrap(), b"first\nsecond\nthird\n");
}

#[test]
fn empty_files_and_directories() {
    let pair = connected!();
    for number in 0..20 {
        File::create(pair.a.at(format!("empty{number}"))).unwrap();
        std::fs::create_dir(pair.b.at(format!("dir{number}"))).unwrap();
    }
    pair.identical();
    assert_eq!(std::fs::read_dir(pair.a.mnt()).unwrap().count(), 40);
    std::fs::write(pair.b.at("empty3"), "no longer").unwrap();
    pair.identical();
}

#[test]
fn a_large_file_and_many_small_ones_at_once() {
    let pair = connected!();
    std::fs::write(pair.a.at("large"), noise(6, 40 << 20)).unwrap();
    for number in 0..1000u64 {
        std::fs::write(pair.a.at(format!("small{number}")), noise(number, 4096)).unwrap();
    }
    pair.a.wait();
    pair.identical();
    assert_eq!(pair.b.at("large").metadata().unwrap().size(), 40 << 20);
}

#[test]
fn the_plain_files_below_are_the_users_files() {
    let pair = connected!();
    std::fs::create_dir(pair.a.at("dir")).unwrap();
    for number in 0..20u64 {
        std::fs::write(pair.a.at(format!("dir/{number}")), noise(number, 50_000)).unwrap();
    }
    pair.wait();
    use crate::support::tree::plain_files;
    let shown = plain_files(pair.a.mnt());
    assert_eq!(shown.len(), 20);
    assert!(plain_files(&pair.a.backing) == shown);
    assert!(plain_files(&pair.b.backing) == shown);
}

#[test]
fn removed_files_give_their_space_back() {
    let pair = connected!();
    for number in 0..10u64 {
        std::fs::write(pair.a.at(format!("{number}")), noise(number, 1 << 20)).unwrap();
        std::fs::remove_file(pair.a.at(format!("{number}"))).unwrap();
        std::fs::write(pair.a.at("rewritten"), noise(number, 1 << 20)).unwrap();
    }
    pair.wait();
    let kept = || std::fs::read_dir(pair.a.backing.join(".lockstep/keep")).unwrap().count();
    crate::support::eventually("nothing is kept of removed files", SOON, || kept() == 0);
}
