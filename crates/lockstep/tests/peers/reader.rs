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
    fn write_all(&self, on: &Peer, done: &AtomicBool) {
        let stopped = || done.load(Ordering::Relaxed);
        for number in (1..VERSIONS).take_while(|_| !stopped()) {
            self.write(on, number);
            if number % 3 == 0 {
                let what = format!("b reads version {number} of {}", self.name);
                eventually(&what, SOON, || {
                    stopped() || self.newest_read.load(Ordering::Relaxed) >= number
                });
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

/// `a` writes every version, `b` reads all the time; then both agree on the last one.
fn write_here_read_there(way: Way, size: usize) {
    let pair = connected!();
    let subject = Subject::new(way, size);
    subject.write(&pair.a, 0);
    pair.a.wait();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, pair, subject) = (&done, &pair, &subject);
        scope.spawn(move || {
            let _stop = SetOnDrop(done);
            subject.write_all(&pair.a, done);
            pair.a.wait();
        });
        let _stop = SetOnDrop(done);
        let (mut seen, mut reads) = (BTreeSet::new(), 0);
        while !done.load(Ordering::Relaxed) {
            seen.insert(subject.read(&pair.b));
            reads += 1;
        }
        println!("{}: {reads} reads, {} of {VERSIONS} versions seen", subject.name, seen.len());
    });
    assert_eq!(subject.read(&pair.b), VERSIONS - 1, "it ends at the last version");
    pair.identical();
}

/// What the tests of this file are cases of.
mod reader_in_a_loop_never_sees_zeros_mixes_or_short_files {
    use super::{Way, write_here_read_there};

    #[test]
    fn of_100_bytes_renamed_over() {
        write_here_read_there(Way::RenameOver, 100);
    }

    #[test]
    fn of_100_bytes_rewritten_in_place() {
        write_here_read_there(Way::InPlace, 100);
    }

    #[test]
    fn of_100_kibibytes_renamed_over() {
        write_here_read_there(Way::RenameOver, 100 << 10);
    }

    #[test]
    fn of_100_kibibytes_rewritten_in_place() {
        write_here_read_there(Way::InPlace, 100 << 10);
    }

    #[test]
    fn of_a_mebibyte_renamed_over() {
        write_here_read_there(Way::RenameOver, 1 << 20);
    }

    #[test]
    fn of_a_mebibyte_rewritten_in_place() {
        write_here_read_there(Way::InPlace, 1 << 20);
    }
}

/// Each new file is overwritten by a shorter one as soon as its name shows on the other side, where
/// it is being read all the time.
#[test]
fn a_new_file_overwritten_by_a_shorter_one_while_it_arrives_is_never_padded() {
    let pair = connected!();
    let (long, short) = (vec![b'x'; 70_000], vec![b'y'; 50]);
    let (now, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let name = |number: usize| format!("new{number}");
    std::thread::scope(|scope| {
        let (pair, long, short, now, done) = (&pair, &long, &short, &now, &done);
        scope.spawn(move || {
            let _stop = SetOnDrop(done);
            for number in 0..60 {
                now.store(number, Ordering::Relaxed);
                std::fs::write(pair.a.at(name(number)), long).unwrap();
                pair.seen_on_b(&name(number));
                std::fs::write(pair.a.at(name(number)), short).unwrap();
                let there = pair.b.at(name(number));
                eventually("the last version shows", SOON, || {
                    done.load(Ordering::Relaxed)
                        || std::fs::read(&there).is_ok_and(|is| is == *short)
                });
            }
        });
        let readers = (0..3).map(|_| {
            scope.spawn(move || {
                let _stop = SetOnDrop(done);
                while !done.load(Ordering::Relaxed) {
                    let Ok(bytes) = std::fs::read(pair.b.at(name(now.load(Ordering::Relaxed))))
                    else {
                        continue;
                    };
                    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
                    let whole = bytes.is_empty() || bytes == *long || bytes == *short;
                    assert!(whole, "{} bytes, {zeros} of them zeros", bytes.len());
                }
            })
        });
        readers.collect::<Vec<_>>().into_iter().for_each(|reader| reader.join().unwrap());
    });
}
