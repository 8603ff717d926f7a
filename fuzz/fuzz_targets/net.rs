//! Everything that `lockstep-net` decodes.
#![no_main]

#[path = "../mutated.rs"]
mod mutated;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mutated::select(&lockstep_net::fuzz::decoders(), bytes));
