//! The steps of an exchange of state, to and from the wire.

use super::decode::{below_root, content, name, node, perm, symlink_target, times, version, xattr};
use super::encode::{self, encode_perm, encode_times, encode_version};
use super::proto::{self, NotifyType, exchange::Kind};
use super::{WireError, encode_content};
use bytes::{Buf, BufMut, Bytes};
use lockstep_core::change::{Body, Exchange};
use lockstep_core::limits::XATTRS_PER_NODE_MAX;
use lockstep_core::seen::Seen;
use lockstep_core::tree::{NodeState, TimesVersion};
use lockstep_core::{EntryName, NodeId, Slot, Version};
use std::collections::BTreeMap;

type Decoded<T> = Result<T, WireError>;

const SEEN_RECORD_BYTES: usize = 19;
/// Numbers beyond this cannot come from counting.
const COUNTER_MAX: u64 = 1 << 62;
/// Names of one node that travel.
const NAMES_MAX: usize = 65_536;

pub(super) fn encode_step(step: &Exchange) -> proto::NotifyRequest {
    let of = |kind: NotifyType, exchange| proto::NotifyRequest {
        r#type: kind.into(),
        exchange: Some(exchange),
        ..Default::default()
    };
    match step {
        Exchange::Begin(seen) => {
            let seen = encode_seen(seen);
            of(NotifyType::StateBegin, proto::Exchange { seen, ..Default::default() })
        }
        Exchange::Node(state) => encode_state(state),
        Exchange::Gone(_) => of(NotifyType::StateGone, proto::Exchange::default()),
        Exchange::End => of(NotifyType::StateEnd, proto::Exchange::default()),
    }
}

fn encode_state(state: &NodeState) -> proto::NotifyRequest {
    let set = &state.times.1;
    let versions = state.xattrs.values().map(|(version, _)| encode_version(*version));
    let exchange = proto::Exchange {
        kind: kind_of(&state.body).into(),
        content_version: Some(encode_version(state.content_version)),
        perm_version: Some(encode_version(state.perm.1)),
        atime_version: Some(encode_version(set.atime)),
        mtime_version: Some(encode_version(set.mtime)),
        ctime_version: Some(encode_version(set.ctime)),
        xattr_versions: versions.collect(),
        names: encode_names(&state.names),
        had: encode_had(&state.had),
        removed: state.removed,
        held: state.held,
        seen: Bytes::new(),
    };
    let mut wire = proto::NotifyRequest {
        r#type: NotifyType::StateNode.into(),
        perm: Some(encode_perm(state.perm.0)),
        times: Some(encode_times(&state.times.0)),
        content: state.content().map(encode_content),
        exchange: Some(exchange),
        ..Default::default()
    };
    wire.xattrs = state.xattrs.iter().map(|(k, (_, v))| encode::xattr(k, v.as_deref())).collect();
    if let Body::Symlink(target) = &state.body {
        wire.symlink_target = Bytes::copy_from_slice(target);
    }
    wire
}

fn kind_of(body: &Body) -> Kind {
    match body {
        Body::File(_) => Kind::File,
        Body::Dir => Kind::Dir,
        Body::Symlink(_) => Kind::Symlink,
        Body::Fifo => Kind::Fifo,
        Body::Socket => Kind::Socket,
    }
}

fn encode_seen(seen: &Seen) -> Bytes {
    let mut out = Vec::new();
    for (what, of) in [(0, &seen.nodes), (1, &seen.versions)] {
        for (slot, spans) in of {
            for (after, through) in spans.iter() {
                out.put_u16(slot.0);
                out.put_u8(what);
                out.put_u64(after);
                out.put_u64(through);
            }
        }
    }
    out.into()
}

fn encode_names(names: &[(NodeId, EntryName, Version)]) -> Bytes {
    let mut out = Vec::new();
    for (parent, name, version) in names {
        out.put_u64(parent.0);
        out.put_u64(version.lamport);
        out.put_u16(version.slot.0);
        out.put_u16(name.as_bytes().len() as u16);
        out.put_slice(name.as_bytes());
    }
    out.into()
}

fn encode_had(names: &[(NodeId, EntryName)]) -> Bytes {
    let known = |(parent, name): &(NodeId, EntryName)| (*parent, name.clone(), Version::default());
    encode_names(&names.iter().map(known).collect::<Vec<_>>())
}

fn had(bytes: &[u8]) -> Decoded<Vec<(NodeId, EntryName)>> {
    Ok(names(bytes)?.into_iter().map(|(parent, name, _)| (parent, name)).collect())
}

pub(super) fn step(kind: NotifyType, mut wire: proto::NotifyRequest) -> Decoded<Exchange> {
    let exchange = wire.exchange.take().ok_or_else(|| WireError::new("state", "is missing"))?;
    Ok(match kind {
        NotifyType::StateBegin => Exchange::Begin(decode_seen(&exchange.seen)?),
        NotifyType::StateNode => Exchange::Node(Box::new(state(wire, exchange)?)),
        NotifyType::StateGone => Exchange::Gone(below_root(wire.node)?),
        _ => Exchange::End,
    })
}

fn state(wire: proto::NotifyRequest, exchange: proto::Exchange) -> Decoded<NodeState> {
    let kind =
        Kind::try_from(exchange.kind).map_err(|_| WireError::new("kind of node", "is unknown"))?;
    let body = match kind {
        Kind::File => Body::File(content(wire.content.as_ref())?),
        Kind::Dir => Body::Dir,
        Kind::Symlink => Body::Symlink(symlink_target(&wire.symlink_target)?),
        Kind::Fifo => Body::Fifo,
        Kind::Socket => Body::Socket,
    };
    let set = TimesVersion {
        atime: version(exchange.atime_version, "version of the access time")?,
        mtime: version(exchange.mtime_version, "version of the modification time")?,
        ctime: version(exchange.ctime_version, "version of the change time")?,
    };
    let node = node(wire.node)?;
    let names = names(&exchange.names)?;
    if names.is_empty() != (node == NodeId::ROOT) {
        return Err(WireError::new("names", "must be those of a node below the root"));
    }
    Ok(NodeState {
        node,
        body,
        content_version: version(exchange.content_version, "version of the content")?,
        perm: (perm(wire.perm)?, version(exchange.perm_version, "version of the permissions")?),
        times: (times(wire.times)?, set),
        xattrs: xattrs(wire.xattrs, exchange.xattr_versions)?,
        names,
        had: had(&exchange.had)?,
        removed: exchange.removed,
        held: exchange.held,
    })
}

#[allow(clippy::type_complexity, reason = "the shape of the node's register")]
fn xattrs(
    wire: Vec<proto::Xattr>,
    versions: Vec<proto::Version>,
) -> Decoded<BTreeMap<Vec<u8>, (Version, Option<Vec<u8>>)>> {
    const FIELD: &str = "extended attributes";
    if wire.len() != versions.len() || wire.len() > XATTRS_PER_NODE_MAX {
        return Err(WireError::new(FIELD, "do not fit their versions"));
    }
    let one = |(wire, set): (proto::Xattr, proto::Version)| {
        let (name, value) = xattr(wire)?;
        Ok((name, (version(Some(set), "version of an attribute")?, value)))
    };
    wire.into_iter().zip(versions).map(one).collect()
}

fn names(mut bytes: &[u8]) -> Decoded<Vec<(NodeId, EntryName, Version)>> {
    let mut found = Vec::new();
    while bytes.has_remaining() {
        if bytes.remaining() < 20 || found.len() >= NAMES_MAX {
            return Err(WireError::new("names", "are cut short or too many"));
        }
        let parent = node(bytes.get_u64())?;
        let (lamport, slot) = (bytes.get_u64(), Slot(bytes.get_u16()));
        let len = usize::from(bytes.get_u16());
        let text = bytes.split_at_checked(len);
        let (text, rest) = text.ok_or_else(|| WireError::new("names", "are cut short"))?;
        if lamport > COUNTER_MAX {
            return Err(WireError::new("names", "have versions that counting cannot reach"));
        }
        found.push((parent, name(text)?, Version { lamport, slot }));
        bytes = rest;
    }
    Ok(found)
}

fn decode_seen(bytes: &Bytes) -> Decoded<Seen> {
    let (records, rest) = bytes.as_chunks::<SEEN_RECORD_BYTES>();
    if !rest.is_empty() {
        return Err(WireError::new("what was seen", "is cut short"));
    }
    let mut seen = Seen::default();
    for record in records {
        let mut record = &record[..];
        let (slot, what) = (Slot(record.get_u16()), record.get_u8());
        let (after, through) = (record.get_u64(), record.get_u64());
        if after >= through || through > COUNTER_MAX {
            return Err(WireError::new("what was seen", "has an impossible range"));
        }
        let of = match what {
            0 => &mut seen.nodes,
            1 => &mut seen.versions,
            _ => return Err(WireError::new("what was seen", "is of an unknown kind")),
        };
        of.entry(slot).or_default().add(after, through);
    }
    Ok(seen)
}
