//! Everything that `lockstep-vfs` decodes.
#![no_main]

#[path = "../mutated.rs"]
mod mutated;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mutated::select(&lockstep_vfs::fuzz::decoders(), bytes));
