//! Changes survive the wire; what is not a change never gets through, and never panics.

use super::proto;
use super::{decode_batch, encode_batch, encode_notification, notification};
use crate::fuzz::mutated::Dice;
use crate::message::{Batch, Notification};
use bytes::Bytes;
use lockstep_core::change::{Body, Exchange, RenameTarget};
use lockstep_core::seen::Seen;
use lockstep_core::tree::{NodeState, TimesVersion};
use lockstep_core::{
    Change, ContentHash, ContentRef, EntryName, NodeId, Op, Perm, Sequence, Slot, Times, Timespec,
    Version, VolumeId,
};
use prost::Message;

impl Dice {
    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.roll() as u8).collect()
    }

    fn node(&mut self) -> NodeId {
        NodeId::new(Slot(1 + self.below(65_535) as u16), 1 + self.below(NodeId::COUNTER_MAX))
    }

    fn parent(&mut self) -> NodeId {
        if self.below(4) == 0 { NodeId::ROOT } else { self.node() }
    }

    fn name(&mut self) -> EntryName {
        let len = 1 + self.below(255);
        let bytes: Vec<u8> = self
            .bytes(len)
            .into_iter()
            .map(|b| if b == 0 || b == b'/' { b'n' } else { b })
            .collect();
        EntryName::new(&bytes).unwrap_or_else(|_| EntryName::new(b"name").unwrap())
    }

    fn version(&mut self) -> Version {
        Version { lamport: self.below(1 << 62), slot: Slot(self.below(65_536) as u16) }
    }

    fn time(&mut self) -> Timespec {
        Timespec { secs: self.roll() as i64, nanos: self.below(1_000_000_000) as u32 }
    }

    fn times(&mut self) -> Times {
        Times { atime: self.time(), mtime: self.time(), ctime: self.time() }
    }

    fn perm(&mut self) -> Perm {
        Perm { mode: self.below(0o10000) as u16, uid: self.roll() as u32, gid: self.roll() as u32 }
    }

    /// A content, with its bytes if it is small.
    fn content(&mut self) -> (ContentRef, Option<Bytes>) {
        let mut hash = ContentHash::default();
        let size_bytes = match self.below(3) {
            0 => return (ContentRef::default(), (self.below(2) == 0).then(Bytes::new)),
            1 => 1 + self.below(32 * 1024),
            _ => 1 + self.below(i64::MAX as u64),
        };
        hash.0.copy_from_slice(&self.bytes(32));
        let inline = size_bytes <= 32 * 1024 && self.below(2) == 0;
        let inline = inline.then(|| Bytes::from(self.bytes(size_bytes)));
        (ContentRef { size_bytes, hash }, inline)
    }

    fn xattrs(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..self.below(4))
            .map(|n| {
                let len = self.below(100);
                (format!("user.{n}").into_bytes(), self.bytes(len))
            })
            .collect()
    }

    fn body(&mut self) -> (Body, Option<Bytes>) {
        match self.below(5) {
            0 => (Body::Dir, None),
            1 => (Body::Symlink(b"../elsewhere \xff".to_vec()), None),
            2 => (Body::Fifo, None),
            3 => (Body::Socket, None),
            _ => {
                let (content, inline) = self.content();
                (Body::File(content), inline)
            }
        }
    }

    fn target(&mut self) -> RenameTarget {
        match self.below(3) {
            0 => RenameTarget::Free,
            1 => RenameTarget::Replaced { node: self.node(), seen: self.version() },
            _ => RenameTarget::Exchanged { node: self.node() },
        }
    }

    fn op(&mut self) -> (Op, Option<Bytes>) {
        let node = self.node();
        let op = match self.below(11) {
            0 => {
                let (body, inline) = self.body();
                let create = Op::Create {
                    node,
                    parent: self.parent(),
                    name: self.name(),
                    body,
                    perm: self.perm(),
                    times: self.times(),
                    xattrs: self.xattrs(),
                    at: self.time(),
                };
                return (create, inline);
            }
            1 => Op::Link { node, parent: self.parent(), name: self.name(), at: self.time() },
            2 => Op::Unlink {
                node,
                parent: self.parent(),
                name: self.name(),
                seen: self.version(),
                at: self.time(),
            },
            3 => Op::Rename {
                node,
                from: (self.parent(), self.name()),
                to: (self.parent(), self.name()),
                target: self.target(),
                at: self.time(),
            },
            4 => Op::SetPerm { node: self.parent(), perm: self.perm(), ctime: self.time() },
            5 => Op::SetTimes { node: self.parent(), times: self.times() },
            6 => Op::SetXattr {
                node: self.parent(),
                name: b"user.comment".to_vec(),
                value: (self.below(2) == 0).then(|| self.bytes(50)),
                ctime: self.time(),
            },
            7 => {
                let (state, inline) = self.state(node);
                return (Op::Exchange(Exchange::Node(Box::new(state))), inline);
            }
            8 => Op::Exchange(Exchange::Gone(node)),
            9 if self.below(2) == 0 => Op::Exchange(Exchange::End),
            9 => Op::Exchange(Exchange::Begin(self.seen())),
            _ => {
                let (content, inline) = self.content();
                let (times, perm) = (self.times(), self.perm());
                return (Op::Content { node, base: self.version(), content, times, perm }, inline);
            }
        };
        (op, None)
    }

    fn state(&mut self, node: NodeId) -> (NodeState, Option<Bytes>) {
        let (body, inline) = self.body();
        let set =
            TimesVersion { atime: self.version(), mtime: self.version(), ctime: self.version() };
        let xattrs = self.xattrs().into_iter().map(|(name, value)| {
            let value = (self.below(2) == 0).then_some(value);
            (name, (self.version(), value))
        });
        let xattrs = xattrs.collect();
        let names =
            (0..1 + self.below(3)).map(|_| (self.parent(), self.name(), self.version())).collect();
        let state = NodeState {
            node,
            body,
            content_version: self.version(),
            perm: (self.perm(), self.version()),
            times: (self.times(), set),
            xattrs,
            names,
            had: (0..self.below(3)).map(|_| (self.parent(), self.name())).collect(),
            removed: self.below(2) == 0,
            held: self.below(2) == 0,
        };
        (state, inline)
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen::default();
        for _ in 0..self.below(6) {
            let slot = Slot(self.below(3) as u16);
            let after = self.below(1 << 61);
            let through = after + 1 + self.below(1 << 60);
            seen.nodes.entry(slot).or_default().add(after, through);
            seen.versions.entry(slot).or_default().add(after / 2, through);
        }
        seen
    }

    fn notification(&mut self) -> Notification {
        let mut version = self.version();
        version.slot.0 = version.slot.0.max(1);
        let (op, inline) = self.op();
        let seq = Sequence(1 + self.below(1 << 62));
        Notification { change: Change { seq, version, op }, inline }
    }
}

fn through_the_wire(one: &Notification) -> Result<Notification, super::WireError> {
    let bytes = encode_notification(one).encode_to_vec();
    notification(proto::NotifyRequest::decode(&bytes[..]).unwrap())
}

#[test]
fn every_change_comes_back_as_it_was() {
    let mut dice = Dice(1);
    for _ in 0..5_000 {
        let one = dice.notification();
        assert_eq!(through_the_wire(&one).as_ref(), Ok(&one));
    }
}

#[test]
fn mutated_and_random_bytes_never_panic_and_what_is_accepted_is_valid() {
    let mut dice = Dice(2);
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut bytes = encode_notification(&dice.notification()).encode_to_vec();
        if round % 4 == 0 {
            let len = dice.below(200);
            bytes = dice.bytes(len);
        }
        for _ in 0..1 + dice.below(8) {
            if !bytes.is_empty() {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] = dice.roll() as u8;
            }
        }
        let Ok(wire) = proto::NotifyRequest::decode(&bytes[..]) else { continue };
        if let Ok(one) = notification(wire) {
            accepted += 1;
            assert_eq!(through_the_wire(&one).as_ref(), Ok(&one));
        }
    }
    assert!(accepted > 100, "the mutations are too wild to test anything: {accepted}");
}

#[test]
fn a_batch_keeps_to_its_limit() {
    let mut dice = Dice(3);
    let notifications: Vec<_> = (0..65).map(|_| dice.notification()).collect();
    let mut batch = Batch { seq: 7, timestamp_ms: 9, notifications };
    assert!(decode_batch(encode_batch(VolumeId([1; 16]), &batch)).is_err());
    assert_eq!(Batch::fitting(&batch.notifications), 64);
    batch.notifications.truncate(64);
    assert_eq!(decode_batch(encode_batch(VolumeId([1; 16]), &batch)), Ok(batch));
}

#[test]
fn a_batch_of_huge_attributes_is_cut_where_it_still_fits_a_message() {
    let mut dice = Dice(4);
    let huge = |dice: &mut Dice| Notification {
        change: Change {
            seq: Sequence(1),
            version: Version { lamport: 1, slot: Slot(1) },
            op: Op::Create {
                node: dice.node(),
                parent: NodeId::ROOT,
                name: dice.name(),
                body: Body::Dir,
                perm: Perm::default(),
                times: Times::default(),
                xattrs: (0..60).map(|n| (vec![b'a' + n], vec![0; 65_536])).collect(),
                at: Timespec::default(),
            },
        },
        inline: None,
    };
    let notifications: Vec<_> = (0..5).map(|_| huge(&mut dice)).collect();
    let fitting = Batch::fitting(&notifications);
    assert_eq!(fitting, 2);
    let batch = Batch { seq: 1, timestamp_ms: 0, notifications: notifications[..2].to_vec() };
    assert!(encode_batch(VolumeId([1; 16]), &batch).encoded_len() <= crate::MESSAGE_BYTES_MAX);
    assert_eq!(Batch::fitting(&[]), 0);
}

/// A valid file creation, to be spoilt in one place.
fn valid() -> proto::NotifyRequest {
    let content = ContentRef { size_bytes: 3, hash: ContentHash([5; 32]) };
    encode_notification(&Notification {
        change: Change {
            seq: Sequence(1),
            version: Version { lamport: 1, slot: Slot(1) },
            op: Op::Create {
                node: NodeId::new(Slot(1), 2),
                parent: NodeId::ROOT,
                name: EntryName::new(b"file").unwrap(),
                body: Body::File(content),
                perm: Perm::default(),
                times: Times::default(),
                xattrs: vec![(b"user.a".to_vec(), b"v".to_vec())],
                at: Timespec::default(),
            },
        },
        inline: Some(Bytes::from_static(b"abc")),
    })
}

#[test]
fn whatever_breaks_a_promise_of_the_types_is_refused() {
    type Spoil = fn(&mut proto::NotifyRequest);
    let spoils: &[(&str, Spoil)] = &[
        ("no type", |w| w.r#type = 0),
        ("unknown type", |w| w.r#type = 99),
        ("no sequence number", |w| w.seq = 0),
        ("absurd sequence number", |w| w.seq = u64::MAX),
        ("no version", |w| w.version = None),
        ("no author", |w| w.version.as_mut().unwrap().slot = 0),
        ("slot too large", |w| w.version.as_mut().unwrap().slot = 65_536),
        ("absurd lamport time", |w| w.version.as_mut().unwrap().lamport = u64::MAX),
        ("node zero", |w| w.node = 0),
        ("the root as a new node", |w| w.node = 1),
        ("a node of nobody", |w| w.parent = 2),
        ("a name with a slash", |w| w.name = Bytes::from_static(b"../x")),
        ("a name of dots", |w| w.name = Bytes::from_static(b"..")),
        ("no name", |w| w.name = Bytes::new()),
        ("no time", |w| w.at = None),
        ("too many nanoseconds", |w| w.at.as_mut().unwrap().nanos = 1_000_000_000),
        ("no times", |w| w.times = None),
        ("one time missing", |w| w.times.as_mut().unwrap().ctime = None),
        ("mode bits beyond permissions", |w| w.perm.as_mut().unwrap().mode = 0o100644),
        ("no content", |w| w.content = None),
        ("a short hash", |w| w.content.as_mut().unwrap().hash = Bytes::from_static(b"x")),
        ("a zero hash", |w| w.content.as_mut().unwrap().hash = Bytes::from(vec![0; 32])),
        ("a size beyond files", |w| w.content.as_mut().unwrap().size = u64::MAX),
        ("inline of another length", |w| w.content.as_mut().unwrap().size = 4),
        ("an attribute without value", |w| w.xattrs[0].value = None),
        ("an attribute without name", |w| w.xattrs[0].name = Bytes::new()),
        ("too many attributes", |w| w.xattrs = vec![w.xattrs[0].clone(); 1025]),
    ];
    assert!(notification(valid()).is_ok());
    for (what, spoil) in spoils {
        let mut wire = valid();
        spoil(&mut wire);
        assert!(notification(wire).is_err(), "{what}");
    }
}

#[test]
fn inline_content_beyond_its_limit_is_refused() {
    let mut wire = valid();
    let content = wire.content.as_mut().unwrap();
    content.size = 32 * 1024 + 1;
    content.inline = Some(Bytes::from(vec![0; 32 * 1024 + 1]));
    assert!(notification(wire).is_err());
}

#[test]
fn a_receiver_takes_both_forms_of_a_type_alike() {
    let mut dice = Dice(5);
    for _ in 0..500 {
        let one = dice.notification();
        let mut wire = encode_notification(&one);
        wire.r#type = match proto::NotifyType::try_from(wire.r#type).unwrap() {
            proto::NotifyType::RemoveFile => proto::NotifyType::RemoveDir,
            proto::NotifyType::RenameFile => proto::NotifyType::RenameDir,
            proto::NotifyType::EditFile => proto::NotifyType::EditDir,
            other => other,
        }
        .into();
        assert_eq!(notification(wire), Ok(one));
    }
}

#[test]
fn summaries_survive_the_wire_and_mutated_ones_never_panic() {
    use super::{decode_parts, decode_ranges, encode_parts, encode_ranges};
    use lockstep_core::{DigestIndex, NodeRange};
    let mut dice = Dice(6);
    for round in 0..2_000 {
        let nodes =
            (0..dice.below(300)).map(|n| (NodeId(n * 7), u128::from(dice.roll()))).collect();
        let range = NodeRange { first: NodeId(0), last: NodeId(u64::MAX) };
        let parts = vec![DigestIndex::new(nodes).part(range); 1 + round % 3];
        let wire = encode_parts(&parts);
        assert_eq!(decode_parts(wire.clone()), Ok(parts));
        let mut bytes = wire.encode_to_vec();
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] = dice.roll() as u8;
        bytes.truncate(bytes.len().saturating_sub(dice.below(9) as usize));
        if let Ok(wire) = proto::SummarizeResponse::decode(&bytes[..]) {
            let _ = decode_parts(wire);
        }
        let ranges = vec![range; dice.below(32) as usize];
        assert_eq!(decode_ranges(&encode_ranges(&ranges)), Ok(ranges));
    }
    assert!(decode_ranges(&Bytes::from(vec![0; 16 * 33])).is_err());
    assert!(decode_ranges(&Bytes::from(vec![0; 17])).is_err());
}

#[test]
fn contents_to_be_kept_survive_the_wire_and_impossible_ones_are_refused() {
    use super::{decode_contents, decode_kept, encode_contents, encode_kept};
    use lockstep_core::{ContentHash, ContentRef};
    let one = (NodeId((1 << 48) | 7), ContentRef { size_bytes: 5, hash: ContentHash([3; 32]) });
    let empty = (one.0, ContentRef::default());
    let many = vec![one; 1024];
    assert_eq!(decode_contents(&encode_contents(&many)), Ok(many.clone()));
    assert_eq!(decode_contents(&encode_contents(&[one, empty])), Ok(vec![one, empty]));
    assert!(decode_contents(&encode_contents(&[&many[..], &[one]].concat())).is_err());
    assert!(decode_contents(&encode_contents(&many).slice(..47)).is_err());
    let impossible = |node, size_bytes, hash| {
        let content = ContentRef { size_bytes, hash: ContentHash(hash) };
        decode_contents(&encode_contents(&[(node, content)])).is_err()
    };
    assert!(impossible(NodeId(7), 5, [3; 32]), "nobody draws such a number");
    assert!(impossible(one.0, u64::MAX, [3; 32]) && impossible(one.0, 0, [3; 32]));
    assert!(impossible(one.0, 5, [0; 32]));
    assert_eq!(decode_kept(&encode_kept(&[true, false]), 2), Ok(vec![true, false]));
    assert_eq!(decode_kept(&Bytes::from_static(&[1, 2]), 2), Ok(vec![true, false]));
    assert!(decode_kept(&encode_kept(&[true, false]), 3).is_err());
}
