//! A small repository like the one of the seed article: 8 files, 24 objects, 2 MiB.

use super::checks::git;
use super::stage::Stage;
use crate::errors::{Failure, Outcome};
use std::fs;
use std::path::Path;

/// Paths and sizes. The first commit has 12 objects; each later one, a changed file two levels deep,
/// adds 4.
const FILES: [(&str, usize); 8] = [
    ("README.md", 2_000),
    ("LICENSE", 11_000),
    ("build.sh", 700),
    ("logo.bin", 900_000),
    ("src/main.c", 40_000),
    ("src/main.h", 4_000),
    ("media/intro.bin", 640_000),
    ("media/outro.bin", 500_000),
];
const LATER_CHANGES: [&str; 3] = ["src/main.c", "media/outro.bin", "src/main.h"];

/// Makes the repository beside the peers; its address.
pub fn generate(stage: &Stage) -> Outcome<String> {
    let dir = stage.dir().join("origin");
    stage.output(git(stage.dir()).args(["init", "--quiet", "-b", "main"]).arg(&dir))?;
    for (seed, (path, len)) in (1..).zip(FILES) {
        write(&dir.join(path), seed, len)?;
    }
    commit(stage, &dir, "Everything")?;
    for (seed, path) in (100..).zip(LATER_CHANGES) {
        let (_, len) = FILES.iter().find(|(name, _)| *name == path).expect("one of the files");
        write(&dir.join(path), seed, *len)?;
        commit(stage, &dir, &format!("Change {path}"))?;
    }
    Ok(format!("file://{}", dir.display()))
}

fn commit(stage: &Stage, dir: &Path, message: &str) -> Outcome<()> {
    stage.output(git(dir).args(["add", "--all"]))?;
    stage.output(git(dir).args(["commit", "--quiet", "-m", message])).map(drop)
}

fn write(path: &Path, seed: u64, len: usize) -> Outcome<()> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, noise(seed, len)))
        .map_err(|e| Failure::io("write", path, &e, "make room there"))
}

/// Bytes that no compression shortens, the same for the same seed (xorshift64).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
