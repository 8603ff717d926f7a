//! Everything that `lockstep-disk` decodes.
#![no_main]

#[path = "../mutated.rs"]
mod mutated;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mutated::select(&lockstep_disk::state::fuzz::decoders(), bytes);
});
