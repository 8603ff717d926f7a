//! The chunk list of a content.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(manifest) = lockstep_core::Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
    }
});
