//! Zeros that take no space.

use crate::Backing;
use lockstep_disk::{Disk, describe, is_hole, punch, write_with_holes};
use std::path::Path;

const MIB: usize = 1 << 20;

#[test]
fn whole_blocks_of_zeros_are_left_out_and_everything_else_is_written() {
    let tree = Backing::new();
    let file = tree.disk.create(Path::new("f"), 0o644).unwrap();
    file.set_len(2 * MIB as u64).unwrap();
    let mut bytes = vec![0; MIB + 77];
    for at in [0, 5_000, 300_001, MIB + 76] {
        bytes[at] = 1;
    }
    write_with_holes(&*file, &bytes, 1_234).unwrap();
    let mut read = vec![9; bytes.len()];
    assert_eq!(file.read_at(&mut read, 1_234).unwrap(), read.len());
    assert!(read == bytes);
    let stored = file.stat().unwrap().blocks * 512;
    assert!(stored <= 16 * 4096, "{stored} bytes stored for four blocks");

    punch(&*file, 0, MIB as u64).unwrap();
    assert_eq!(file.read_at(&mut read[..MIB], 0).unwrap(), MIB);
    assert!(read[..MIB].iter().all(|byte| *byte == 0));
}

#[test]
fn the_chunks_of_a_long_hole_are_known_without_their_bytes() {
    let tree = Backing::new();
    let file = tree.disk.create(Path::new("f"), 0o644).unwrap();
    let size = 10 * MIB as u64 + 5;
    file.set_len(size).unwrap();
    let manifest = describe(&*file, size, &|| false).unwrap().unwrap().manifest;
    assert_eq!(manifest.chunks.iter().filter(|chunk| is_hole(chunk)).count(), 10);
    file.write_all_at(b"x", 3 * MIB as u64).unwrap();
    let manifest = describe(&*file, size, &|| false).unwrap().unwrap().manifest;
    assert!((8..10).contains(&manifest.chunks.iter().filter(|chunk| is_hole(chunk)).count()));
}
