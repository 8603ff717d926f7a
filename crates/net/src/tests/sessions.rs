//! Sessions come, break, and come again.

use super::calls::batch;
use super::fake::*;
use crate::{Lane, Link, Refusal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::StreamExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lost_with_its_daemon_is_noticed_and_resumes_when_the_daemon_is_back() {
    let (a, b, address) = connected(40).await;
    a.net.shutdown().await;
    assert_eq!(a.fake.seen.borrow().down.len(), 1);
    let first = b.fake.link(1).await;
    b.fake.until("the loss", |seen| seen.down.len() == 1).await;
    assert!(!first.is_alive());
    assert!(matches!(first.notify(batch(1)).await, Err(Refusal::Unreachable(_))));

    let again = Peer::new(40);
    again.knows(&b);
    again.net.listen(address).await.unwrap();
    let second = b.fake.link(2).await;
    assert_ne!(first.session(), second.session());
    second.notify(batch(1)).await.unwrap();
    assert_eq!(again.fake.seen.borrow().batches, [1]);
    assert_eq!(b.net.dial_problem(again.id(), VOLUME), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialler_that_starts_first_waits_for_its_peer() {
    let (a, b) = (Peer::new(42), Peer::new(43));
    a.knows(&b);
    b.knows(&a);
    // A port that is free just now.
    let address = TcpListener::bind(LOOPBACK).await.unwrap().local_addr().unwrap();
    b.net.dial(a.id(), VOLUME, vec![address]);
    soon(async {
        while b.net.dial_problem(a.id(), VOLUME).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let problem = b.net.dial_problem(a.id(), VOLUME).unwrap().to_string();
    assert!(problem.contains(&address.to_string()) && problem.contains("lockstep start"));
    a.net.listen(address).await.unwrap();
    b.fake.link(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_addresses_the_one_that_works_is_used() {
    let (a, b) = (Peer::new(44), Peer::new(45));
    a.knows(&b);
    b.knows(&a);
    let dead = TcpListener::bind(LOOPBACK).await.unwrap().local_addr().unwrap();
    let good = a.listen().await;
    b.net.dial(a.id(), VOLUME, vec![dead, good]);
    assert_eq!(b.fake.link(1).await.path(), format!("tcp {good}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_dial_each_other_one_session_remains() {
    let (a, b) = (Peer::new(46), Peer::new(47));
    a.knows(&b);
    b.knows(&a);
    let (at_a, at_b) = (a.listen().await, b.listen().await);
    a.net.dial(b.id(), VOLUME, vec![at_b]);
    b.net.dial(a.id(), VOLUME, vec![at_a]);
    let settled = |a: Option<Arc<Link>>, b: Option<Arc<Link>>| {
        a.zip(b).filter(|(a, b)| a.session() == b.session()).map(|(a, _)| a)
    };
    let link = soon(async {
        loop {
            if let Some(link) = settled(a.net.link(b.id(), VOLUME), b.net.link(a.id(), VOLUME)) {
                return link;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (at_a, at_b) = (a.fake.seen.borrow().beats, b.fake.seen.borrow().beats);
    a.fake.until("more beats", |seen| seen.beats > at_a + 3).await;
    b.fake.until("more beats", |seen| seen.beats > at_b + 3).await;
    assert!(link.is_alive(), "the session did not settle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_takes_the_place_of_the_old_one_in_order() {
    let (a, b, address) = connected(48).await;
    let old = a.fake.link(1).await.session();
    // The same peer in another process: it does not know of the old session.
    let twin = Peer::new(49);
    twin.knows(&a);
    b.net.undial(a.id(), VOLUME);
    twin.net.dial(a.id(), VOLUME, vec![address]);
    let new = a.fake.link(2).await.session();
    let order = a.fake.seen.borrow().order.clone();
    assert_eq!(order, [("up", old), ("down", old), ("up", new)]);
    b.fake.until("the end of the old one", |seen| seen.down.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_revoked_loses_its_session_and_is_told_why() {
    let (a, b, _) = connected(50).await;
    a.fake.members.lock().unwrap().clear();
    a.fake.until("the end", |seen| seen.down.len() == 1).await;
    b.fake.until("the end", |seen| seen.down.len() == 1).await;
    soon(async {
        while b
            .net
            .dial_problem(a.id(), VOLUME)
            .is_none_or(|p| !matches!(p, Refusal::Unauthorized(_)))
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let problem = b.net.dial_problem(a.id(), VOLUME).unwrap().to_string();
    assert!(problem.contains("not a member") && problem.contains("lockstep invite"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn undial_ends_the_session_for_good() {
    let (a, b, _) = connected(52).await;
    b.net.undial(a.id(), VOLUME);
    a.fake.until("the end", |seen| seen.down.len() == 1).await;
    b.fake.until("the end", |seen| seen.down.len() == 1).await;
    assert!(b.net.link(a.id(), VOLUME).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_what_to_do() {
    let a = Peer::new(54);
    let address = a.listen().await;
    assert_eq!(a.net.listen(address).await.unwrap(), address);
    let error = Peer::new(55).net.listen(address).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
}

/// Forwards connections until told to swallow every byte: a cable pulled out.
async fn cable(to: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            tokio::spawn(forward(near_in, far_out, is_cut.clone()));
            tokio::spawn(forward(far_in, near_out, is_cut.clone()));
        }
    });
    (address, cut)
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    is_cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(1..) = from.read(&mut buffer).await.inspect(|n| buffer.truncate(*n)) {
        if *is_cut.borrow() {
            // Holding both ends open, and silent.
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.resize(64 * 1024, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_is_noticed_by_both_sides_within_seconds_and_reads_fail() {
    let (a, b) = (Peer::new(56), Peer::new(57));
    a.knows(&b);
    b.knows(&a);
    let (address, cut) = cable(a.listen().await).await;
    b.net.dial(a.id(), VOLUME, vec![address]);
    let link = b.fake.link(1).await;
    a.fake.link(1).await;
    let mut stream = link.read(Lane::Bulk, NODE, content(1 << 40), 0, 1 << 40).await.unwrap();
    stream.next().await.unwrap().unwrap();
    cut.send_replace(true);
    let start = Instant::now();
    a.fake.until("the loss", |seen| seen.down.len() == 1).await;
    b.fake.until("the loss", |seen| seen.down.len() == 1).await;
    // Two seconds, and room for a loaded machine.
    assert!(start.elapsed() < Duration::from_secs(6), "took {:?}", start.elapsed());
    let end = soon(async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                other => return other,
            }
        }
    })
    .await;
    assert!(matches!(end, Some(Err(Refusal::Unreachable(_)))), "{end:?}");
    cut.send_replace(false);
    b.fake.link(2).await;
}
