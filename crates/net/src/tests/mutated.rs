//! Everything that is decoded besides changes, altered at random: codes that people paste, files on disk,
//! messages of the session. Whatever comes of it is a value or an error, never a panic.

use crate::wire::proto;
use crate::{Ack, Beat, Hello, Identity, Invite, InviteBook, PairGrant, PairRequest};
use lockstep_core::{PeerId, VolumeId};
use prost::Message;

/// SplitMix64: the same alterations in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn spoilt(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len() as u64 + 1) as usize;
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                _ if at < bytes.len() => bytes[at] = self.below(256) as u8,
                _ => {}
            }
        }
        bytes
    }
}

#[test]
fn altered_invite_codes_are_refused_or_are_invites() {
    let invite = Invite {
        peer: PeerId([7; 32]),
        volume: VolumeId([9; 16]),
        volume_name: "work".into(),
        secret: [3; 16],
        expires_unix_secs: 1_800_000_000,
        addrs: vec!["127.0.0.1:4000".parse().unwrap(), "[::1]:4001".parse().unwrap()],
    };
    let code = invite.to_string();
    assert_eq!(code.parse::<Invite>().as_ref(), Ok(&invite));
    let mut dice = Dice(1);
    for _ in 0..5_000 {
        let text = String::from_utf8_lossy(&dice.spoilt(code.as_bytes())).into_owned();
        if let Ok(other) = text.parse::<Invite>() {
            assert_eq!(other.to_string().parse::<Invite>(), Ok(other));
        }
    }
}

#[test]
fn altered_key_and_invite_files_are_refused_or_read() {
    let dir = std::env::temp_dir().join(format!("lockstep-mutated-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (key, book) = (dir.join("key"), dir.join("invites.json"));
    Identity::load_or_create(&key).unwrap();
    InviteBook::open(&book)
        .unwrap()
        .issue(VolumeId([1; 16]), 1_000_000, std::time::Duration::from_secs(60))
        .unwrap();
    let mut dice = Dice(2);
    for path in [&key, &book] {
        let whole = std::fs::read(path).unwrap();
        for _ in 0..300 {
            std::fs::write(path, dice.spoilt(&whole)).unwrap();
            let _ = Identity::load_or_create(&key);
            let _ = InviteBook::open(&book);
        }
        std::fs::write(path, &whole).unwrap();
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn altered_messages_of_the_session_are_refused_or_are_messages() {
    let mut dice = Dice(3);
    let hello =
        proto::Hello { protocol: 1, slot: 2, host: "there".into(), last: 9, ..Default::default() };
    let pair = proto::PairRequest {
        volume: vec![1; 16].into(),
        secret: vec![2; 16].into(),
        host: "there".into(),
        listen: vec!["127.0.0.1:1".into()],
    };
    for _ in 0..5_000 {
        if let Ok(wire) = proto::Hello::decode(&dice.spoilt(&hello.encode_to_vec())[..]) {
            let _ = Hello::try_from(Some(wire));
        }
        if let Ok(wire) = proto::PairRequest::decode(&dice.spoilt(&pair.encode_to_vec())[..]) {
            let _ = PairRequest::try_from(wire);
        }
        let bytes = dice.spoilt(&[8, 3, 16, 4, 24, 1, 34, 1, 120]);
        if let Ok(wire) = proto::BatchNotifyResponse::decode(&bytes[..]) {
            let _ = Ack::try_from(wire);
        }
        if let Ok(wire) = proto::Beat::decode(&bytes[..]) {
            let _ = Beat::try_from(Some(wire));
        }
        if let Ok(wire) = proto::PairGrant::decode(&bytes[..]) {
            let _ = PairGrant::try_from(wire);
        }
    }
}
