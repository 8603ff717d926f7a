//! Which chunks of a content are here, and where each goes.

use lockstep_core::{ChunkRef, Manifest};
use lockstep_disk::DiskFile;
use std::sync::Arc;

/// A transfer whose chunks are known.
pub(crate) struct Plan {
    pub manifest: Manifest,
    /// Offset of each chunk in the file, and the end.
    pub offsets: Vec<u64>,
    pub chunks: Vec<Presence>,
    pub missing: usize,
    pub file: Arc<dyn DiskFile>,
    /// The temporary file was there before: chunks may be in it, and torn ones too.
    pub resumed: bool,
}

/// What is known of a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nobody has looked for it: an interrupted transfer may have left it, or half of it.
    Unsought,
    /// It is not in the temporary file, which has a hole there.
    Missing,
    /// The same, and another transfer is just fetching it.
    Elsewhere,
    /// It is in the temporary file, verified.
    Here,
}

/// A run of missing chunks: one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First chunk.
    pub first: usize,
    /// Number of chunks.
    pub count: usize,
    /// Offset of the first byte.
    pub offset_bytes: u64,
    /// Length.
    pub len_bytes: u64,
}

/// One chunk of a transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub index: usize,
    pub chunk: ChunkRef,
    pub offset_bytes: u64,
}

impl Plan {
    pub fn is_here(&self, index: usize) -> bool {
        self.chunks[index] == Presence::Here
    }

    pub fn run(&self, first: usize, count: usize) -> Run {
        let (start, end) = (self.offsets[first], self.offsets[first + count]);
        Run { first, count, offset_bytes: start, len_bytes: end - start }
    }

    /// Whether the chunks under `len` bytes at `offset` are there.
    pub fn covers(&self, offset: u64, len: u64) -> bool {
        let first = self.offsets.partition_point(|o| *o <= offset).saturating_sub(1);
        let end = (offset + len).min(*self.offsets.last().unwrap_or(&0));
        let under = (first..self.chunks.len()).take_while(|i| self.offsets[*i] < end);
        under.into_iter().all(|i| self.is_here(i))
    }
}
