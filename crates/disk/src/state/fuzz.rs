//! Everything that this crate decodes: rows about chunks, manifests, the engine's journal. `fuzz/`
//! and the test below run all of it over altered bytes.

use super::holdings::{self, Holding};
use super::journal;
use lockstep_core::{ChunkRef, Manifest, NodeId};
use std::io::Cursor;
use xxhash_rust::xxh3::xxh3_64;

/// A decoder: its name, inputs that it accepts, and whether it accepts an input.
pub type Decoder = (&'static str, Vec<Vec<u8>>, fn(&[u8]) -> bool);

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    let holding = Holding { node: NodeId(7), content: [3; 8] };
    let manifest = Manifest { chunks: vec![ChunkRef { len_bytes: 70_000, hash: [4; 32] }; 3] };
    vec![
        ("content held", vec![vec![1; 40]], |b| holdings::decode(b).is_some()),
        ("holding's key", vec![holding.key().to_vec()], key),
        ("manifest", vec![manifest.encode()], chunks),
        ("journal", vec![journal_of(3)], |b| {
            journal::whole_bytes(Cursor::new(b), b.len() as u64).is_ok()
        }),
    ]
}

fn key(bytes: &[u8]) -> bool {
    Holding::of_key(bytes).is_some_and(|holding| {
        assert_eq!(holding.key(), *bytes);
        true
    })
}

fn chunks(bytes: &[u8]) -> bool {
    Manifest::decode(bytes).is_some_and(|manifest| {
        let _ = manifest.size_bytes();
        assert_eq!(manifest.encode(), bytes);
        true
    })
}

/// A journal of `batches` batches with one item each, as the engine writes them.
fn journal_of(batches: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..batches {
        let (key, value) = (number.to_be_bytes(), [7; 100]);
        let mut item = vec![2, 0, 0];
        item.extend(0u64.to_le_bytes());
        item.extend((key.len() as u16).to_le_bytes());
        let len = (value.len() as u32).to_le_bytes();
        item.extend([len, len].concat());
        item.extend(key);
        item.extend(value);
        bytes.push(1);
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(&item);
        bytes.push(3);
        bytes.extend(xxh3_64(&item).to_le_bytes());
        bytes.extend(b"FJL\x03");
    }
    bytes.extend([0; 2000]);
    bytes
}

#[cfg(test)]
#[path = "../../../../fuzz/mutated.rs"]
mod mutated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_decoder_breaks_over_altered_bytes() {
        mutated::run(&decoders(), 5_000);
    }

    #[test]
    fn a_journal_is_whole_up_to_its_tear() {
        let mut bytes = journal_of(3);
        let whole = journal::whole_bytes(Cursor::new(&bytes), bytes.len() as u64);
        assert!(matches!(whole, Ok(None)), "{whole:?}");
        // The third batch was not written to its end.
        let batch = (bytes.len() - 2000) / 3;
        bytes[batch * 2 + 40..].fill(0);
        let torn = journal::whole_bytes(Cursor::new(&bytes), bytes.len() as u64);
        assert!(matches!(torn, Ok(Some(at)) if at == batch as u64 * 2), "{torn:?}");
    }
}
