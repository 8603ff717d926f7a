//! Which chunks lie where.

use lockstep_core::{ChunkRef, ContentRef, Manifest, NodeId};
use lockstep_disk::{Holding, StateDb, StateStore, Whereabouts, describe_bytes};

fn content(chunks: &[u8]) -> (ContentRef, Manifest) {
    let chunk = |n: &u8| ChunkRef { len_bytes: 10, hash: [*n; 32] };
    let manifest = Manifest { chunks: chunks.iter().map(chunk).collect() };
    let mut named = describe_bytes(chunks).content;
    named.size_bytes = manifest.size_bytes();
    (named, manifest)
}

fn offsets(db: &StateDb, chunk: u8) -> Vec<(u64, u64)> {
    let at = |w: Whereabouts| (w.holding.node.0, w.offset_bytes);
    db.find_chunk(&[chunk; 32], 8).unwrap().into_iter().map(at).collect()
}

#[test]
fn chunks_are_found_until_their_content_is_released_also_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let ((one, one_chunks), (two, two_chunks)) = (content(&[1, 2, 3, 2]), content(&[3, 4]));
    let holding = |node, content| Holding::new(NodeId(node), content);
    {
        let db = StateDb::open(dir.path()).unwrap();
        db.hold(holding(7, &one), &one, &one_chunks).unwrap();
        db.hold(holding(8, &two), &two, &two_chunks).unwrap();
        db.hold(holding(7, &two), &two, &two_chunks).unwrap();
    }
    let db = StateDb::open(dir.path()).unwrap();
    assert_eq!(offsets(&db, 2), [(7, 10)], "of equal chunks the first");
    let mut third = offsets(&db, 3);
    third.sort_unstable();
    assert_eq!(third, [(7, 0), (7, 20), (8, 0)]);
    assert_eq!(db.find_chunk(&two.hash.0, 8).unwrap().len(), 2, "a content by its own name");
    assert_eq!(db.find_chunk(&[3; 32], 1).unwrap().len(), 1, "no more than asked for");
    assert_eq!(db.held(holding(8, &two)).unwrap(), Some((two, two_chunks)));
    assert_eq!(db.holdings(NodeId(7)).unwrap().len(), 2);

    db.release(holding(7, &one)).unwrap();
    db.release(holding(7, &one)).unwrap();
    assert_eq!(offsets(&db, 1), []);
    assert_eq!(db.held(holding(7, &one)).unwrap(), None);
    assert_eq!(db.holdings(NodeId(7)).unwrap(), [holding(7, &two)]);
    assert_eq!(offsets(&db, 4).len(), 2);
}

#[test]
fn a_content_of_many_chunks_is_written_in_parts_and_found_whole() {
    let dir = tempfile::tempdir().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    let hash = |n: u32| describe_bytes(&n.to_le_bytes()).content.hash.0;
    let chunks = (0..10_000).map(|n| ChunkRef { len_bytes: 5, hash: hash(n) }).collect();
    let manifest = Manifest { chunks };
    let named = ContentRef { size_bytes: 50_000, ..describe_bytes(b"x").content };
    let holding = Holding::new(NodeId(1), &named);
    db.hold(holding, &named, &manifest).unwrap();
    for n in [0, 2047, 2048, 9_999] {
        let found = db.find_chunk(&hash(n), 4).unwrap();
        assert_eq!(found, [Whereabouts { holding, offset_bytes: 5 * u64::from(n) }]);
    }
    db.release(holding).unwrap();
    assert!((0..10_000).all(|n| db.find_chunk(&hash(n), 4).unwrap().is_empty()));
}
