//! Seed bug 7: a large file of Git LFS that grows while it is downloaded, is closed and opened again
//! many times, renamed to its place, and then copied into the working tree.

use crate::reuse::{figure, received_by_b};
use crate::support::git::Git;
use crate::support::pair::Pair;
use crate::support::repository::noise;
use crate::support::{SOON, connected, eventually};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

/// One object of Git LFS.
const OBJECT_BYTES: usize = 420_000_000;
/// What a program that downloads writes between two closes.
const PART_BYTES: usize = 10_000_000;

/// What crosses the wire for an object, its growth and its copies included.
fn assert_cheap(received: u64) {
    let most = OBJECT_BYTES as u64 / 10 * 11;
    println!("{received} bytes received for an object of {OBJECT_BYTES}");
    assert!(received <= most, "{received} bytes received, more than {most}");
}

fn assert_nothing_is_left_under_way(pair: &Pair) {
    let temp = pair.b.backing.join(".lockstep/tmp");
    // All but the note of how far the last batch of changes got.
    let left = || fs::read_dir(&temp).unwrap().flatten().filter(|e| e.file_name() != "begun");
    eventually("nothing is left of transfers", SOON, || left().next().is_none());
}

#[test]
fn seed_bug_7_slow_a_growing_object_is_fetched_once_and_its_copy_is_free() {
    let pair = connected!();
    let body = noise(70, OBJECT_BYTES);
    let lfs = Path::new("repository/.git/lfs");
    fs::create_dir_all(pair.a.at(lfs.join("incomplete"))).unwrap();
    fs::create_dir_all(pair.a.at(lfs.join("objects/ab/cd"))).unwrap();
    let (incomplete, object) = (lfs.join("incomplete/abcd"), lfs.join("objects/ab/cd/abcd"));
    let received = received_by_b(&pair, || {
        let mut size = 0;
        for (number, part) in body.chunks(PART_BYTES).enumerate() {
            let at = pair.a.at(&incomplete);
            let file = OpenOptions::new().create(true).append(true).open(at);
            file.unwrap().write_all(part).unwrap();
            size += part.len() as u64;
            if number % 8 == 7 {
                eventually("b hears of the growth", SOON, || {
                    fs::metadata(pair.b.at(&incomplete)).is_ok_and(|stat| stat.len() == size)
                });
            }
        }
        fs::rename(pair.a.at(&incomplete), pair.a.at(&object)).unwrap();
        fs::copy(pair.a.at(&object), pair.a.at("repository/large.bin")).unwrap();
    });
    assert_cheap(received);
    assert!(figure(&pair, "content_bytes_reused") >= OBJECT_BYTES as u64, "the copy was not free");
    assert!(!pair.b.at(&incomplete).exists());
    for name in [&object, Path::new("repository/large.bin")] {
        assert!(fs::read(pair.b.at(name)).unwrap() == body, "{} differs on b", name.display());
    }
    assert_eq!(figure(&pair, "chunks_refused"), 0);
    assert_nothing_is_left_under_way(&pair);
}

#[test]
fn seed_bug_7_slow_git_lfs_clones_once_and_the_peer_is_clean() {
    let pair = connected!();
    let git = Git::new(&pair.outside("git"));
    let body = noise(71, OBJECT_BYTES);
    let url = lfs_origin(&pair, &git, &body);
    let received = received_by_b(&pair, || {
        git.run(pair.a.mnt(), &["clone", "--quiet", &url, "clone"]);
    });
    assert_cheap(received);
    let there = pair.b.at("clone");
    git.assert_clean(&there);
    assert!(fs::read(there.join("large.bin")).unwrap() == body, "the working copy differs on b");
    git.run(&there, &["lfs", "fsck"]);

    // A second object, committed on the other side and pulled from there.
    let small = noise(72, 3_000_000);
    fs::write(there.join("second.bin"), &small).unwrap();
    git.run(&there, &["add", "second.bin"]);
    git.run(&there, &["commit", "--quiet", "-m", "second"]);
    pair.b.wait();
    let here = pair.a.at("clone");
    git.assert_clean(&here);
    git.run(&here, &["lfs", "fsck"]);
    assert_eq!(git.run(&here, &["log", "-1", "--format=%s"]).trim(), "second");
    assert!(fs::read(here.join("second.bin")).unwrap() == small);
    assert_nothing_is_left_under_way(&pair);
}

/// A bare repository with one object in Git LFS, outside both mounts.
fn lfs_origin(pair: &Pair, git: &Git, body: &[u8]) -> String {
    let (origin, work) = (pair.outside("origin"), pair.outside("work"));
    let url = format!("file://{}", origin.display());
    git.run(&origin, &["init", "--bare", "--quiet", "."]);
    git.run(&work, &["lfs", "install", "--skip-repo"]);
    git.run(&work, &["init", "--quiet", "."]);
    git.run(&work, &["lfs", "track", "*.bin"]);
    fs::write(work.join("large.bin"), body).unwrap();
    git.run(&work, &["add", "."]);
    git.run(&work, &["commit", "--quiet", "-m", "first"]);
    git.run(&work, &["remote", "add", "origin", &url]);
    git.run(&work, &["lfs", "push", "origin", "main"]);
    git.run(&work, &["push", "--quiet", "origin", "main"]);
    url
}
