//! Wire messages to changes. Everything here comes from a peer that may be broken or hostile:
//! whatever is returned keeps every promise of `core`'s types and limits.

use super::WireError;
use super::proto::{self, EditKind, NotifyType, rename_target};
use crate::limits::XATTRS_TOTAL_BYTES_MAX;
use crate::message::Notification;
use bytes::Bytes;
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::limits::{
    FILE_MAX_BYTES, INLINE_CONTENT_MAX_BYTES, SYMLINK_TARGET_MAX_BYTES, XATTR_NAME_MAX_BYTES,
    XATTR_VALUE_MAX_BYTES, XATTRS_PER_NODE_MAX,
};
use lockstep_core::{
    Change, ContentHash, ContentRef, EntryName, NodeId, Op, Perm, Sequence, Shown, Slot, Times,
    Timespec, Version, VolumeId,
};

type Decoded<T> = Result<T, WireError>;

/// Counters beyond this cannot come from counting, and adding to them must never overflow.
const COUNTER_MAX: u64 = 1 << 62;

/// One change with its inline bytes.
pub(crate) fn notification(wire: proto::NotifyRequest) -> Decoded<Notification> {
    let seq = sequence(wire.seq, "sequence number")?;
    let version = version(wire.version, "version")?;
    if version.slot.0 == 0 {
        return Err(WireError::new("version", "must name its author"));
    }
    let inline = inline(wire.content.as_ref())?;
    let op = op(wire)?;
    if seq.0 == 0 && !matches!(op, Op::Exchange(_)) {
        return Err(WireError::new("sequence number", "must start at 1"));
    }
    Ok(Notification { change: Change { seq, version, op }, inline })
}

/// Size and hash of a content.
pub(crate) fn content(wire: Option<&proto::Content>) -> Decoded<ContentRef> {
    let wire = wire.ok_or_else(|| WireError::new("content", "is missing"))?;
    if wire.size > FILE_MAX_BYTES {
        return Err(WireError::new("content", "is larger than any file"));
    }
    let hash: [u8; 32] = exact(&wire.hash, "content hash")?;
    if (wire.size == 0) != (hash == [0; 32]) {
        return Err(WireError::new("content hash", "must be zero for the empty content only"));
    }
    Ok(ContentRef { size_bytes: wire.size, hash: ContentHash(hash) })
}

/// What a peer shows of a file in place of a content that it does not have. What makes no sense is
/// as good as nothing.
pub(crate) fn shown(detail: &proto::RefusalDetail) -> Option<Shown> {
    let content = content(detail.shown.as_ref()).ok()?;
    let version = version(detail.shown_version, "shown version").ok()?;
    Some(Shown { content, version })
}

/// A volume's id.
pub(crate) fn volume(bytes: &[u8]) -> Decoded<VolumeId> {
    exact(bytes, "volume").map(VolumeId)
}

/// A node's id: the root's, or one that a replica drew.
pub(crate) fn node(id: u64) -> Decoded<NodeId> {
    let node = NodeId(id);
    if node == NodeId::ROOT || (node.slot().0 != 0 && node.counter() != 0) {
        return Ok(node);
    }
    Err(WireError::new("node", "has an id that nobody can have drawn"))
}

/// A number in somebody's log; 0 means nothing yet.
pub(super) fn sequence(number: u64, field: &'static str) -> Decoded<Sequence> {
    if number > COUNTER_MAX {
        return Err(WireError::new(field, "is larger than counting can reach"));
    }
    Ok(Sequence(number))
}

/// A replica's slot.
pub(super) fn slot(number: u32) -> Decoded<Slot> {
    u16::try_from(number).map(Slot).map_err(|_| WireError::new("slot", "is larger than 65535"))
}

pub(super) fn exact<const N: usize>(bytes: &[u8], field: &'static str) -> Decoded<[u8; N]> {
    bytes
        .try_into()
        .map_err(|_| WireError::new(field, format!("must have {N} bytes and has {}", bytes.len())))
}

fn op(wire: proto::NotifyRequest) -> Decoded<Op> {
    let kind = NotifyType::try_from(wire.r#type)
        .map_err(|_| WireError::new("notification type", "is unknown"))?;
    match kind {
        NotifyType::AddDir
        | NotifyType::AddFile
        | NotifyType::AddSymlink
        | NotifyType::AddFifo
        | NotifyType::AddSocket => create(kind, wire),
        NotifyType::LinkFile => Ok(Op::Link {
            node: below_root(wire.node)?,
            parent: node(wire.parent)?,
            name: name(&wire.name)?,
            at: timespec(wire.at, "time")?,
        }),
        NotifyType::RemoveFile | NotifyType::RemoveDir => Ok(Op::Unlink {
            node: below_root(wire.node)?,
            parent: node(wire.parent)?,
            name: name(&wire.name)?,
            seen: version(wire.base, "version seen")?,
            at: timespec(wire.at, "time")?,
        }),
        NotifyType::RenameFile | NotifyType::RenameDir => Ok(Op::Rename {
            node: below_root(wire.node)?,
            from: (node(wire.parent)?, name(&wire.name)?),
            to: (node(wire.new_parent)?, name(&wire.new_name)?),
            target: rename_target(wire.target)?,
            at: timespec(wire.at, "time")?,
        }),
        NotifyType::EditFile | NotifyType::EditDir => edit(wire),
        NotifyType::StateBegin
        | NotifyType::StateNode
        | NotifyType::StateGone
        | NotifyType::StateEnd => super::exchange::step(kind, wire).map(Op::Exchange),
        NotifyType::Unspecified => Err(WireError::new("notification type", "is missing")),
    }
}

fn create(kind: NotifyType, wire: proto::NotifyRequest) -> Decoded<Op> {
    let body = match kind {
        NotifyType::AddFile => Body::File(content(wire.content.as_ref())?),
        NotifyType::AddSymlink => Body::Symlink(symlink_target(&wire.symlink_target)?),
        NotifyType::AddFifo => Body::Fifo,
        NotifyType::AddSocket => Body::Socket,
        _ => Body::Dir,
    };
    Ok(Op::Create {
        node: below_root(wire.node)?,
        parent: node(wire.parent)?,
        name: name(&wire.name)?,
        body,
        perm: perm(wire.perm)?,
        times: times(wire.times)?,
        xattrs: xattrs(wire.xattrs)?,
        at: timespec(wire.at, "time")?,
    })
}

fn edit(wire: proto::NotifyRequest) -> Decoded<Op> {
    let kind =
        EditKind::try_from(wire.edit).map_err(|_| WireError::new("edit kind", "is unknown"))?;
    match kind {
        EditKind::EditContent => Ok(Op::Content {
            node: below_root(wire.node)?,
            base: version(wire.base, "base version")?,
            content: content(wire.content.as_ref())?,
            times: times(wire.times)?,
            perm: perm(wire.perm)?,
        }),
        EditKind::EditPerm => Ok(Op::SetPerm {
            node: node(wire.node)?,
            perm: perm(wire.perm)?,
            ctime: timespec(wire.at, "time")?,
        }),
        EditKind::EditTimes => {
            Ok(Op::SetTimes { node: node(wire.node)?, times: times(wire.times)? })
        }
        EditKind::EditXattr => {
            let [one] = <[proto::Xattr; 1]>::try_from(wire.xattrs)
                .map_err(|_| WireError::new("extended attributes", "must be exactly one"))?;
            let (name, value) = xattr(one)?;
            let ctime = timespec(wire.at, "time")?;
            Ok(Op::SetXattr { node: node(wire.node)?, name, value, ctime })
        }
        EditKind::Unspecified => Err(WireError::new("edit kind", "is missing")),
    }
}

fn rename_target(wire: Option<proto::RenameTarget>) -> Decoded<RenameTarget> {
    let wire = wire.ok_or_else(|| WireError::new("rename target", "is missing"))?;
    match rename_target::Kind::try_from(wire.kind) {
        Ok(rename_target::Kind::Free) => Ok(RenameTarget::Free),
        Ok(rename_target::Kind::Replaced) => Ok(RenameTarget::Replaced {
            node: below_root(wire.node)?,
            seen: version(wire.seen, "version seen")?,
        }),
        Ok(rename_target::Kind::Exchanged) => {
            Ok(RenameTarget::Exchanged { node: below_root(wire.node)? })
        }
        Err(_) => Err(WireError::new("rename target", "is unknown")),
    }
}

fn inline(wire: Option<&proto::Content>) -> Decoded<Option<Bytes>> {
    let Some((content, bytes)) = wire.and_then(|c| Some((c, c.inline.as_ref()?))) else {
        return Ok(None);
    };
    let len = bytes.len() as u64;
    if len > INLINE_CONTENT_MAX_BYTES {
        return Err(WireError::new("inline content", "is larger than 32 KiB"));
    }
    if len != content.size {
        return Err(WireError::new("inline content", "is not as long as the content"));
    }
    // A copy: a slice would keep the whole received batch alive.
    Ok(Some(Bytes::copy_from_slice(bytes)))
}

pub(super) fn below_root(id: u64) -> Decoded<NodeId> {
    match node(id)? {
        NodeId::ROOT => Err(WireError::new("node", "must not be the root directory")),
        node => Ok(node),
    }
}

pub(super) fn name(bytes: &[u8]) -> Decoded<EntryName> {
    EntryName::new(bytes).map_err(|error| WireError::new("entry name", error.to_string()))
}

pub(super) fn version(wire: Option<proto::Version>, field: &'static str) -> Decoded<Version> {
    let wire = wire.ok_or_else(|| WireError::new(field, "is missing"))?;
    if wire.lamport > COUNTER_MAX {
        return Err(WireError::new(field, "is larger than counting can reach"));
    }
    Ok(Version { lamport: wire.lamport, slot: slot(wire.slot)? })
}

fn timespec(wire: Option<proto::Timespec>, field: &'static str) -> Decoded<Timespec> {
    let wire = wire.ok_or_else(|| WireError::new(field, "is missing"))?;
    if wire.nanos >= 1_000_000_000 {
        return Err(WireError::new(field, "has a billion nanoseconds or more"));
    }
    Ok(Timespec { secs: wire.secs, nanos: wire.nanos })
}

pub(super) fn times(wire: Option<proto::Times>) -> Decoded<Times> {
    let wire = wire.ok_or_else(|| WireError::new("times", "are missing"))?;
    Ok(Times {
        atime: timespec(wire.atime, "access time")?,
        mtime: timespec(wire.mtime, "modification time")?,
        ctime: timespec(wire.ctime, "change time")?,
    })
}

pub(super) fn perm(wire: Option<proto::Perm>) -> Decoded<Perm> {
    let wire = wire.ok_or_else(|| WireError::new("permissions", "are missing"))?;
    if wire.mode > 0o7777 {
        return Err(WireError::new("permissions", "have bits beyond 07777"));
    }
    Ok(Perm { mode: wire.mode as u16, uid: wire.uid, gid: wire.gid })
}

pub(super) fn symlink_target(bytes: &Bytes) -> Decoded<Vec<u8>> {
    if bytes.is_empty() || bytes.len() > SYMLINK_TARGET_MAX_BYTES || bytes.contains(&0) {
        return Err(WireError::new("symlink target", "must be 1 to 4095 bytes without NUL"));
    }
    Ok(bytes.to_vec())
}

fn xattrs(wire: Vec<proto::Xattr>) -> Decoded<Vec<(Vec<u8>, Vec<u8>)>> {
    const FIELD: &str = "extended attributes";
    if wire.len() > XATTRS_PER_NODE_MAX {
        return Err(WireError::new(FIELD, "are more than 1024"));
    }
    let total: usize =
        wire.iter().map(|x| x.name.len() + x.value.as_ref().map_or(0, Bytes::len)).sum();
    if total > XATTRS_TOTAL_BYTES_MAX {
        return Err(WireError::new(FIELD, "of one node are more than 4 MiB"));
    }
    let valued = |wire| match xattr(wire)? {
        (name, Some(value)) => Ok((name, value)),
        (_, None) => Err(WireError::new(FIELD, "of a new node must have values")),
    };
    wire.into_iter().map(valued).collect()
}

pub(super) fn xattr(wire: proto::Xattr) -> Decoded<(Vec<u8>, Option<Vec<u8>>)> {
    if wire.name.is_empty() || wire.name.len() > XATTR_NAME_MAX_BYTES || wire.name.contains(&0) {
        return Err(WireError::new("attribute name", "must be 1 to 255 bytes without NUL"));
    }
    let value = wire.value.map(|v| v.to_vec());
    if value.as_ref().is_some_and(|v| v.len() > XATTR_VALUE_MAX_BYTES) {
        return Err(WireError::new("attribute value", "is larger than 64 KiB"));
    }
    Ok((wire.name.to_vec(), value))
}
