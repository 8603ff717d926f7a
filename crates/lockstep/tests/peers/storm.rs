//! Both sides make, write, rename, link and remove the same few names without pause. Whatever came
//! of it, both end with the same, and no file is without its bytes.
//!
//! `LOCKSTEP_STORMS` storms (1 if not set) from the seed `LOCKSTEP_STORM_SEED` (1). The seed decides
//! what each worker does, not who comes first.

use super::crash::from_environment;
use crate::support::dice::Dice;
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::tree::{walk, walk_names};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Small enough to travel inside a change, and not.
const SIZES: [usize; 4] = [30, 3_000, 60_000, 120_000];
const ROUNDS: usize = 24;
const LASTS: Duration = Duration::from_secs(4);
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// One program that works in a mount for as long as the storm lasts.
struct Worker<'p> {
    at: &'p Path,
    name: String,
    dice: Dice,
    /// Files it has not closed yet.
    open: Vec<File>,
    /// Of a hundred written files, how many it leaves open.
    held: u64,
    calls: u64,
}

impl Worker<'_> {
    fn work(mut self) -> u64 {
        let ends = Instant::now() + LASTS;
        while Instant::now() < ends {
            self.calls += 1;
            // Much fails: what it is about is gone, or in the way.
            let _ = self.call();
        }
        self.calls
    }

    fn place(&mut self) -> PathBuf {
        let mut path = self.at.to_owned();
        for _ in 0..1 + self.dice.below(3) {
            path.push(NAMES[self.dice.below(4) as usize]);
        }
        path
    }

    fn call(&mut self) -> std::io::Result<()> {
        let (path, other) = (self.place(), self.place());
        match self.dice.below(14) {
            0..=3 => self.write(&path),
            4..=6 => fs::rename(path, other),
            7..=8 => fs::remove_file(path),
            9 => fs::hard_link(path, other),
            10..=11 => fs::create_dir(path),
            12 => fs::remove_dir(path),
            _ => {
                let some = self.dice.below(self.open.len() as u64 + 1) as usize;
                self.open.truncate(some);
                Ok(())
            }
        }
    }

    fn write(&mut self, path: &Path) -> std::io::Result<()> {
        let truncates = self.dice.below(3) > 0;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(truncates).open(path)?;
        let line = format!("{} call {}\n", self.name, self.calls);
        let size = SIZES[self.dice.below(4) as usize];
        file.write_all(line.repeat(size / line.len() + 1).as_bytes())?;
        if self.dice.below(100) < self.held && self.open.len() < 8 {
            self.open.push(file);
        }
        Ok(())
    }
}

/// What nobody has never comes: that is to be seen before long.
fn wait_briefly(pair: &Pair) {
    for peer in [&pair.a, &pair.b] {
        peer.run(&["wait", "--timeout", "15"]).success();
    }
}

fn storm(seed: u64, connect: fn() -> Option<Pair>) -> bool {
    let Some(pair) = connect() else { return false };
    let mut dice = Dice(seed);
    let (workers, held) = (1 + dice.below(2), dice.below(3) * 20);
    let worker = |peer: &'_ Peer, number: u64, dice: &mut Dice| -> (String, Dice) {
        (format!("{}{number}", peer.name), Dice(dice.below(u64::MAX)))
    };
    let calls: u64 = std::thread::scope(|threads| {
        let mut working = Vec::new();
        for peer in [&pair.a, &pair.b] {
            for number in 0..workers {
                let (name, dice) = worker(peer, number, &mut dice);
                let at = peer.mnt();
                let worker = Worker { at, name, dice, open: Vec::new(), held, calls: 0 };
                working.push(threads.spawn(move || worker.work()));
            }
        }
        working.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!("seed {seed}: {workers} a side, {held} % held open, {calls} calls");
    wait_briefly(&pair);
    // What one settles of the conflicts the other settles further, a few times to and fro.
    let is_clean = |peer: &Peer| peer.run(&["verify"]).code == Some(0);
    let deadline = Instant::now() + SETTLED_WITHIN;
    while !(is_clean(&pair.a) && is_clean(&pair.b)) && Instant::now() < deadline {}
    for peer in [&pair.a, &pair.b] {
        peer.run(&["verify"]).success();
    }
    pair.identical();
    for peer in [&pair.a, &pair.b] {
        shows_what_is_below(peer);
    }
    true
}

/// No listing and no name that the kernel keeps is older than the disk: `verify` does not look there.
fn shows_what_is_below(peer: &Peer) {
    let (shown, mut below) = (walk(peer.mnt()), walk_names(&peer.backing));
    below.retain(|path| !path.starts_with(".lockstep"));
    assert_eq!(shown.into_keys().collect::<Vec<_>>(), below, "shown and below {}", peer.name);
}

fn storms(connect: fn() -> Option<Pair>) {
    let first = from_environment("LOCKSTEP_STORM_SEED", 1);
    let storms = from_environment("LOCKSTEP_STORMS", 1);
    let mut failed = Vec::new();
    for seed in first..first + storms {
        match std::panic::catch_unwind(|| storm(seed, connect)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "storms that did not end well: {failed:?}");
}

#[test]
fn slow_a_storm_on_both_sides_ends_equal_and_no_file_is_without_its_bytes() {
    storms(|| Pair::connected(Layout::default()));
}

#[test]
fn slow_a_storm_with_an_on_demand_side_ends_equal_and_no_file_is_without_its_bytes() {
    storms(Pair::on_demand);
}

/// `b` has never read what it gives further names to, while `a`, the only one with the bytes,
/// takes the first name away.
#[test]
fn a_name_that_an_on_demand_side_gives_while_the_file_is_removed_leads_to_its_bytes() {
    let Some(pair) = Pair::on_demand() else { return };
    let bytes = |round: usize| noise(round as u64, 200_000);
    for round in 0..ROUNDS {
        fs::write(pair.a.at(format!("f{round}")), bytes(round)).unwrap();
    }
    pair.wait();
    for round in 0..ROUNDS {
        let (first, second) = (format!("f{round}"), format!("g{round}"));
        // The peer has said that it has everything: it lacks only what it never read.
        wait_briefly(&pair);
        let together = std::sync::Barrier::new(2);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                together.wait();
                let (from, to) = (pair.b.at(&first), pair.b.at(&second));
                // The other side may have been quicker.
                let _ = if round % 2 == 0 { fs::hard_link(from, to) } else { fs::rename(from, to) };
            });
            together.wait();
            match round % 4 {
                0 | 1 => drop(fs::remove_file(pair.a.at(&first))),
                // What is written is not what stands there, and gone before anybody hears of it.
                _ => {
                    let _ = OpenOptions::new().write(true).open(pair.a.at(&first)).map(|mut f| {
                        f.write_all(&bytes(round + 1))
                            .and_then(|()| fs::remove_file(pair.a.at(&first)))
                    });
                }
            }
        });
    }
    wait_briefly(&pair);
    let mut survived = 0;
    for round in 0..ROUNDS {
        let second = format!("g{round}");
        if !pair.b.at(&second).exists() {
            continue;
        }
        survived += 1;
        let read = fs::read(pair.b.at(&second)).expect("the bytes are somewhere");
        assert!(read == bytes(round) || read == bytes(round + 1), "{second}: others' bytes");
    }
    println!("{survived} of {ROUNDS} names survived");
    assert!(survived > 0, "no name was given in time: nothing was tested");
    pair.identical();
}
