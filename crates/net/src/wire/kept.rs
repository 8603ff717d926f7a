//! Contents that a peer is asked to keep, to and from the wire.

use super::{WireError, node};
use bytes::{Buf, BufMut, Bytes};
use lockstep_core::limits::{FILE_MAX_BYTES, KEPT_ASKED_MAX};
use lockstep_core::{ContentHash, ContentRef, NodeId};

type Decoded<T> = Result<T, WireError>;

const RECORD_BYTES: usize = 48;

pub(crate) fn encode_contents(contents: &[(NodeId, ContentRef)]) -> Bytes {
    let mut out = Vec::with_capacity(contents.len() * RECORD_BYTES);
    for (node, content) in contents {
        out.put_u64(node.0);
        out.put_u64(content.size_bytes);
        out.put_slice(&content.hash.0);
    }
    out.into()
}

pub(crate) fn decode_contents(bytes: &Bytes) -> Decoded<Vec<(NodeId, ContentRef)>> {
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() || records.len() > KEPT_ASKED_MAX {
        return Err(WireError::new("contents", "are cut short or more than 1,024"));
    }
    records.iter().map(|record| content(&record[..])).collect()
}

fn content(mut record: &[u8]) -> Decoded<(NodeId, ContentRef)> {
    let (id, size_bytes) = (node(record.get_u64())?, record.get_u64());
    let mut hash = [0; 32];
    record.copy_to_slice(&mut hash);
    if size_bytes > FILE_MAX_BYTES || (size_bytes == 0) != (hash == [0; 32]) {
        return Err(WireError::new("contents", "are none that a file can have"));
    }
    Ok((id, ContentRef { size_bytes, hash: ContentHash(hash) }))
}

pub(crate) fn encode_kept(kept: &[bool]) -> Bytes {
    kept.iter().map(|kept| u8::from(*kept)).collect()
}

/// One answer for each of `asked` contents. What is not a clear yes is none.
pub(crate) fn decode_kept(bytes: &Bytes, asked: usize) -> Decoded<Vec<bool>> {
    if bytes.len() != asked {
        return Err(WireError::new("kept", "does not answer what was asked"));
    }
    Ok(bytes.iter().map(|byte| *byte == 1).collect())
}
