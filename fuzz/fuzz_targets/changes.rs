//! A batch of changes as it comes from a peer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lockstep_net::fuzz::batch(bytes));
