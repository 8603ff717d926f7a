//! Everything that `lockstep-vfs` decodes.
#![no_main]

#[path = "../mutated.rs"]
mod mutated;

use std::sync::LazyLock;

static DECODERS: LazyLock<Vec<mutated::Decoder>> = LazyLock::new(lockstep_vfs::fuzz::decoders);

libfuzzer_sys::fuzz_target!(init: mutated::plant(&DECODERS), |bytes: &[u8]| {
    mutated::select(&DECODERS, bytes);
});
