//! Chunking and hashing through real files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::limits::{CHUNK_MAX_BYTES, INLINE_CONTENT_MAX_BYTES};
use lockstep_core::{ContentRef, Manifest};
use lockstep_disk::chunk::CHUNK_MIN_BYTES;
use lockstep_disk::{
    AllocateMode, BackingStat, Description, Disk, DiskFile, PlainDisk, SeekWhat, describe,
    describe_bytes, verify_chunk, verify_manifest,
};
use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;

/// Bytes without pattern, the same for the same seed: the stream that BLAKE3 extends a key to.
fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

struct OnDisk {
    _dir: TempDir,
    file: Arc<dyn DiskFile>,
}

fn on_disk(content: &[u8]) -> OnDisk {
    let dir = TempDir::new().unwrap();
    let disk = PlainDisk::open(dir.path()).unwrap();
    let file = disk.create(Path::new("file"), 0o600).unwrap();
    file.write_all_at(content, 0).unwrap();
    OnDisk { _dir: dir, file }
}

fn describe_all(file: &dyn DiskFile) -> Description {
    describe(file, file.stat().unwrap().size_bytes, &|| false).unwrap().unwrap()
}

#[test]
fn a_file_and_its_bytes_have_the_same_description() {
    for len in [
        0,
        1,
        INLINE_CONTENT_MAX_BYTES as usize,
        INLINE_CONTENT_MAX_BYTES as usize + 1,
        CHUNK_MIN_BYTES,
        CHUNK_MIN_BYTES + 1,
        MIB - 1,
        4 * MIB,
        4 * MIB + 1,
        13 * MIB + 12_345,
    ] {
        let content = random(len, len as u64);
        let described = describe_all(&*on_disk(&content).file);
        assert_eq!(described, describe_bytes(&content), "{len} bytes");
        assert_eq!(described.content.size_bytes, len as u64);
        assert!(verify_manifest(&described.manifest, &described.content), "{len} bytes");
        let is_inline = len as u64 <= INLINE_CONTENT_MAX_BYTES;
        assert_eq!(described.inline, is_inline.then_some(content), "{len} bytes");
    }
}

#[test]
fn chunks_are_the_bytes_in_order_and_within_their_limits() {
    let content = random(20 * MIB, 1);
    let manifest = describe_bytes(&content).manifest;
    let mut rest = &content[..];
    for (n, chunk) in manifest.chunks.iter().enumerate() {
        let (bytes, after) = rest.split_at(chunk.len_bytes as usize);
        assert!(verify_chunk(chunk, bytes));
        assert!(!verify_chunk(chunk, &bytes[1..]));
        assert!(chunk.len_bytes <= CHUNK_MAX_BYTES);
        assert!(bytes.len() >= CHUNK_MIN_BYTES || n == manifest.chunks.len() - 1);
        rest = after;
    }
    assert!(rest.is_empty());
    assert!((20..=160).contains(&manifest.chunks.len()), "{}", manifest.chunks.len());
}

#[test]
fn small_content_is_one_chunk_and_none_is_none() {
    assert_eq!(describe_bytes(&random(CHUNK_MIN_BYTES, 2)).manifest.chunks.len(), 1);
    let empty = describe_bytes(b"");
    assert_eq!((empty.content, empty.manifest), (ContentRef::default(), Manifest::default()));
    assert_eq!(empty.inline, Some(vec![]));
    assert!(verify_manifest(&Manifest::default(), &ContentRef::default()));
}

/// Two builds that cut differently would call the same bytes different: these are fixed for good.
#[test]
fn the_cuts_never_change() {
    let described = describe_bytes(&random(4 * MIB, 3));
    let lens: Vec<u32> = described.manifest.chunks.iter().map(|c| c.len_bytes).collect();
    assert_eq!(lens, FROZEN_LENS);
    assert_eq!(blake3::Hash::from(described.content.hash.0).to_hex().as_str(), FROZEN_HASH);
}

const FROZEN_LENS: &[u32] = &[
    111604, 145039, 267995, 359140, 129237, 338224, 261952, 284802, 106568, 615973, 350150, 165227,
    280096, 463380, 314917,
];
const FROZEN_HASH: &str = "1e9c7c001138d7ff933777182718e3702495f63c06bb9a60743de8eb7bddc0b9";

/// Chunks of `new` that are not among those of `old`.
fn fresh_bytes(old: &[u8], new: &[u8]) -> u64 {
    let known: HashSet<_> =
        describe_bytes(old).manifest.chunks.iter().map(|chunk| chunk.hash).collect();
    let chunks = describe_bytes(new).manifest.chunks;
    let fresh = chunks.iter().filter(|chunk| !known.contains(&chunk.hash));
    fresh.map(|chunk| u64::from(chunk.len_bytes)).sum()
}

#[test]
fn an_edit_changes_only_the_chunks_around_it() {
    let old = random(16 * MIB, 4);
    let limit = 2 * u64::from(CHUNK_MAX_BYTES);
    let mut at_front = vec![b'!'];
    at_front.extend(&old);
    assert!(fresh_bytes(&old, &at_front) <= limit, "a byte inserted at the front");
    let mut removed = old.clone();
    removed.drain(8 * MIB..8 * MIB + 1000);
    assert!(fresh_bytes(&old, &removed) <= limit, "bytes removed in the middle");
    let mut appended = old.clone();
    appended.extend(random(1000, 5));
    assert!(fresh_bytes(&old, &appended) <= limit, "bytes appended");
    let mut changed = old.clone();
    changed[9 * MIB] ^= 1;
    assert!(fresh_bytes(&old, &changed) <= limit, "one byte changed");
}

#[test]
fn one_changed_byte_is_another_content() {
    let mut content = random(100, 6);
    let before = describe_bytes(&content);
    content[50] ^= 1;
    assert_ne!(before.content.hash, describe_bytes(&content).content.hash);
}

#[test]
fn a_manifest_proves_itself() {
    let described = describe_bytes(&random(3 * MIB, 7));
    let (manifest, content) = (&described.manifest, described.content);
    let refused = |change: &dyn Fn(&mut Manifest, &mut ContentRef)| {
        let (mut manifest, mut content) = (manifest.clone(), content);
        change(&mut manifest, &mut content);
        assert!(!verify_manifest(&manifest, &content));
    };
    refused(&|manifest, _| manifest.chunks[0].hash[0] ^= 1);
    refused(&|manifest, _| manifest.chunks.swap(0, 1));
    refused(&|manifest, _| manifest.chunks.truncate(1));
    refused(&|manifest, _| manifest.chunks.clear());
    refused(&|_, content| content.size_bytes += 1);
    refused(&|_, content| *content = ContentRef::default());
}

#[test]
fn impossible_chunks_are_refused_even_with_the_right_hash() {
    for len_bytes in [0, CHUNK_MAX_BYTES + 1] {
        let mut manifest = describe_bytes(&random(100, 8)).manifest;
        manifest.chunks[0].len_bytes = len_bytes;
        let hash = lockstep_core::ContentHash(*blake3::hash(&manifest.encode()).as_bytes());
        let content = ContentRef { size_bytes: manifest.size_bytes(), hash };
        assert!(!verify_manifest(&manifest, &content), "{len_bytes}");
    }
    let lie = ContentRef { size_bytes: 0, hash: lockstep_core::ContentHash([1; 32]) };
    assert!(!verify_manifest(&Manifest::default(), &lie));
}

#[test]
fn holes_are_zeros() {
    let described = describe_bytes(&vec![0; 9 * MIB]);
    let sparse = on_disk(b"");
    sparse.file.set_len(9 * MIB as u64).unwrap();
    assert_eq!(describe_all(&*sparse.file), described);
}

#[test]
fn only_the_first_bytes_are_described_and_too_few_are_an_error() {
    let content = random(2 * MIB, 9);
    let file = on_disk(&content);
    let part = describe(&*file.file, MIB as u64, &|| false).unwrap().unwrap();
    assert_eq!(part, describe_bytes(&content[..MIB]));
    for size in [2 * MIB as u64 + 1, 100 * MIB as u64] {
        let error = describe(&*file.file, size, &|| false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let small = on_disk(b"four");
    let error = describe(&*small.file, 5, &|| false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn it_stops_between_chunks() {
    let file = on_disk(&random(8 * MIB, 10));
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    assert_eq!(describe(&*file.file, 8 * MIB as u64, &stop).unwrap(), None);
    assert_eq!(asked.get(), 4);
    assert_eq!(describe(&*on_disk(b"x").file, 1, &|| true).unwrap(), None);
}

/// A file that remembers how it was read.
struct Watched {
    file: Arc<dyn DiskFile>,
    reads: parking_lot::Mutex<Vec<(u64, usize)>>,
}

#[test]
fn each_byte_is_read_once_in_bounded_pieces() {
    let len = 40 * MIB as u64;
    let full = on_disk(&random(len as usize, 9));
    let watched = Watched { file: full.file.clone(), reads: Default::default() };
    describe(&watched, len, &|| false).unwrap().unwrap();
    let mut expected = 0;
    for (offset, size) in watched.reads.into_inner() {
        assert_eq!(offset, expected);
        assert!(size <= 4 * MIB, "a read of {size} bytes");
        expected += size as u64;
    }
    assert_eq!(expected, len);
}

#[test]
fn holes_are_not_read_and_the_description_is_that_of_their_zeros() {
    let len = 60 * MIB;
    let sparse = on_disk(b"");
    sparse.file.set_len(len as u64).unwrap();
    let mut content = vec![0; len];
    for (at, bytes) in [(0, 300_000), (7 * MIB + 4321, 70_000), (30 * MIB, 2 * MIB), (len - 9, 9)] {
        let data = random(bytes, at as u64);
        content[at..at + bytes].copy_from_slice(&data);
        sparse.file.write_all_at(&data, at as u64).unwrap();
    }
    let watched = Watched { file: sparse.file.clone(), reads: Default::default() };
    let described = describe(&watched, len as u64, &|| false).unwrap().unwrap();
    assert_eq!(described, describe_bytes(&content));
    let read: usize = watched.reads.into_inner().iter().map(|(_, size)| size).sum();
    assert!(read <= 40 * MIB, "{read} bytes read of a file with 3 MiB of data");
}

impl DiskFile for Watched {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if !buf.is_empty() {
            self.reads.lock().push((offset, buf.len()));
        }
        self.file.read_at(buf, offset)
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn sync_data(&self) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn sync_all(&self) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn stat(&self) -> io::Result<BackingStat> {
        self.file.stat()
    }
    fn allocate(&self, _: AllocateMode, _: u64, _: u64) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn seek(&self, offset: u64, what: SeekWhat) -> io::Result<u64> {
        self.file.seek(offset, what)
    }
    fn copy_range_to(&self, _: u64, _: &dyn DiskFile, _: u64, _: u64) -> io::Result<u64> {
        unreachable!("describing only reads")
    }
    fn set_mode(&self, _: u32) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn set_owner(&self, _: u32, _: u32) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn set_times(&self, _: lockstep_core::Timespec, _: lockstep_core::Timespec) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn set_seal(&self, _: Option<&[u8]>) -> io::Result<()> {
        unreachable!("describing only reads")
    }
    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}
