//! Everything that this crate decodes: what peers send, what people paste, its own files. `fuzz/`
//! and the test below run all of it over altered bytes.

use crate::greeting::Greeting;
use crate::lane::Alpn;
use crate::wire::proto::{self, refusal_detail::Kind};
use crate::wire::{self, Bounded};
use crate::{
    Ack, BarrierReply, BarrierRequest, Batch, Beat, Hello, Identity, Invite, Notification,
    PairGrant, PairRequest, Refusal, invite_book, link, tls,
};
use bytes::Bytes;
use lockstep_core::change::{Body, Exchange, RenameTarget};
use lockstep_core::tree::Tree;
use lockstep_core::{
    Change, ChunkRef, ContentHash, ContentRef, DigestIndex, EntryName, Manifest, NodeId, NodeRange,
    Op, PeerId, Perm, Replica, Seen, Sequence, Slot, Times, Timespec, Version, VolumeId,
};
use prost::Message;

/// A decoder: its name, inputs that it accepts, and whether it accepts an input.
pub type Decoder = (&'static str, Vec<Vec<u8>>, fn(&[u8]) -> bool);

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    let volume = VolumeId([9; 16]);
    let hello = proto::Hello { protocol: 1, slot: 2, host: "ada".into(), ..Default::default() };
    let opening = proto::HelloRequest { hello: Some(hello), ..Default::default() };
    let beat = proto::HeartbeatRequest { beat: Some(Default::default()), ..Default::default() };
    let pair = PairRequest {
        volume,
        secret: [3; 16],
        host: "ada".into(),
        listen: vec!["127.0.0.1:4".parse().expect("an address")],
    };
    let grant = proto::PairGrant { your_slot: 2, my_slot: 1, ..Default::default() };
    let detail = proto::RefusalDetail { kind: Kind::OutOfOrder.into(), ..Default::default() };
    let key = [0x5a; 32].map(|byte: u8| format!("{byte:02x}")).concat();
    let mut stranger = tls::verify::SPKI_PREFIX.to_vec();
    stranger.extend([7; 32]);
    let summary = DigestIndex::new((0..300).map(|n| (NodeId(n * 7), u128::from(n))).collect());
    vec![
        ("batch", vec![samples(), made_below_itself()], batch),
        ("ranges", vec![wire::encode_ranges(&[NodeRange::ALL; 3]).to_vec()], ranges),
        (
            "contents to keep",
            vec![wire::encode_contents(&[(NodeId::new(Slot(1), 2), content(5)); 3]).to_vec()],
            kept,
        ),
        (
            "summary",
            vec![wire::encode_parts(&[summary.part(NodeRange::ALL)]).encode_to_vec()],
            parts,
        ),
        ("hello", vec![opening.encode_to_vec()], |b| {
            message(b, |m: proto::HelloRequest| Hello::try_from(m.hello))
        }),
        ("acknowledgement", vec![vec![8, 3, 16, 2]], |b| {
            message(b, |m: proto::BatchNotifyResponse| Ack::try_from(m))
        }),
        ("heartbeat", vec![beat.encode_to_vec()], |b| {
            message(b, |m: proto::HeartbeatRequest| Beat::try_from(m.beat))
        }),
        ("pairing", vec![proto::PairRequest::from(pair).encode_to_vec()], |b| {
            message(b, |m: proto::PairRequest| PairRequest::try_from(m))
        }),
        ("grant", vec![grant.encode_to_vec()], |b| {
            message(b, |m: proto::PairGrant| PairGrant::try_from(m))
        }),
        ("barrier", vec![vec![16, 3]], |b| {
            message(b, |m: proto::BarrierRequest| BarrierRequest::try_from(m))
        }),
        ("barrier's answer", vec![vec![8, 1]], |b| {
            message(b, |m: proto::BarrierResponse| BarrierReply::try_from(m))
        }),
        ("read", vec![asked().encode_to_vec()], |b| {
            message(b, |m: proto::ReadRequest| wire::content(m.content.as_ref()))
        }),
        ("refusal", vec![detail.encode_to_vec()], |b| {
            proto::RefusalDetail::decode(b).map(Refusal::from_detail).is_ok()
        }),
        ("manifest", vec![manifest().encode()], |b| {
            link::decode_manifest(b, content(3_000_000)).is_ok()
        }),
        ("greeting", vec![vec![1; 24]], greeting),
        ("lane", vec![Alpn::Pair.name().into()], |b| Alpn::parse(b).is_some()),
        ("certificate", vec![stranger], |b| tls::peer_of_spki(b).is_some()),
        ("invite", vec![invite().to_string().into()], code),
        ("key file", vec![format!("lockstep-key-1 {key}\n").into()], |b| {
            Identity::parse(b).is_some()
        }),
        ("invite book", vec![invite_book::sample()], |b| invite_book::decode(b).is_some()),
    ]
}

fn message<M: Message + Default + Bounded, T, E>(
    bytes: &[u8],
    verify: impl Fn(M) -> Result<T, E>,
) -> bool {
    M::check(bytes).is_ok() && M::decode(bytes).is_ok_and(|message| verify(message).is_ok())
}

/// What a peer sends is decoded, and then applied: a change may be hostile in what it says.
fn batch(bytes: &[u8]) -> bool {
    let decoded = proto::BatchNotifyRequest::check(bytes)
        .ok()
        .and_then(|()| proto::BatchNotifyRequest::decode(bytes).ok())
        .and_then(|request| wire::decode_batch(request).ok());
    let Some(batch) = decoded else { return false };
    let again = wire::encode_batch(VolumeId([9; 16]), &batch);
    assert_eq!(wire::decode_batch(again).as_ref(), Ok(&batch));
    let tree = Tree::new(Perm::default(), Times::default());
    let mut replica = Replica::new(Slot(2), tree, Default::default());
    for (number, notification) in (1..).zip(batch.notifications) {
        let change = Change { seq: Sequence(number), ..notification.change };
        let _ = replica.apply_remote(Slot(1), &change);
        let _ = replica.take_consequences();
    }
    let _ = replica.tree.check();
    let _ = Tree::load(replica.drain().rows.into_iter().filter_map(|(_, row)| row)).check();
    true
}

fn ranges(bytes: &[u8]) -> bool {
    let index = DigestIndex::new(vec![(NodeId(7), 1), (NodeId(70), 2)]);
    let ranges = wire::decode_ranges(&Bytes::copy_from_slice(bytes));
    ranges.is_ok_and(|ranges| {
        ranges.iter().for_each(|range| drop(index.part(*range)));
        true
    })
}

fn kept(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    wire::decode_contents(&bytes).is_ok_and(|contents| {
        assert_eq!(wire::encode_contents(&contents), bytes);
        true
    })
}

fn parts(bytes: &[u8]) -> bool {
    message(bytes, |m: proto::SummarizeResponse| wire::decode_parts(m))
}

fn greeting(bytes: &[u8]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(Greeting::read(&mut &bytes[..])).is_ok()
}

fn code(bytes: &[u8]) -> bool {
    let invite: Result<Invite, _> = String::from_utf8_lossy(bytes).parse();
    invite.is_ok_and(|invite| {
        assert_eq!(invite.to_string().parse(), Ok(invite));
        true
    })
}

fn invite() -> Invite {
    Invite {
        peer: PeerId([7; 32]),
        volume: VolumeId([9; 16]),
        volume_name: "work".into(),
        secret: [3; 16],
        expires_unix_secs: 1_800_000_000,
        addrs: ["127.0.0.1:4000", "[::1]:4001"].map(|a| a.parse().expect("an address")).into(),
    }
}

fn content(size_bytes: u64) -> ContentRef {
    ContentRef { size_bytes, hash: ContentHash([5; 32]) }
}

fn manifest() -> Manifest {
    Manifest { chunks: vec![ChunkRef { len_bytes: 1_000_000, hash: [4; 32] }; 3] }
}

fn asked() -> proto::ReadRequest {
    proto::ReadRequest { content: Some(wire::encode_content(content(9))), ..Default::default() }
}

fn create(node: NodeId, parent: NodeId, name: EntryName, body: Body) -> Op {
    let (times, perm, at) = (Times::default(), Perm::default(), Timespec::default());
    Op::Create { node, parent, name, body, perm, times, xattrs: Vec::new(), at }
}

/// Found by fuzzing: directories that are made again, below themselves.
fn made_below_itself() -> Vec<u8> {
    let (dir, sub) = (NodeId::new(Slot(1), 2), NodeId::new(Slot(1), 3));
    let name = |name: &str| EntryName::new(name.as_bytes()).expect("a name");
    encoded(vec![
        create(dir, NodeId::ROOT, name("dir"), Body::Dir),
        create(dir, dir, name("itself"), Body::Dir),
        create(sub, dir, name("sub"), Body::Dir),
        create(dir, sub, name("dir"), Body::Dir),
        Op::Rename {
            node: sub,
            from: (dir, name("sub")),
            to: (dir, name("other")),
            target: RenameTarget::Free,
            at: Timespec::default(),
        },
    ])
}

/// A batch with something of everything.
fn samples() -> Vec<u8> {
    let (dir, file) = (NodeId::new(Slot(1), 2), NodeId::new(Slot(1), 3));
    let name = |name: &str| EntryName::new(name.as_bytes()).expect("a name");
    let (at, times, perm) = (Timespec::default(), Times::default(), Perm::default());
    let seen = Version { lamport: 2, slot: Slot(1) };
    let mut known = Seen::default();
    known.applied(seen, Some(file));
    let mut replica = Replica::new(Slot(1), Tree::new(perm, times), Default::default());
    replica.local(create(dir, NodeId::ROOT, name("state"), Body::Dir));
    let state = replica.tree.state(dir).expect("made above");
    let ops = [
        create(dir, NodeId::ROOT, name("dir"), Body::Dir),
        create(file, dir, name("file"), Body::File(content(4))),
        create(NodeId::new(Slot(1), 4), dir, name("link"), Body::Symlink(b"../x".to_vec())),
        Op::Link { node: file, parent: NodeId::ROOT, name: name("other"), at },
        Op::Content { node: file, base: seen, content: content(9), times, perm },
        Op::Rename {
            node: file,
            from: (dir, name("file")),
            to: (dir, name("link")),
            target: RenameTarget::Replaced { node: NodeId::new(Slot(1), 4), seen },
            at,
        },
        Op::Rename {
            node: dir,
            from: (NodeId::ROOT, name("dir")),
            to: (NodeId::ROOT, name("other")),
            target: RenameTarget::Exchanged { node: file },
            at,
        },
        Op::SetPerm { node: dir, perm, ctime: at },
        Op::SetTimes { node: dir, times },
        Op::SetXattr {
            node: file,
            name: b"user.a".to_vec(),
            value: Some(b"v".to_vec()),
            ctime: at,
        },
        Op::Unlink { node: file, parent: NodeId::ROOT, name: name("other"), seen, at },
        Op::Exchange(Exchange::Begin(known)),
        Op::Exchange(Exchange::Node(Box::new(state))),
        Op::Exchange(Exchange::Gone(file)),
        Op::Exchange(Exchange::End),
    ];
    encoded(ops.into())
}

fn encoded(ops: Vec<Op>) -> Vec<u8> {
    let notification = |(number, op)| Notification {
        change: Change {
            seq: Sequence(number),
            version: Version { lamport: number + 1, slot: Slot(1) },
            op,
        },
        inline: None,
    };
    let notifications = (1..).zip(ops).map(notification).collect();
    let batch = Batch { seq: 1, timestamp_ms: 2, notifications };
    wire::encode_batch(VolumeId([9; 16]), &batch).encode_to_vec()
}

#[cfg(test)]
#[path = "../../../fuzz/mutated.rs"]
pub(crate) mod mutated;

#[cfg(test)]
mod tests {
    #[test]
    fn no_decoder_breaks_over_altered_bytes() {
        super::mutated::run(&super::decoders(), 10_000);
    }
}
