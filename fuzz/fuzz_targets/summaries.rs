//! Questions and answers about a peer's state.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lockstep_net::fuzz::summary(bytes));
