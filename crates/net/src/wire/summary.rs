//! Summaries of a replica's state, to and from the wire.

use super::{WireError, proto};
use bytes::{Buf, BufMut, Bytes};
use lockstep_core::compare::{ASKED_MAX, LISTED_MAX, SPLIT_INTO};
use lockstep_core::{NodeId, NodeRange, Part, Summary};

type Decoded<T> = Result<T, WireError>;

pub(crate) fn encode_ranges(ranges: &[NodeRange]) -> Bytes {
    let mut out = Vec::with_capacity(ranges.len() * 16);
    for range in ranges {
        out.put_u64(range.first.0);
        out.put_u64(range.last.0);
    }
    out.into()
}

pub(crate) fn decode_ranges(bytes: &Bytes) -> Decoded<Vec<NodeRange>> {
    let (records, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() || records.len() > ASKED_MAX {
        return Err(WireError::new("ranges", "are cut short or more than 32"));
    }
    Ok(records.iter().map(|record| range(&mut &record[..])).collect())
}

fn range(record: &mut &[u8]) -> NodeRange {
    NodeRange { first: NodeId(record.get_u64()), last: NodeId(record.get_u64()) }
}

pub(crate) fn encode_parts(parts: &[Part]) -> proto::SummarizeResponse {
    let encode = |part: &Part| match part {
        Part::Listed(nodes) => {
            let mut listed = Vec::with_capacity(nodes.len() * 24);
            for (node, digest) in nodes {
                listed.put_u64(node.0);
                listed.put_u128(*digest);
            }
            proto::RangePart { listed: listed.into(), split: Bytes::new() }
        }
        Part::Split(parts) => {
            let mut split = Vec::with_capacity(parts.len() * 36);
            for part in parts {
                split.put_u64(part.range.first.0);
                split.put_u64(part.range.last.0);
                split.put_u32(part.nodes);
                split.put_u128(part.sum);
            }
            proto::RangePart { listed: Bytes::new(), split: split.into() }
        }
    };
    proto::SummarizeResponse { parts: parts.iter().map(encode).collect() }
}

pub(crate) fn decode_parts(wire: proto::SummarizeResponse) -> Decoded<Vec<Part>> {
    if wire.parts.len() > ASKED_MAX {
        return Err(WireError::new("summary", "has more than 32 parts"));
    }
    wire.parts.iter().map(part).collect()
}

fn part(wire: &proto::RangePart) -> Decoded<Part> {
    let wrong = || WireError::new("summary", "has a part that is neither a list nor a split");
    if wire.split.is_empty() {
        let (records, rest) = wire.listed.as_chunks::<24>();
        let fits = rest.is_empty() && records.len() <= LISTED_MAX;
        let node = |record: &[u8; 24]| {
            let mut record = &record[..];
            (NodeId(record.get_u64()), record.get_u128())
        };
        return fits.then(|| Part::Listed(records.iter().map(node).collect())).ok_or_else(wrong);
    }
    let (records, rest) = wire.split.as_chunks::<36>();
    let summary = |record: &[u8; 36]| {
        let mut record = &record[..];
        let range = range(&mut record);
        Summary { range, nodes: record.get_u32(), sum: record.get_u128() }
    };
    let fits = rest.is_empty() && wire.listed.is_empty() && records.len() <= SPLIT_INTO;
    fits.then(|| Part::Split(records.iter().map(summary).collect())).ok_or_else(wrong)
}
