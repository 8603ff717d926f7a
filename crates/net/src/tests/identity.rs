//! The key file.

use super::fake::Scratch;
use crate::{Identity, IdentityError};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_key_is_drawn_once_and_kept_private() {
    let scratch = Scratch::new();
    let path = scratch.0.join("state/key");
    let first = Identity::load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Identity::load_or_create(&path).unwrap().peer_id(), first.peer_id());
    let other = Identity::load_or_create(&scratch.0.join("other")).unwrap();
    assert_ne!(other.peer_id(), first.peer_id());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a draft was left");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.0.join("key");
    Identity::load_or_create(&path).unwrap();
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, IdentityError::Exposed { .. }) && error.to_string().contains("chmod")
        );
    }
}

#[test]
fn a_damaged_key_is_never_replaced() {
    let scratch = Scratch::new();
    let path = scratch.0.join("key");
    for damaged in ["", "lockstep-key-1 abc", "lockstep-key-1 zz\n"] {
        fs::write(&path, damaged).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
}

#[test]
fn the_public_key_is_the_one_of_rfc_8032() {
    // RFC 8032 section 7.1, test 1.
    let seed = data_encoding::HEXLOWER
        .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
        .unwrap();
    let identity = Identity::from_seed(&seed.try_into().unwrap());
    assert_eq!(
        identity.peer_id().to_string(),
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
}
