//! Chunks that are being fetched: what two files have in common is asked for once, also while both
//! are on their way.

use crate::plan::{Piece, Run};
use crate::transfer::Transfer;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Hashes of the chunks that background fetches have asked for, and whether they have come.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<HashMap<[u8; 32], bool>>);

/// The right to fetch some chunks; others wait for them until it is dropped.
pub struct ChunkClaim<'f> {
    in_flight: &'f InFlight,
    hashes: Vec<[u8; 32]>,
    /// What to fetch.
    pub runs: Vec<Run>,
    /// Some chunks are being fetched by others: they will be found here later.
    pub elsewhere: bool,
}

impl InFlight {
    pub(crate) fn claim(&self, transfer: &Transfer, run: &Run) -> ChunkClaim<'_> {
        let (mut hashes, mut mine) = (Vec::new(), Vec::new());
        // Those that were in flight when they were looked for are looked for once more.
        let mut elsewhere = !transfer.unsought(run).is_empty();
        let mut in_flight = self.0.lock();
        for piece in transfer.sought(run) {
            // One that has just come is elsewhere too: it was looked for before it came.
            if let Entry::Vacant(free) = in_flight.entry(piece.chunk.hash) {
                free.insert(false);
                hashes.push(piece.chunk.hash);
                mine.push(piece.index);
            } else {
                transfer.is_elsewhere(piece.index);
                elsewhere = true;
            }
        }
        drop(in_flight);
        ChunkClaim { in_flight: self, hashes, runs: transfer.runs(mine), elsewhere }
    }

    /// All missing chunks, whoever else is fetching them: a reader waits.
    pub(crate) fn share(&self, transfer: &Transfer, run: &Run) -> ChunkClaim<'_> {
        let missing = transfer.missing(run).into_iter().map(|piece| piece.index);
        let runs = transfer.runs(missing);
        ChunkClaim { in_flight: self, hashes: Vec::new(), runs, elsewhere: false }
    }

    pub(crate) fn without(&self, mut pieces: Vec<Piece>) -> Vec<Piece> {
        let in_flight = self.0.lock();
        pieces.retain(|piece| in_flight.get(&piece.chunk.hash).is_none_or(|came| *came));
        pieces
    }
}

impl ChunkClaim<'_> {
    /// Chunk `index` of `transfer` has come: others find it in its temporary file.
    pub fn came(&self, transfer: &Transfer, index: usize) {
        if let Some(chunk) = transfer.chunk(index) {
            self.in_flight.0.lock().entry(chunk.hash).and_modify(|came| *came = true);
        }
    }
}

impl Drop for ChunkClaim<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.0.lock();
        for hash in &self.hashes {
            in_flight.remove(hash);
        }
    }
}
