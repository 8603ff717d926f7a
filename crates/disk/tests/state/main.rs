//! The state database on real directories.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod damage;
mod full_disk;
mod holdings;
mod store;

use lockstep_core::{NodeId, Sequence};
use lockstep_disk::{StateBatch, StateDb, StateStore};

/// A batch with one log entry, one node and one named value, all telling its number.
fn numbered(number: u64) -> StateBatch {
    let value = number.to_string().into_bytes();
    StateBatch {
        nodes: vec![(NodeId(number), Some(value.clone()))],
        log: vec![(Sequence(number), value.clone())],
        meta: vec![("last".to_owned(), value)],
        ..Default::default()
    }
}

/// That everything of batches 1 to `last` is there, and nothing else.
fn assert_holds_exactly(db: &StateDb, last: u64) {
    let expected: Vec<_> = (1..=last).map(|n| (n, n.to_string().into_bytes())).collect();
    let nodes: Vec<_> = db.load_nodes().unwrap().into_iter().map(|(n, v)| (n.0, v)).collect();
    assert_eq!(nodes, expected);
    let log = db.read_log(Sequence(0), usize::MAX).unwrap();
    let log: Vec<_> = log.into_iter().map(|(s, v)| (s.0, v)).collect();
    assert_eq!(log, expected);
    assert_eq!(db.meta("last").unwrap(), expected.last().map(|(_, v)| v.clone()));
    assert_eq!(db.first_log().unwrap(), (last > 0).then_some(Sequence(1)));
    assert_eq!(db.last_log().unwrap(), (last > 0).then_some(Sequence(last)));
}
