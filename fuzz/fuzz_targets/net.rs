//! Everything that `lockstep-net` decodes.
#![no_main]

#[path = "../mutated.rs"]
mod mutated;

use std::sync::LazyLock;

static DECODERS: LazyLock<Vec<mutated::Decoder>> = LazyLock::new(lockstep_net::fuzz::decoders);

libfuzzer_sys::fuzz_target!(init: mutated::plant(&DECODERS), |bytes: &[u8]| {
    mutated::select(&DECODERS, bytes);
});
