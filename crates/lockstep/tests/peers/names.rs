//! Names and directories: what they may be called, and how they move.

use crate::support::repository::noise;
use crate::support::{SetOnDrop, connected, tree};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn directory_renamed_while_its_files_are_still_arriving() {
    let pair = connected!();
    let (a, b) = (&pair.a, &pair.b);
    fs::create_dir_all(a.at("before/deeper")).unwrap();
    for number in 0..150u64 {
        let dir = if number % 3 == 0 { "before/deeper" } else { "before" };
        fs::write(a.at(format!("{dir}/file{number}")), noise(number, 70_000)).unwrap();
    }
    fs::rename(a.at("before"), a.at("between")).unwrap();
    fs::create_dir(a.at("home")).unwrap();
    fs::rename(a.at("between"), a.at("home/after")).unwrap();
    pair.identical();
    assert!(!b.at("before").exists() && !b.at("between").exists());
    assert_eq!(tree::plain_files(&b.at("home/after")).len(), 150);
}

#[test]
fn files_renamed_while_they_are_still_arriving() {
    let pair = connected!();
    for number in 0..60u64 {
        let name = format!("incoming{number}");
        fs::write(pair.a.at(&name), noise(number, 300_000)).unwrap();
        fs::rename(pair.a.at(&name), pair.a.at(format!("final{number}"))).unwrap();
    }
    pair.identical();
    for number in 0..60u64 {
        let bytes = fs::read(pair.b.at(format!("final{number}"))).unwrap();
        assert!(bytes == noise(number, 300_000));
    }
}

#[test]
fn rmdir_and_deep_trees() {
    let pair = connected!();
    let deep: PathBuf = (0..100).map(|level| format!("level{level}")).collect();
    fs::create_dir_all(pair.a.at(&deep)).unwrap();
    fs::write(pair.a.at(deep.join("bottom")), "reached").unwrap();
    pair.identical();
    assert_eq!(fs::read_to_string(pair.b.at(deep.join("bottom"))).unwrap(), "reached");
    let refused = fs::remove_dir(pair.b.at("level0")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOTEMPTY));
    fs::remove_dir_all(pair.b.at("level0/level1")).unwrap();
    pair.identical();
    fs::remove_dir(pair.b.at("level0")).unwrap();
    pair.identical();
    assert_eq!(fs::read_dir(pair.a.mnt()).unwrap().count(), 0);
}

#[test]
fn names_of_255_bytes_and_non_utf8() {
    let pair = connected!();
    let long = "n".repeat(255);
    let accents = "é".repeat(127);
    let not_utf8: &[u8] = b"caf\xe9 \xff\xfe\x01 \n\t*?\\\"'";
    for name in [long.as_bytes(), accents.as_bytes(), not_utf8, b"...", b" ", b"-rf", b"con.txt."] {
        let name = OsStr::from_bytes(name);
        fs::write(pair.a.at(name), name.as_bytes()).unwrap();
        fs::create_dir_all(pair.b.at("dir")).unwrap();
        fs::create_dir(pair.b.at("dir").join(name)).unwrap();
    }
    pair.identical();
    assert_eq!(fs::read(pair.b.at(OsStr::from_bytes(not_utf8))).unwrap(), not_utf8);
    let refused = fs::write(pair.a.at("n".repeat(256)), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENAMETOOLONG));
}

#[test]
fn names_differing_only_in_case_are_two_files() {
    let pair = connected!();
    fs::write(pair.a.at("Readme"), "upper").unwrap();
    fs::write(pair.b.at("readme"), "lower").unwrap();
    pair.identical();
    assert_eq!(fs::read_to_string(pair.b.at("Readme")).unwrap(), "upper");
}

#[test]
fn names_swapped_through_a_third() {
    let pair = connected!();
    for (name, text) in [("one", "1"), ("two", "2")] {
        fs::write(pair.a.at(name), text).unwrap();
    }
    for round in 0..25 {
        let side = if round % 2 == 0 { &pair.a } else { &pair.b };
        fs::rename(side.at("one"), side.at("temp")).unwrap();
        fs::rename(side.at("two"), side.at("one")).unwrap();
        fs::rename(side.at("temp"), side.at("two")).unwrap();
        side.wait();
    }
    pair.identical();
    assert_eq!(fs::read_to_string(pair.b.at("one")).unwrap(), "2");
}

#[test]
fn readdir_is_stable_under_concurrent_changes() {
    let pair = connected!();
    let stays = |number: u32| format!("stays-through-all-of-this-{number:05}");
    fs::create_dir(pair.a.at("dir")).unwrap();
    for number in 0..2000 {
        fs::File::create(pair.a.at("dir").join(stays(number))).unwrap();
    }
    pair.a.wait();
    let expected: Vec<String> = (0..2000).map(stays).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in (0u32..).take_while(|_| !done.load(Ordering::Relaxed)) {
                let name = pair.a.at(format!("dir/goes-{}", round % 97));
                fs::write(&name, "x").unwrap();
                if round % 3 != 0 {
                    fs::remove_file(&name).unwrap();
                }
            }
        });
        let _stop = SetOnDrop(&done);
        for side in [&pair.a, &pair.b].into_iter().cycle().take(12) {
            let names = fs::read_dir(side.at("dir")).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut seen: Vec<String> = names.filter(|name| name.starts_with("stays")).collect();
            seen.sort();
            assert!(seen == expected, "{}: {} of 2000 entries listed", side.name, seen.len());
        }
    });
    pair.identical();
}
