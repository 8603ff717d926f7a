//! A reader in a loop on one side while the other rewrites: every read is one version, whole.

use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::{SOON, SetOnDrop, connected, eventually};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const VERSIONS: usize = 48;

/// How the writer replaces the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    RenameOver,
    InPlace,
}

/// One file: its name, how it is rewritten, and the bytes of each version.
struct Subject {
    name: String,
    way: Way,
    versions: Vec<Vec<u8>>,
    newest_read: AtomicUsize,
}

impl Subject {
    fn new(way: Way, size: usize) -> Subject {
        let version = |number: usize| {
            // Lengths differ from version to version, up and down.
            let len = size / 2 + (number * 7919) % (size / 2 + 1);
            noise((size * 1000 + number) as u64, len)
        };
        Subject {
            name: format!("{way:?}-{size}"),
            way,
            versions: (0..VERSIONS).map(version).collect(),
            newest_read: AtomicUsize::new(0),
        }
    }

    fn write(&self, on: &Peer, number: usize) {
        let path = on.at(&self.name);
        let bytes = &self.versions[number];
        match self.way {
            Way::InPlace => std::fs::write(path, bytes).unwrap(),
            Way::RenameOver => {
                let new = on.at(format!("{}.new", self.name));
                std::fs::write(&new, bytes).unwrap();
                std::fs::rename(new, path).unwrap();
            }
        }
    }

    /// Bursts of three versions, then waits until the reader has the last of them.
    fn write_all(&self, on: &Peer) {
        for number in 1..VERSIONS {
            self.write(on, number);
            if number % 3 == 0 {
                let what = format!("b reads version {number} of {}", self.name);
                eventually(&what, SOON, || self.newest_read.load(Ordering::Relaxed) >= number);
            }
        }
    }

    /// One read of the whole file: the version it is, never one older than a read before.
    fn read(&self, on: &Peer) -> usize {
        let bytes = match std::fs::read(on.at(&self.name)) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == ErrorKind::NotFound => {
                panic!("{}: the name was missing for a moment", self.name)
            }
            Err(why) => panic!("{}: {why}", self.name),
        };
        let number = self.versions.iter().position(|version| *version == bytes);
        let number = number.unwrap_or_else(|| panic!("{}", self.explain(&bytes)));
        let before = self.newest_read.fetch_max(number, Ordering::Relaxed);
        assert!(number >= before, "{}: version {number} after {before}", self.name);
        number
    }

    fn explain(&self, bytes: &[u8]) -> String {
        let zeros = bytes.iter().filter(|byte| **byte == 0).count();
        let starts = |version: &Vec<u8>| bytes.len() >= 8 && version[..8] == bytes[..8];
        let start = self.versions.iter().position(starts);
        let end = self.versions.iter().position(|version| version.len() == bytes.len());
        format!(
            "{}: {} bytes that are no version; {zeros} zeros; starts like version {start:?}, is as long as {end:?}",
            self.name,
            bytes.len()
        )
    }
}

#[test]
fn reader_in_a_loop_never_sees_zeros_mixes_or_short_files() {
    let pair = connected!();
    let ways = [Way::RenameOver, Way::InPlace];
    for size in [100, 100 << 10, 1 << 20] {
        let subjects = ways.map(|way| Subject::new(way, size));
        subjects.iter().for_each(|subject| subject.write(&pair.a, 0));
        pair.a.wait();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = SetOnDrop(&done);
            let (done, pair) = (&done, &pair);
            let readers = subjects.each_ref().map(|subject| {
                scope.spawn(move || {
                    let mut seen = BTreeSet::new();
                    while !done.load(Ordering::Relaxed) {
                        seen.insert(subject.read(&pair.b));
                    }
                    seen.insert(subject.read(&pair.b));
                    println!("{}: {} of {VERSIONS} versions seen", subject.name, seen.len());
                })
            });
            let writers =
                subjects.each_ref().map(|subject| scope.spawn(move || subject.write_all(&pair.a)));
            let ended = writers.map(|writer| writer.join());
            pair.a.wait();
            done.store(true, Ordering::Relaxed);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
            ended.into_iter().for_each(|writer| writer.unwrap());
        });
        for subject in &subjects {
            assert_eq!(subject.read(&pair.b), VERSIONS - 1, "{} ends at its last", subject.name);
        }
    }
    pair.identical();
}
