//! Changes to wire messages. Total: every verified value has an encoding.

use super::proto::{self, EditKind, NotifyType, rename_target};
use crate::message::Notification;
use bytes::Bytes;
use lockstep_core::change::{Body, RenameTarget};
use lockstep_core::{Change, ContentRef, EntryName, NodeId, Op, Perm, Times, Timespec, Version};

/// One change with its inline bytes.
pub(crate) fn notification(notification: &Notification) -> proto::NotifyRequest {
    let Change { seq, version, op } = &notification.change;
    let mut wire = op_fields(op);
    wire.seq = seq.0;
    wire.version = Some(encode_version(*version));
    wire.node = op.node().0;
    if let Some(content) = &mut wire.content {
        content.inline = notification.inline.clone();
    }
    wire
}

/// Size and hash, without bytes.
pub(crate) fn content(content: ContentRef) -> proto::Content {
    proto::Content {
        size: content.size_bytes,
        hash: Bytes::copy_from_slice(&content.hash.0),
        inline: None,
    }
}

fn op_fields(op: &Op) -> proto::NotifyRequest {
    match op {
        Op::Create { parent, name, body, perm, times, xattrs, at, .. } => proto::NotifyRequest {
            perm: Some(encode_perm(*perm)),
            times: Some(encode_times(times)),
            xattrs: xattrs.iter().map(|(k, v)| xattr(k, Some(v.as_slice()))).collect(),
            ..with_body(body, entry(add_type(body), *parent, name, *at))
        },
        Op::Link { parent, name, at, .. } => entry(NotifyType::LinkFile, *parent, name, *at),
        Op::Unlink { parent, name, seen, at, .. } => proto::NotifyRequest {
            base: Some(encode_version(*seen)),
            ..entry(NotifyType::RemoveFile, *parent, name, *at)
        },
        Op::Rename { from, to, target, at, .. } => proto::NotifyRequest {
            new_parent: to.0.0,
            new_name: name_bytes(&to.1),
            target: Some(encode_target(target)),
            ..entry(NotifyType::RenameFile, from.0, &from.1, *at)
        },
        Op::SetPerm { perm, ctime, .. } => proto::NotifyRequest {
            perm: Some(encode_perm(*perm)),
            at: Some(encode_timespec(*ctime)),
            ..edit(EditKind::EditPerm)
        },
        Op::SetTimes { times, .. } => {
            proto::NotifyRequest { times: Some(encode_times(times)), ..edit(EditKind::EditTimes) }
        }
        Op::SetXattr { name, value, ctime, .. } => proto::NotifyRequest {
            xattrs: vec![xattr(name, value.as_deref())],
            at: Some(encode_timespec(*ctime)),
            ..edit(EditKind::EditXattr)
        },
        Op::Content { base, content: new, times, perm, .. } => proto::NotifyRequest {
            base: Some(encode_version(*base)),
            content: Some(content(*new)),
            times: Some(encode_times(times)),
            perm: Some(encode_perm(*perm)),
            ..edit(EditKind::EditContent)
        },
        Op::Exchange(step) => super::exchange::encode_step(step),
    }
}

fn add_type(body: &Body) -> NotifyType {
    match body {
        Body::File(_) => NotifyType::AddFile,
        Body::Dir => NotifyType::AddDir,
        Body::Symlink(_) => NotifyType::AddSymlink,
        Body::Fifo => NotifyType::AddFifo,
        Body::Socket => NotifyType::AddSocket,
    }
}

fn with_body(body: &Body, mut wire: proto::NotifyRequest) -> proto::NotifyRequest {
    match body {
        Body::File(new) => wire.content = Some(content(*new)),
        Body::Symlink(target) => wire.symlink_target = Bytes::copy_from_slice(target),
        Body::Dir | Body::Fifo | Body::Socket => {}
    }
    wire
}

fn entry(kind: NotifyType, parent: NodeId, name: &EntryName, at: Timespec) -> proto::NotifyRequest {
    proto::NotifyRequest {
        r#type: kind.into(),
        parent: parent.0,
        name: name_bytes(name),
        at: Some(encode_timespec(at)),
        ..Default::default()
    }
}

fn edit(kind: EditKind) -> proto::NotifyRequest {
    proto::NotifyRequest {
        r#type: NotifyType::EditFile.into(),
        edit: kind.into(),
        ..Default::default()
    }
}

fn encode_target(target: &RenameTarget) -> proto::RenameTarget {
    let (kind, node, seen) = match target {
        RenameTarget::Free => (rename_target::Kind::Free, 0, None),
        RenameTarget::Replaced { node, seen } => {
            (rename_target::Kind::Replaced, node.0, Some(encode_version(*seen)))
        }
        RenameTarget::Exchanged { node } => (rename_target::Kind::Exchanged, node.0, None),
    };
    proto::RenameTarget { kind: kind.into(), node, seen }
}

fn name_bytes(name: &EntryName) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

pub(super) fn xattr(name: &[u8], value: Option<&[u8]>) -> proto::Xattr {
    proto::Xattr { name: Bytes::copy_from_slice(name), value: value.map(Bytes::copy_from_slice) }
}

pub(crate) fn encode_version(version: Version) -> proto::Version {
    proto::Version { lamport: version.lamport, slot: version.slot.0.into() }
}

fn encode_timespec(time: Timespec) -> proto::Timespec {
    proto::Timespec { secs: time.secs, nanos: time.nanos }
}

pub(super) fn encode_times(times: &Times) -> proto::Times {
    proto::Times {
        atime: Some(encode_timespec(times.atime)),
        mtime: Some(encode_timespec(times.mtime)),
        ctime: Some(encode_timespec(times.ctime)),
    }
}

pub(super) fn encode_perm(perm: Perm) -> proto::Perm {
    proto::Perm { mode: perm.mode.into(), uid: perm.uid, gid: perm.gid }
}
