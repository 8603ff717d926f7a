//! What a file's bytes are called: where its chunks end, and their hashes.
//!
//! Chunk borders come from the bytes themselves (FastCDC), so an insertion moves only the borders
//! near it and equal stretches of different files share chunks. The same bytes always give the
//! same manifest, on every machine and whatever the reads were: a content's hash is taken over
//! its manifest.

use crate::disk::{DiskFile, SeekWhat};
use fastcdc::v2020::{Normalization, cut, select_masks};
use lockstep_core::limits::{CHUNK_MAX_BYTES, INLINE_CONTENT_MAX_BYTES};
use lockstep_core::{ChunkRef, ContentHash, ContentRef, Manifest};
use std::io;
use std::sync::OnceLock;

/// No chunk but a file's last is shorter; content up to this size is a single chunk.
pub const CHUNK_MIN_BYTES: usize = 64 * 1024;
/// Size around which chunks end.
pub const CHUNK_AVG_BYTES: usize = 256 * 1024;
/// No chunk is longer.
const CHUNK_MAX: usize = CHUNK_MAX_BYTES as usize;
/// How sharply chunk sizes gather around the average.
const NORMALIZATION: Normalization = Normalization::Level1;
/// Chunks of a hole taken at a time.
const HOLES_MAX: usize = 4096;
/// Memory for the stretch of a file that is being chunked.
const WINDOW_BYTES: usize = 4 * CHUNK_MAX;

/// What a content is called and how it is cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its name.
    pub content: ContentRef,
    /// Its chunks.
    pub manifest: Manifest,
    /// The bytes themselves, if there are at most [`INLINE_CONTENT_MAX_BYTES`].
    pub inline: Option<Vec<u8>>,
}

/// Describes the first `size` bytes of `file`, reading them once, in a few MiB of memory.
///
/// `None` if `stop` answered true between two chunks. Fails with `UnexpectedEof` if the file is
/// shorter than `size`.
pub fn describe(
    file: &dyn DiskFile,
    size: u64,
    stop: &dyn Fn() -> bool,
) -> io::Result<Option<Description>> {
    if size <= INLINE_CONTENT_MAX_BYTES {
        if stop() {
            return Ok(None);
        }
        let mut bytes = vec![0; size as usize];
        read_exact(file, &mut bytes, 0)?;
        return Ok(Some(describe_bytes(&bytes)));
    }
    let Some(manifest) = cut_file(file, size, stop)? else { return Ok(None) };
    Ok(Some(Description { content: content_of(&manifest), manifest, inline: None }))
}

/// Describes bytes in memory.
pub fn describe_bytes(bytes: &[u8]) -> Description {
    let cutter = Cutter::new();
    let mut manifest = Manifest::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(cutter.first_len(rest));
        manifest.chunks.push(chunk_ref(chunk));
        rest = after;
    }
    let inline = (bytes.len() as u64 <= INLINE_CONTENT_MAX_BYTES).then(|| bytes.to_vec());
    Description { content: content_of(&manifest), manifest, inline }
}

/// Whether `manifest` is that of `content`: right hash, right size, no impossible chunk.
pub fn verify_manifest(manifest: &Manifest, content: &ContentRef) -> bool {
    manifest.chunks.iter().all(|chunk| (1..=CHUNK_MAX_BYTES).contains(&chunk.len_bytes))
        && content_of(manifest) == *content
}

/// Whether `chunk` is known to be nothing but zeros: long stretches of them are cut so.
pub fn is_hole(chunk: &ChunkRef) -> bool {
    chunk.len_bytes == CHUNK_MAX_BYTES && *chunk == hole()
}

/// The chunk that stretches of zeros are cut into.
fn hole() -> ChunkRef {
    static HOLE: OnceLock<ChunkRef> = OnceLock::new();
    *HOLE.get_or_init(|| chunk_ref(&vec![0; CHUNK_MAX]))
}

/// Whether `bytes` are those of `chunk`.
pub fn verify_chunk(chunk: &ChunkRef, bytes: &[u8]) -> bool {
    bytes.len() == chunk.len_bytes as usize && *blake3::hash(bytes).as_bytes() == chunk.hash
}

fn cut_file(
    file: &dyn DiskFile,
    size: u64,
    stop: &dyn Fn() -> bool,
) -> io::Result<Option<Manifest>> {
    let cutter = Cutter::new();
    let mut window = Window::new(size);
    let mut manifest = Manifest::default();
    loop {
        window.refill(file)?;
        if window.bytes().is_empty() {
            return Ok(Some(manifest));
        }
        // A chunk never ends where only the window does: enough bytes for the longest one are
        // there, or all that is left of the file.
        while window.can_cut() {
            if stop() {
                return Ok(None);
            }
            let holes = window.holes(file);
            if holes > 0 {
                manifest.chunks.extend(std::iter::repeat_n(hole(), holes));
                window.jump(holes as u64 * CHUNK_MAX as u64);
                continue;
            }
            let len = cutter.first_len(window.bytes());
            manifest.chunks.push(chunk_ref(&window.bytes()[..len]));
            window.start += len;
        }
    }
}

/// The stretch of a file that has been read and not yet cut.
struct Window {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the file that have been read.
    read_bytes: u64,
    size_bytes: u64,
}

impl Window {
    fn new(size_bytes: u64) -> Window {
        let capacity = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(WINDOW_BYTES);
        Window { buf: vec![0; capacity], start: 0, end: 0, read_bytes: 0, size_bytes }
    }

    fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    fn can_cut(&self) -> bool {
        let len = self.end - self.start;
        len >= CHUNK_MAX || (len > 0 && self.read_bytes == self.size_bytes)
    }

    /// Offset in the file of the first byte.
    fn position(&self) -> u64 {
        self.read_bytes - (self.end - self.start) as u64
    }

    /// How many of the next chunks lie in a hole of the file: they are as long as chunks get, and
    /// need not be read. A few at a time, so that stopping does not take long.
    fn holes(&self, file: &dyn DiskFile) -> usize {
        let (zeros, at) =
            (&self.bytes()[..CHUNK_MIN_BYTES.min(self.end - self.start)], self.position());
        if zeros.iter().any(|byte| *byte != 0) {
            return 0;
        }
        let data = match file.seek(at, SeekWhat::Data) {
            Ok(data) => data.min(self.size_bytes),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                self.size_bytes
            }
            Err(_) => at,
        };
        usize::try_from(data.saturating_sub(at) / CHUNK_MAX as u64)
            .unwrap_or(HOLES_MAX)
            .min(HOLES_MAX)
    }

    /// Goes on `len` bytes later.
    fn jump(&mut self, len: u64) {
        match usize::try_from(len) {
            Ok(len) if len <= self.end - self.start => self.start += len,
            _ => {
                self.read_bytes = self.position() + len;
                (self.start, self.end) = (0, 0);
            }
        }
    }

    /// Moves what is left to the front and reads on behind it.
    fn refill(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let left = usize::try_from(self.size_bytes - self.read_bytes).unwrap_or(usize::MAX);
        let want = left.min(self.buf.len() - self.end);
        read_exact(file, &mut self.buf[self.end..self.end + want], self.read_bytes)?;
        self.end += want;
        self.read_bytes += want as u64;
        Ok(())
    }
}

/// FastCDC with Lockstep's sizes.
struct Cutter {
    mask_s: u64,
    mask_l: u64,
}

impl Cutter {
    fn new() -> Cutter {
        let (mask_s, mask_l) = select_masks(CHUNK_AVG_BYTES, NORMALIZATION);
        Cutter { mask_s, mask_l }
    }

    /// Length of the first chunk of `bytes`, which must not be empty.
    fn first_len(&self, bytes: &[u8]) -> usize {
        let (mask_s, mask_l) = (self.mask_s, self.mask_l);
        let (min, avg, max) = (CHUNK_MIN_BYTES, CHUNK_AVG_BYTES, CHUNK_MAX);
        cut(bytes, min, avg, max, mask_s, mask_l, mask_s << 1, mask_l << 1).1
    }
}

fn chunk_ref(bytes: &[u8]) -> ChunkRef {
    let len_bytes = u32::try_from(bytes.len()).expect("a chunk has at most CHUNK_MAX_BYTES");
    ChunkRef { len_bytes, hash: *blake3::hash(bytes).as_bytes() }
}

fn content_of(manifest: &Manifest) -> ContentRef {
    if manifest.chunks.is_empty() {
        return ContentRef::default();
    }
    let hash = ContentHash(*blake3::hash(&manifest.encode()).as_bytes());
    ContentRef { size_bytes: manifest.size_bytes(), hash }
}

fn read_exact(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let got = file.read_at(buf, offset)?;
    if got == buf.len() {
        return Ok(());
    }
    let reason = format!("the file ends at byte {}, it became shorter", offset + got as u64);
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason))
}
