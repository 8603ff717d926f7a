//! What is committed is there, also after opening again.

use crate::{assert_holds_exactly, numbered};
use lockstep_core::{NodeId, Sequence, Slot};
use lockstep_disk::{StateBatch, StateDb, StateStore};
use tempfile::TempDir;

fn log_of(db: &StateDb) -> Vec<u64> {
    db.read_log(Sequence(0), usize::MAX).unwrap().into_iter().map(|(s, _)| s.0).collect()
}

fn bounds(db: &StateDb) -> Option<(u64, u64)> {
    Some((db.first_log().unwrap()?.0, db.last_log().unwrap()?.0))
}

fn entries(sequences: impl IntoIterator<Item = u64>) -> StateBatch {
    let log = sequences.into_iter().map(|n| (Sequence(n), vec![n as u8])).collect();
    StateBatch { log, ..Default::default() }
}

fn trim(through: u64) -> StateBatch {
    StateBatch { trim_log_through: Some(Sequence(through)), ..Default::default() }
}

#[test]
fn a_new_database_is_empty() {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(&dir.path().join("made/with/parents")).unwrap();
    assert_holds_exactly(&db, 0);
    db.commit(&StateBatch::default()).unwrap();
    assert!(StateBatch::default().is_empty() && !numbered(1).is_empty());
    db.sync().unwrap();
}

#[test]
fn everything_is_there_after_opening_again() {
    let dir = TempDir::new().unwrap();
    for round in 0..3 {
        let db = StateDb::open(dir.path()).unwrap();
        assert_holds_exactly(&db, round * 50);
        for number in round * 50 + 1..=round * 50 + 50 {
            db.commit(&numbered(number)).unwrap();
        }
        if round == 1 {
            db.sync().unwrap();
        }
    }
    assert_holds_exactly(&StateDb::open(dir.path()).unwrap(), 150);
}

#[test]
fn nodes_are_replaced_removed_and_ordered_by_id() {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    let (low, high) = (NodeId::new(Slot(1), 300), NodeId::new(Slot(2), 5));
    let nodes = |nodes| StateBatch { nodes, ..Default::default() };
    db.commit(&nodes(vec![(high, Some(vec![1])), (low, Some(vec![])), (NodeId::ROOT, None)]))
        .unwrap();
    assert_eq!(db.load_nodes().unwrap(), [(low, vec![]), (high, vec![1])]);
    db.commit(&nodes(vec![(low, None), (high, Some(vec![2; 100_000]))])).unwrap();
    assert_eq!(db.load_nodes().unwrap(), [(high, vec![2; 100_000])]);
}

#[test]
fn within_a_batch_the_last_word_counts() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (NodeId(10), NodeId(11));
    let batch = StateBatch {
        nodes: vec![
            (a, Some(vec![1])),
            (b, None),
            (a, None),
            (b, Some(vec![2])),
            (b, Some(vec![3])),
        ],
        log: vec![(Sequence(1), vec![1]), (Sequence(1), vec![2])],
        meta: vec![("k".into(), vec![1]), ("k".into(), vec![2])],
        ..Default::default()
    };
    let db = StateDb::open(dir.path()).unwrap();
    db.commit(&batch).unwrap();
    let check = |db: &StateDb| {
        assert_eq!(db.load_nodes().unwrap(), [(b, vec![3])]);
        assert_eq!(db.read_log(Sequence(0), 9).unwrap(), [(Sequence(1), vec![2])]);
        assert_eq!(db.meta("k").unwrap(), Some(vec![2]));
    };
    check(&db);
    drop(db);
    check(&StateDb::open(dir.path()).unwrap());
}

#[test]
fn the_log_is_read_from_anywhere_and_in_pieces() {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    db.commit(&entries([1, 2, 3, 255, 256, 70_000])).unwrap();
    let read = |from, max| -> Vec<u64> {
        db.read_log(Sequence(from), max).unwrap().into_iter().map(|(s, _)| s.0).collect()
    };
    assert_eq!(read(0, 2), [1, 2]);
    assert_eq!(read(3, 3), [3, 255, 256]);
    assert_eq!(read(257, 9), [70_000]);
    assert_eq!(read(70_001, 9), [0; 0]);
    assert_eq!(read(1, 0), [0; 0]);
}

#[test]
fn trimming_removes_the_front_of_the_log() {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    db.commit(&trim(5)).unwrap();
    db.commit(&entries(1..=10)).unwrap();
    db.commit(&trim(0)).unwrap();
    assert_eq!(bounds(&db), Some((1, 10)));
    db.commit(&trim(4)).unwrap();
    assert_eq!((log_of(&db), bounds(&db)), ((5..=10).collect(), Some((5, 10))));
    db.commit(&trim(3)).unwrap();
    assert_eq!(bounds(&db), Some((5, 10)));
    let mut both = entries([11, 12, 13]);
    both.trim_log_through = Some(Sequence(11));
    db.commit(&both).unwrap();
    assert_eq!((log_of(&db), bounds(&db)), (vec![12, 13], Some((12, 13))));
    drop(db);
    let db = StateDb::open(dir.path()).unwrap();
    assert_eq!((log_of(&db), bounds(&db)), (vec![12, 13], Some((12, 13))));
    db.commit(&trim(u64::MAX)).unwrap();
    assert_eq!((log_of(&db), bounds(&db)), (vec![], None));
    db.commit(&entries([14])).unwrap();
    assert_eq!(bounds(&db), Some((14, 14)));
}

#[test]
fn more_than_memory_holds_is_written_and_found_again() {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    let value = |n: u64| vec![n as u8; 100_000];
    for n in 1..=200 {
        let mut batch = entries([n]);
        batch.nodes.push((NodeId(n % 50), Some(value(n))));
        batch.trim_log_through = n.checked_sub(20).map(Sequence);
        db.commit(&batch).unwrap();
    }
    let check = |db: &StateDb| {
        let nodes: Vec<_> = db.load_nodes().unwrap();
        assert_eq!(nodes.len(), 50);
        assert!(nodes.iter().all(|(id, v)| *v == value(150 + if id.0 == 0 { 50 } else { id.0 })));
        assert_eq!(bounds(db), Some((181, 200)));
    };
    check(&db);
    drop(db);
    check(&StateDb::open(dir.path()).unwrap());
}

#[test]
fn threads_take_turns() {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for n in 0..100 {
                    db.commit(&entries([1 + n * 4 + thread])).unwrap();
                    db.read_log(Sequence(0), 5).unwrap();
                }
            });
        }
    });
    assert_eq!(log_of(&db), (1..=400).collect::<Vec<_>>());
    assert_eq!(bounds(&db), Some((1, 400)));
}

#[test]
fn records_are_found_by_what_their_names_begin_with() {
    let dir = TempDir::new().unwrap();
    let records = |records| StateBatch { records, ..Default::default() };
    let named = |name: &str, value: u8| (name.to_owned(), Some(vec![value]));
    {
        let db = StateDb::open(dir.path()).unwrap();
        let all = vec![named("trash/2", 2), named("trash/1", 1), named("tray", 3)];
        db.commit(&records(all)).unwrap();
        db.commit(&records(vec![("trash/2".to_owned(), None), named("trash/3", 4)])).unwrap();
    }
    let db = StateDb::open(dir.path()).unwrap();
    let found = db.records("trash/").unwrap();
    assert_eq!(found, [("trash/1".to_owned(), vec![1]), ("trash/3".to_owned(), vec![4])]);
}
