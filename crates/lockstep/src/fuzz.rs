//! Everything that the program decodes besides what its crates do: lines of the control socket, the
//! files of a home and of a backing directory. `fuzz/` and the test below run all of it over altered
//! bytes.

use crate::control::{Place, Reply, Request};
use crate::daemon::config::Config;
use crate::daemon::launch;
use crate::daemon::owner::Label;
use crate::daemon::record::{PeerRecord, VolumeRecord, unaltered, volume_id};
use crate::errors::Failure;
use crate::fuse::mountinfo;
use lockstep_core::{PeerId, Slot, VolumeId};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Instant;

/// A decoder: its name, inputs that it accepts, and whether it accepts an input.
pub type Decoder = (&'static str, Vec<Vec<u8>>, fn(&[u8]) -> bool);

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    let json = |value: serde_json::Value| value.to_string().into_bytes();
    let encoded = |request: Request| serde_json::to_vec(&request).expect("requests encode");
    let share = Request::Share { dir: "/a b".into(), name: None, place: Place::default() };
    let requests = [share, Request::Wait { timeout_ms: 9 }, Request::Pin { path: "/a".into() }];
    let replies =
        [Reply::Done(serde_json::json!({"a": 1})), Reply::Failed(Failure::usage("a", "b"))];
    let reply = |reply: &Reply| serde_json::to_vec(reply).expect("replies encode");
    let mut record = VolumeRecord::new(VolumeId([9; 16]), "n".into(), "/b".into(), Slot(1));
    let addrs = vec!["[::1]:4".parse().expect("an address")];
    record.me = Some(PeerId([8; 32]));
    record.peers.push(PeerRecord { id: PeerId([7; 32]), name: "ada".into(), slot: Slot(2), addrs });
    let record = json(record.checked().expect("records encode"));
    let config = serde_json::json!({
        "listen": "127.0.0.1:4", "host": "ada", "trash_days": 7, "trash_percent": 10, "verify_pause_s": 60
    });
    let label = serde_json::json!({ "home": "/h", "volume": "09".repeat(16) });
    let mount = b"36 35 98:0 / /mnt\\040x rw shared:1 - fuse.lockstep lockstep:v rw\n";
    let words = format!("started\n{}cannot lock\n", launch::LAST_WORDS);
    vec![
        ("request", requests.map(encoded).into(), |b| parsed::<Request>(b).is_some()),
        ("reply", replies.each_ref().map(reply).into(), |b| {
            parsed::<Reply>(b).is_some_and(|reply| !format!("{reply:?}").is_empty())
        }),
        ("volume.json", vec![record], |b| {
            parsed::<Value>(b).is_some_and(|value| unaltered::<VolumeRecord>(value).is_ok())
        }),
        ("config.json", vec![json(config)], settings),
        ("owner", vec![json(label)], |b| parsed::<Label>(b).is_some()),
        ("volume's id", vec!["0f".repeat(16).into()], |b| {
            str::from_utf8(b).is_ok_and(|text| volume_id(text).is_some())
        }),
        ("last words", vec![words.into()], |b| {
            launch::parse_last_words(&String::from_utf8_lossy(b)).is_some()
        }),
        ("mounts", vec![mount.into()], |b| mountinfo::parse(b).count() > 0),
    ]
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// Whatever is set can be worked with.
fn settings(bytes: &[u8]) -> bool {
    parsed::<Config>(bytes).is_some_and(|config| {
        let _ = (Instant::now() + config.verify_pause(), config.trash_limits());
        true
    })
}

#[cfg(test)]
#[path = "../../../fuzz/mutated.rs"]
mod mutated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_decoder_breaks_over_altered_bytes() {
        mutated::run(&decoders(), 5_000);
        assert!(settings(
            br#"{"verify_pause_s": 18446744073709551615, "trash_days": 18446744073709551615}"#
        ));
    }
}
