//! What people paste after `lockstep join`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(invite) = text.parse::<lockstep_net::Invite>() {
        assert_eq!(invite.to_string().parse(), Ok(invite));
    }
});
