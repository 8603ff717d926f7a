//! Invites across the network.

use super::fake::*;
use crate::{Invite, InviteBook, InviteRefusal, Refusal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn inviting(seed: u8, scratch: &Scratch) -> (Peer, Invite) {
    let book = InviteBook::open(&scratch.0.join("invites")).unwrap();
    let secret = book.issue(VOLUME, 0, Duration::from_secs(100)).unwrap();
    let inviter = Peer::with(seed, Fake { host: "inviter", book: Some(book), ..Fake::default() });
    let addrs = vec![inviter.listen().await];
    let (peer, volume_name) = (inviter.id(), "work".into());
    let invite =
        Invite { volume: VOLUME, volume_name, peer, addrs, secret, expires_unix_secs: 100 };
    (inviter, invite.to_string().parse().unwrap())
}

fn sentence(refused: crate::Result<crate::PairGrant>) -> String {
    match refused {
        Err(Refusal::Unauthorized(text)) => text,
        other => panic!("expected a refusal: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_lets_one_peer_in_and_then_no_other() {
    let scratch = Scratch::new();
    let (inviter, invite) = inviting(70, &scratch).await;
    let (first, second) = (Peer::new(71), Peer::new(72));
    let listen = vec!["127.0.0.1:9".parse().unwrap()];
    let grant = first.net.pair(&invite, "laptop".into(), listen.clone()).await.unwrap();
    assert_eq!((grant.your_slot.0, grant.my_slot.0), (2, 1));
    assert_eq!((grant.volume_name.as_str(), grant.host.as_str()), ("work", "inviter"));
    let paired = inviter.fake.seen.borrow().paired.clone();
    assert_eq!((paired[0].host.as_str(), &paired[0].listen), ("laptop", &listen));

    let text = sentence(second.net.pair(&invite, "other".into(), vec![]).await);
    assert!(text.contains("used already") && text.contains("lockstep invite"), "{text}");
    logged(&["WARN", "pairing was refused", "used already"]).await;

    first.knows(&inviter);
    first.net.dial(inviter.id(), VOLUME, invite.addrs);
    first.fake.link(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_unknown_invites_are_told_apart() {
    let scratch = Scratch::new();
    let (inviter, invite) = inviting(73, &scratch).await;
    let joiner = Peer::new(74);
    let forged = Invite { secret: [1; 16], ..invite.clone() };
    let text = sentence(joiner.net.pair(&forged, "x".into(), vec![]).await);
    assert!(text.contains("not known"), "{text}");
    inviter.fake.now.store(100, Ordering::SeqCst);
    let text = sentence(joiner.net.pair(&invite, "x".into(), vec![]).await);
    assert!(text.contains("expired"), "{text}");
    logged(&["WARN", "pairing was refused", "expired"]).await;
    logged(&["WARN", "pairing was refused", "not known"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_answered_by_another_key_is_refused_by_the_joiner() {
    let scratch = Scratch::new();
    let (_inviter, invite) = inviting(75, &scratch).await;
    let expected = Invite { peer: identity(99).peer_id(), ..invite };
    let text = sentence(Peer::new(76).net.pair(&expected, "x".into(), vec![]).await);
    assert!(text.contains("another key"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_nobody_answers_says_where_it_tried() {
    let scratch = Scratch::new();
    let (inviter, invite) = inviting(77, &scratch).await;
    inviter.net.shutdown().await;
    let refused = Peer::new(78).net.pair(&invite, "x".into(), vec![]).await;
    let Err(Refusal::Unreachable(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains(&invite.addrs[0].to_string()), "{text}");
}

#[test]
fn of_many_that_redeem_an_invite_at_once_one_gets_in() {
    let scratch = Scratch::new();
    let book = Arc::new(InviteBook::open(&scratch.0.join("invites")).unwrap());
    let secret = book.issue(VOLUME, 0, Duration::from_secs(100)).unwrap();
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let book = book.clone();
            std::thread::spawn(move || book.redeem(VOLUME, &secret, 1))
        })
        .collect();
    let verdicts: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    assert_eq!(verdicts.iter().filter(|v| v.is_ok()).count(), 1);
    assert_eq!(verdicts.iter().filter(|v| **v == Err(InviteRefusal::Used)).count(), 7);
}

#[test]
fn the_book_remembers_across_restarts_and_keeps_no_secret() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let path = scratch.0.join("invites");
    let book = InviteBook::open(&path).unwrap();
    let used = book.issue(VOLUME, 0, Duration::from_secs(100)).unwrap();
    let open = book.issue(VOLUME, 0, Duration::from_secs(100)).unwrap();
    book.redeem(VOLUME, &used, 1).unwrap();
    drop(book);
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(16).any(|window| window == open || window == used));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let book = InviteBook::open(&path).unwrap();
    assert_eq!(book.redeem(VOLUME, &used, 1), Err(InviteRefusal::Used));
    assert_eq!(book.redeem(VOLUME, &open, 100), Err(InviteRefusal::Expired));
    assert_eq!(
        book.redeem(lockstep_core::VolumeId([1; 16]), &open, 1),
        Err(InviteRefusal::Unknown)
    );
    assert_eq!(book.redeem(VOLUME, &open, 99), Ok(()));
}

#[test]
fn a_damaged_or_exposed_book_is_refused_with_the_next_step() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let path = scratch.0.join("invites");
    InviteBook::open(&path).unwrap().issue(VOLUME, 0, Duration::from_secs(1)).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(InviteBook::open(&path).unwrap_err().to_string().contains("damaged"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(InviteBook::open(&path).unwrap_err().to_string().contains("chmod 600"));
}
