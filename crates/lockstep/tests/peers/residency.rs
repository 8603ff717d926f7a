//! Which bytes are on this machine: on-demand volumes, pins, evictions.

use crate::support::pair::Pair;
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::{SOON, connected, eventually};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const MIB: usize = 1 << 20;

/// Whether the bytes of `name` are below `side`'s mount: a placeholder stores none.
fn is_here(side: &Peer, name: &str) -> bool {
    let below = side.backing.join(name).metadata().unwrap();
    below.mode() & 0o7777 != 0 && below.blocks() > 0
}

fn run(side: &Peer, command: &str, name: impl AsRef<Path>) -> crate::support::command::Outcome {
    let path = side.at(name);
    side.run(&[command, path.to_str().unwrap(), "--json"])
}

#[test]
fn on_demand_contents_come_when_they_are_read_and_wait_does_not_wait_for_them() {
    let Some(pair) = Pair::on_demand() else { return };
    assert_eq!(pair.b.volume()["policy"], "on-demand");
    assert_eq!(pair.a.volume()["policy"], "eager");
    for name in ["read", "unread"] {
        fs::write(pair.a.at(name), noise(1, 2 * MIB)).unwrap();
    }
    fs::write(pair.a.at("small"), "travels with its change").unwrap();
    pair.wait();
    assert!(!is_here(&pair.b, "read") && !is_here(&pair.b, "unread") && is_here(&pair.b, "small"));
    assert_eq!(pair.b.at("unread").metadata().unwrap().len(), 2 * MIB as u64);
    assert!(fs::read(pair.b.at("read")).unwrap() == noise(1, 2 * MIB));
    pair.wait();
    assert!(is_here(&pair.b, "read") && !is_here(&pair.b, "unread"));

    // What is here follows its newer versions, in place and by rename.
    fs::write(pair.a.at("read"), noise(2, 2 * MIB)).unwrap();
    pair.wait();
    assert!(fs::read(pair.b.backing.join("read")).unwrap() == noise(2, 2 * MIB));
    fs::write(pair.a.at("new"), noise(3, 2 * MIB)).unwrap();
    fs::rename(pair.a.at("new"), pair.a.at("read")).unwrap();
    pair.wait();
    assert!(fs::read(pair.b.backing.join("read")).unwrap() == noise(3, 2 * MIB));

    // What is not here on purpose is no damage.
    assert_eq!(pair.b.run(&["verify", "--json"]).success().json()["clean"], true);
    pair.b.stop();
    pair.b.start();
    pair.reconnected();
    pair.wait();
    assert_eq!(pair.b.volume()["policy"], "on-demand");
    assert!(!is_here(&pair.b, "unread"));
    pair.identical();
}

#[test]
fn what_is_pinned_comes_by_itself_and_stays() {
    let Some(pair) = Pair::on_demand() else { return };
    fs::create_dir_all(pair.a.at("dir/deep")).unwrap();
    for (number, name) in ["dir/deep/one", "two"].into_iter().enumerate() {
        fs::write(pair.a.at(name), noise(number as u64, MIB)).unwrap();
    }
    pair.wait();
    let pinned = run(&pair.b, "pin", "dir").success().json();
    assert_eq!((&pinned["files"], &pinned["absent"]), (&1.into(), &1.into()));
    assert_eq!(pair.b.volume()["pins"], 1);
    pair.wait();
    assert!(is_here(&pair.b, "dir/deep/one") && !is_here(&pair.b, "two"));
    fs::write(pair.a.at("dir/deep/later"), noise(4, MIB)).unwrap();
    pair.wait();
    assert!(is_here(&pair.b, "dir/deep/later"));
    run(&pair.b, "evict", "dir/deep/one").fails_with(1, &["pinned"]);

    pair.b.stop();
    pair.b.start();
    pair.reconnected();
    run(&pair.b, "evict", "dir/deep/one").fails_with(1, &["pinned"]);
    assert_eq!(run(&pair.b, "unpin", "dir").success().json()["was_pinned"], true);
    let evicted = run(&pair.b, "evict", "dir").success().json();
    assert_eq!((&evicted["evicted"], &evicted["kept"]), (&2.into(), &0.into()));
    assert!(!is_here(&pair.b, "dir/deep/one"));
    pair.identical();
}

#[test]
fn what_is_evicted_comes_back_when_it_is_read_and_not_before() {
    let pair = connected!();
    let body = noise(5, 3 * MIB);
    fs::write(pair.a.at("f"), &body).unwrap();
    fs::hard_link(pair.a.at("f"), pair.a.at("g")).unwrap();
    pair.identical();
    let evicted = run(&pair.b, "evict", "f").success().json();
    assert_eq!((&evicted["evicted"], &evicted["bytes"]), (&1.into(), &body.len().into()));
    assert!(!is_here(&pair.b, "f") && !is_here(&pair.b, "g"));
    pair.b.kill9();
    pair.b.start();
    pair.reconnected();
    pair.wait();
    assert!(!is_here(&pair.b, "f"));
    run(&pair.a, "evict", "f").fails_with(1, &["no connected peer"]);
    assert!(fs::read(pair.b.at("g")).unwrap() == body);
    pair.wait();
    assert!(is_here(&pair.b, "f") && is_here(&pair.b, "g"));
    pair.identical();
    // Now a may: b has it. And it is b that gives it back.
    run(&pair.a, "evict", "f").success();
    assert!(!is_here(&pair.a, "f"));
    assert!(fs::read(pair.a.at("f")).unwrap() == body);
    pair.identical();
}

#[test]
fn bytes_that_nobody_else_has_for_good_are_not_evicted() {
    let pair = connected!();
    fs::write(pair.a.at("f"), noise(6, MIB)).unwrap();
    pair.wait();
    let open = fs::File::open(pair.b.at("f")).unwrap();
    run(&pair.b, "evict", "f").fails_with(1, &["open"]);
    drop(open);
    run(&pair.b, "evict", "nothing").fails_with(1, &["does not exist"]);
    pair.b.run(&["evict", "/nowhere", "--json"]).fails_with(1, &["in no volume"]);
    pair.a.stop();
    eventually("b notices", SOON, || !pair.b.is_connected());
    run(&pair.b, "evict", "f").fails_with(1, &["no connected peer"]);
    fs::write(pair.b.at("f"), noise(7, MIB)).unwrap();
    run(&pair.b, "evict", "f").fails_with(1, &[]);
    pair.a.start();
    pair.reconnected();
    pair.identical();
    run(&pair.b, "evict", "f").success();
    assert!(fs::read(pair.b.at("f")).unwrap() == noise(7, MIB));
}

#[test]
fn two_peers_that_evict_at_the_same_moment_never_lose_the_bytes() {
    let pair = connected!();
    let body = noise(8, 200_000);
    for round in 0..15 {
        let name = format!("f{round}");
        fs::write(pair.a.at(&name), &body).unwrap();
        pair.wait();
        let both = std::thread::scope(|threads| {
            let sides = [&pair.a, &pair.b].map(|side| {
                let path = side.at(&name);
                threads.spawn(move || side.run(&["evict", path.to_str().unwrap()]).code)
            });
            sides.map(|side| side.join().unwrap())
        });
        assert_ne!(both, [Some(0), Some(0)], "both gave {name} up");
        assert!(fs::read(pair.a.at(&name)).unwrap() == body);
        assert!(fs::read(pair.b.at(&name)).unwrap() == body);
    }
}

/// More files than one question asks about.
const MANY: usize = 1_100;

fn make_many(pair: &Pair, bytes: &[u8]) {
    fs::create_dir(pair.a.at("d")).unwrap();
    for number in 0..MANY {
        fs::write(pair.a.at(format!("d/f{number}")), [&number.to_ne_bytes(), bytes].concat())
            .unwrap();
    }
    pair.wait();
}

fn assert_many(side: &Peer, bytes: &[u8]) {
    for number in 0..MANY {
        let read = fs::read(side.at(format!("d/f{number}"))).unwrap();
        assert!(read == [&number.to_ne_bytes(), bytes].concat(), "f{number} on {}", side.name);
    }
}

#[test]
fn of_a_directory_only_the_files_that_the_peer_has_are_evicted() {
    let Some(pair) = Pair::on_demand() else { return };
    let bytes = noise(9, 40_000);
    make_many(&pair, &bytes);
    let is_read = |number: usize| number.is_multiple_of(3);
    (0..MANY)
        .filter(|number| is_read(*number))
        .for_each(|number| drop(fs::read(pair.b.at(format!("d/f{number}"))).unwrap()));
    pair.wait();
    let evicted = run(&pair.a, "evict", "d").success().json();
    let read = (0..MANY).filter(|number| is_read(*number)).count();
    assert_eq!(evicted["evicted"], read, "{evicted:#}");
    assert_eq!(evicted["kept"], MANY - read);
    assert!(evicted["reasons"][0]["reason"].as_str().unwrap().contains("no connected peer"));
    for number in 0..MANY {
        assert_ne!(is_here(&pair.a, &format!("d/f{number}")), is_read(number), "f{number}");
    }
    assert_many(&pair.a, &bytes);
    assert_many(&pair.b, &bytes);
    pair.identical();
}

#[test]
fn two_peers_that_evict_a_directory_at_the_same_moment_never_lose_a_file() {
    let pair = connected!();
    let bytes = noise(10, 3_000);
    make_many(&pair, &bytes);
    for round in 0..3 {
        let together = std::sync::Barrier::new(4);
        // Two commands on each side: the end of one must not speak for the other.
        let evict = |side: &Peer| {
            together.wait();
            for _ in 0..=round {
                run(side, "evict", "d");
            }
        };
        std::thread::scope(|threads| {
            for side in [&pair.a, &pair.b, &pair.a, &pair.b] {
                threads.spawn(|| evict(side));
            }
        });
        let evicted = |side: &Peer| {
            (0..MANY).filter(|number| !is_here(side, &format!("d/f{number}"))).count()
        };
        println!("round {round}: a gave up {}, b {}", evicted(&pair.a), evicted(&pair.b));
        assert_many(&pair.a, &bytes);
        assert_many(&pair.b, &bytes);
        pair.wait();
    }
}

/// `b` has never read it; on `a` it goes from below while nobody looks, and `b` names it anew.
#[test]
fn a_file_whose_bytes_nobody_has_is_named_and_its_removal_ends_it() {
    let Some(pair) = Pair::on_demand() else { return };
    let began =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    fs::write(pair.a.at("f"), noise(1, MIB)).unwrap();
    pair.wait();
    pair.a.stop();
    fs::hard_link(pair.b.at("f"), pair.b.at("g")).unwrap();
    fs::remove_file(pair.a.backing.join("f")).unwrap();
    pair.a.start();
    pair.reconnected();
    eventually("a names the file", SOON, || {
        pair.a.volume()["without_content"] == serde_json::json!(["g"])
    });
    let since = pair.a.volume()["without_content_since"][0].as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((began..=now).contains(&since), "{since} is not from {began} to {now}");
    let told = pair.a.run(&["status"]);
    assert!(told.stdout.contains("without content since 20") && told.stdout.contains(": g\n"));
    let waited = pair.a.run(&["wait", "--timeout", "1"]);
    assert!(waited.code == Some(1) && waited.stderr.contains("\"g\" for one"), "{waited:?}");
    fs::remove_file(pair.b.at("g")).unwrap();
    pair.wait();
    assert_eq!(pair.a.volume()["without_content"], serde_json::json!([]));
    pair.identical();
}
