//! Values of the state database: counters, log entries, and rows, from which a tree is built.
#![no_main]

use lockstep_core::tree::NodeRow;
use lockstep_core::{Change, Counters, Tree};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = postcard::from_bytes::<Change>(bytes);
    if let Ok(counters) = postcard::from_bytes::<Counters>(bytes) {
        let _ = counters.can_go_on();
    }
    if let Ok(rows) = postcard::from_bytes::<Vec<NodeRow>>(bytes) {
        let _ = Tree::load(rows).check();
    }
});
