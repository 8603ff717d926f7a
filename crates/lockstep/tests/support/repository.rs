//! Repositories of an exact shape, generated from a seed through `git fast-import`.

use super::git::Git;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to generate. Every commit after the first rewrites one file.
pub struct Shape {
    /// Directories below the root; each holds the same number of files.
    pub directories: u32,
    /// Files in each directory.
    pub files_each: u32,
    /// Commits, the first included.
    pub commits: u32,
    /// Whether an annotated tag ends the history.
    pub tagged: bool,
    /// Bytes of all blobs together.
    pub blob_bytes: u64,
}

/// 8 files, 24 objects, 2 MB: the seed's small repository.
pub const SMALL: Shape =
    Shape { directories: 2, files_each: 4, commits: 4, tagged: false, blob_bytes: 2_000_000 };

/// 612 files, 2,339 objects, 257 MB in one pack: the seed's large repository.
pub const LARGE: Shape =
    Shape { directories: 36, files_each: 17, commits: 423, tagged: true, blob_bytes: 257_000_000 };

impl Shape {
    /// Files of a checkout.
    pub fn files(&self) -> u32 {
        self.directories * self.files_each
    }

    /// Objects in the pack: blobs, one tree per touched directory and root, commits, the tag.
    pub fn objects(&self) -> u32 {
        let first = self.files() + self.directories + 2;
        let each_later = 4;
        first + (self.commits - 1) * each_later + u32::from(self.tagged)
    }

    /// Generates the repository, bare, at `at`; the same `seed` gives the same objects.
    pub fn generate(&self, git: &Git, at: &Path, seed: u64) {
        std::fs::create_dir_all(at).expect("the test's directory is writable");
        git.run(at, &["init", "--bare", "--quiet", "."]);
        for (key, value) in [("core.compression", "0"), ("pack.window", "0")] {
            git.run(at, &["config", key, value]);
        }
        let mut command = Command::new("git");
        let mut import = git
            .environ(&mut command)
            .current_dir(at)
            .args(["fast-import", "--quiet", "--depth=0"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("git is installed");
        let mut pipe = BufWriter::new(import.stdin.take().expect("piped above"));
        self.write(&mut pipe, Bytes(seed | 1)).expect("git fast-import reads its input");
        drop(pipe);
        assert!(import.wait().expect("our own child").success(), "git fast-import");
        git.run(at, &["repack", "-a", "-d", "--quiet"]);
    }

    fn write(&self, out: &mut impl Write, mut bytes: Bytes) -> std::io::Result<()> {
        let blobs = u64::from(self.files() + self.commits - 1);
        let mean = self.blob_bytes / blobs;
        for commit in 0..self.commits {
            writeln!(out, "commit refs/heads/main")?;
            writeln!(
                out,
                "committer A Tester <tester@example.org> {} +0000",
                1_700_000_000 + commit
            )?;
            write_data(out, format!("commit {commit}\n").as_bytes())?;
            let touched = if commit == 0 {
                0..self.files()
            } else {
                commit % self.files()..commit % self.files() + 1
            };
            for file in touched {
                let mode = if file % 7 == 3 { "100755" } else { "100644" };
                writeln!(out, "M {mode} inline {}", self.path(file).display())?;
                let len = bytes_near(mean, &mut bytes);
                write_data(out, &bytes.take(len))?;
            }
        }
        if self.tagged {
            writeln!(out, "tag v1\nfrom refs/heads/main")?;
            writeln!(out, "tagger A Tester <tester@example.org> 1700009999 +0000")?;
            write_data(out, b"the end\n")?;
        }
        writeln!(out, "done")
    }

    /// The path of file number `file`.
    pub fn path(&self, file: u32) -> PathBuf {
        PathBuf::from(format!(
            "dir{:02}/file{:02}.bin",
            file % self.directories,
            file / self.directories
        ))
    }
}

fn write_data(out: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    writeln!(out, "data {}", data.len())?;
    out.write_all(data)?;
    writeln!(out)
}

fn bytes_near(mean: u64, bytes: &mut Bytes) -> usize {
    let spread = bytes.next() % (mean + 1);
    usize::try_from(mean / 2 + spread).expect("blobs fit into memory")
}

/// Incompressible bytes from a seed (xorshift64*).
pub struct Bytes(pub u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
        bytes
    }
}

/// `len` incompressible bytes from `seed`.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    Bytes(seed.wrapping_mul(2) + 1).take(len)
}

/// Files, packed objects and pack bytes of the repository `dir` (bare or not).
pub fn measured(git: &Git, dir: &Path) -> (usize, u64, u64) {
    let files = git.run(dir, &["ls-tree", "-r", "--name-only", "HEAD"]).lines().count();
    let counted = git.run(dir, &["count-objects", "-v"]);
    let counts: BTreeMap<&str, u64> = counted
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
        .collect();
    (files, counts["in-pack"] + counts["count"], counts["size-pack"] * 1024)
}
