//! Each call, both ways, over one dialled session.

use super::fake::*;
use crate::{
    BarrierRequest, Batch, ContentStream, Lane, Link, Notification, PeerService, Refusal, Result,
};
use bytes::Bytes;
use lockstep_core::change::Body;
use lockstep_core::{
    Change, ContentRef, EntryName, NodeId, Op, Perm, Sequence, Slot, Times, Timespec, Version,
};
use std::sync::atomic::Ordering;
use tokio_stream::StreamExt;

pub(super) fn batch(seq: u64) -> Batch {
    let op = Op::Create {
        node: NodeId::new(Slot(2), seq),
        parent: NodeId::ROOT,
        name: EntryName::new(b"file").unwrap(),
        body: Body::File(content(3)),
        perm: Perm::default(),
        times: Times::default(),
        xattrs: Vec::new(),
        at: Timespec::default(),
    };
    let version = Version { lamport: seq, slot: Slot(2) };
    let change = Change { seq: Sequence(seq), version, op };
    let inline = Some(Bytes::from_static(b"abc"));
    Batch { seq, timestamp_ms: 1, notifications: vec![Notification { change, inline }] }
}

/// Takes in a whole stream, checking every byte.
async fn drain(mut stream: ContentStream, mut offset: u64) -> Result<u64> {
    let start = offset;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let expected = pattern(offset, rest.len() as u64);
            assert_eq!(rest[..expected.len()], expected[..], "at {offset}");
            offset += expected.len() as u64;
            rest = &rest[expected.len()..];
        }
    }
    Ok(offset - start)
}

async fn every_call(link: &Link) {
    let ack = link.notify(batch(1)).await.unwrap();
    assert_eq!((ack.applied, ack.durable, ack.complete), (Sequence(1), Sequence(1), true));
    for (lane, offset, len) in [(Lane::Interactive, 5, 1000), (Lane::Bulk, 0, 3_000_000)] {
        let stream = link.read(lane, NODE, content(3_000_000), offset, len).await.unwrap();
        assert_eq!(drain(stream, offset).await, Ok(len));
    }
    let past_the_end = link.read(Lane::Bulk, NODE, content(100), 90, 1000).await.unwrap();
    assert_eq!(drain(past_the_end, 90).await, Ok(10));
    let manifest = link.manifest(NODE, content(40_960)).await.unwrap();
    assert_eq!(manifest.chunks.len(), 10);
    assert_eq!(
        link.manifest(NODE, ContentRef::default()).await,
        Err(Refusal::Gone { shown: None })
    );
    let asked = [(NODE, content(5)), (NODE, ContentRef::default()), (NODE, content(6))];
    assert_eq!(link.keeps(&asked).await, Ok(vec![true, false, true]));
    assert!(matches!(link.keeps(&[asked[0]; 1025]).await, Err(Refusal::Invalid(_))));
    let ranges = [lockstep_core::NodeRange::ALL; 32];
    let parts = link.summarize(&ranges).await.unwrap();
    assert_eq!(parts, vec![lockstep_core::Part::Listed(vec![(NodeId(0), 7)]); 32]);
    let barrier = |upto| BarrierRequest { upto: Sequence(upto), timeout_ms: 1000 };
    assert!(link.barrier(barrier(7)).await.unwrap().reached);
    let missed = link.barrier(barrier(101)).await.unwrap();
    assert_eq!((missed.reached, missed.missing.as_str()), (false, "3 changes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_works_both_ways_over_one_dialled_session() {
    let (a, b, address) = connected(10).await;
    for (me, other) in [(&a, &b), (&b, &a)] {
        let link = me.fake.link(1).await;
        assert_eq!((link.peer(), link.volume()), (other.id(), VOLUME));
        assert_eq!(link.kex(), "X25519MLKEM768");
        assert!(link.path().starts_with("tcp 127.0.0.1:"));
        assert_eq!(link.their_hello().applied.seq, Sequence(22));
        assert_eq!(link.their_hello(), &other.fake.my_hello(me.id(), VOLUME).unwrap());
        every_call(&link).await;
        other.fake.until("the batch", |seen| seen.batches == [1]).await;
        other.fake.until("heartbeats", |seen| seen.beats >= 2).await;
        assert_eq!(other.fake.seen.borrow().hellos.len(), 1);
    }
    assert_eq!(b.fake.link(1).await.path(), format!("tcp {address}"));
    assert_eq!(a.fake.link(1).await.session(), b.fake.link(1).await.session());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_keep_their_meaning_across_the_network() {
    let (a, b, _) = connected(12).await;
    let link = b.fake.link(1).await;
    let refusals = [
        Refusal::DiskFull("no space left on the receiver".into()),
        Refusal::OutOfOrder { expected: Sequence(9) },
        Refusal::UnknownVolume,
    ];
    for (nth, refusal) in refusals.into_iter().enumerate() {
        *a.fake.refusal.lock().unwrap() = Some(refusal.clone());
        // The number goes on after a refusal.
        assert_eq!(link.notify(batch(nth as u64 + 1)).await, Err(refusal));
    }
    assert!(link.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_sent_in_any_order_are_delivered_in_theirs() {
    let (a, b, _) = connected(14).await;
    let link = b.fake.link(1).await;
    let sent: Vec<_> = (1..=16)
        .rev()
        .map(|seq| {
            let link = link.clone();
            tokio::spawn(async move { link.notify(batch(seq)).await })
        })
        .collect();
    for answer in sent {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(a.fake.seen.borrow().batches, (1..=16).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_twice_ends_the_session_and_is_not_delivered_twice() {
    let (a, b, _) = connected(16).await;
    let link = b.fake.link(1).await;
    link.notify(batch(1)).await.unwrap();
    link.notify(batch(1)).await.unwrap_err();
    a.fake.until("the end", |seen| seen.down.len() == 1).await;
    assert_eq!(a.fake.seen.borrow().batches, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_256_mib_arrives_whole_and_costs_little_memory() {
    const SIZE: u64 = 256 << 20;
    let (a, b, _) = connected(18).await;
    let link = b.fake.link(1).await;
    let stream = link.read(Lane::Bulk, NODE, content(SIZE), 0, SIZE).await.unwrap();
    // Nobody takes anything yet: the other side must stop producing by itself.
    link.barrier(BarrierRequest { upto: Sequence(1), timeout_ms: 0 }).await.unwrap();
    let ahead = || a.fake.produced.load(Ordering::SeqCst);
    a.fake.until("a few heartbeats meanwhile", |seen| seen.beats >= 4).await;
    assert!(ahead() < 32 << 20, "{} bytes were produced ahead of the reader", ahead());
    assert_eq!(drain(stream, 0).await, Ok(SIZE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_early_is_an_error_not_a_short_file() {
    let (_a, b, _) = connected(20).await;
    let link = b.fake.link(1).await;
    let broken = NodeId::new(Slot(9), 9);
    let stream = link.read(Lane::Bulk, broken, content(1000), 0, 1000).await.unwrap();
    assert!(matches!(drain(stream, 0).await, Err(Refusal::Internal(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_larger_than_a_message_arrives_whole() {
    let (_a, b, _) = connected(22).await;
    let link = b.fake.link(1).await;
    // 320,000 chunks: 11.5 MB.
    let manifest = soon(link.manifest(NODE, content(4096 * 320_000))).await.unwrap();
    assert_eq!(manifest.chunks.len(), 320_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_does_not_fit_its_content_is_refused() {
    let (_a, b, _) = connected(24).await;
    let link = b.fake.link(1).await;
    // The fake rounds down to whole chunks.
    assert!(matches!(link.manifest(NODE, content(41_000)).await, Err(Refusal::Invalid(_))));
}
