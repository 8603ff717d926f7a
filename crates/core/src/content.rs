//! A version of a file's bytes: its size and the BLAKE3 root over its chunks.

use crate::ids::Version;
use serde::{Deserialize, Serialize};
use std::fmt;

/// BLAKE3 over the encoded [`Manifest`] of a content: equal hashes mean equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Names the bytes of one version of a file. The default names the empty content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, Default)]
pub struct ContentRef {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Root hash; all zero for the empty content.
    pub hash: ContentHash,
}

/// A version of a file's bytes that somebody shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The bytes.
    pub content: ContentRef,
    /// Their version.
    pub version: Version,
}

/// One content-defined chunk: where it ends is decided by the bytes themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkRef {
    /// Length in bytes, at most [`crate::limits::CHUNK_MAX_BYTES`].
    pub len_bytes: u32,
    /// BLAKE3 of the chunk's bytes.
    pub hash: [u8; 32],
}

/// The chunks of a content in order. Its BLAKE3 is the [`ContentHash`], so a manifest from an
/// untrusted peer proves itself, and each chunk is then checked against it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Chunks in file order.
    pub chunks: Vec<ChunkRef>,
}

impl Manifest {
    /// Length of one chunk's record in [`Manifest::encode`].
    pub const RECORD_BYTES: usize = 36;

    /// Sum of the chunks' lengths.
    pub fn size_bytes(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.len_bytes)).sum()
    }

    /// The bytes whose BLAKE3 is the content's hash: per chunk a little-endian length and its hash.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.chunks.len() * 36);
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.len_bytes.to_le_bytes());
            out.extend_from_slice(&chunk.hash);
        }
        out
    }

    /// The inverse of [`Manifest::encode`]; `None` if the length is no multiple of 36.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (records, rest) = bytes.as_chunks::<36>();
        rest.is_empty().then(|| Manifest {
            chunks: records
                .iter()
                .map(|r| {
                    let (len, hash) = r.split_at(4);
                    ChunkRef {
                        len_bytes: u32::from_le_bytes(len.try_into().expect("4 of 36 bytes")),
                        hash: hash.try_into().expect("32 of 36 bytes"),
                    }
                })
                .collect(),
        })
    }
}
