//! Two volumes over real directories, driven by a seed: random calls on both, their changes and
//! contents carried between them at random moments. In the end both show the same, and below each
//! stands what it shows.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod side;

use calls::Calls;
use side::{Side, exchange};

/// Small, seeded, and good enough to pick what happens next (splitmix64).
pub struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Which calls a run makes.
#[derive(Clone, Copy, PartialEq)]
enum Mix {
    /// Files of one directory.
    Files,
    /// Everything, in directories three deep.
    Trees,
}

fn run(seed: u64, mix: Mix) {
    let mut rng = Rng(seed);
    let mut sides = [Side::new(1), Side::new(2)];
    let mut calls = Calls::new(mix == Mix::Trees);
    let steps = 100 + rng.below(400);
    for step in 0..steps {
        let who = rng.below(2);
        for _ in 0..rng.below(4) {
            calls.make_one(&sides[who], who, &mut rng, step);
        }
        if rng.chance(40) {
            sides[who].announce();
        }
        if rng.chance(50) {
            let (from, to) = exchange(&mut sides, who);
            to.receive(from, 1 + rng.below(8));
        }
        if rng.chance(30) {
            let (from, to) = exchange(&mut sides, who);
            to.fetch_one(from);
        }
    }
    calls.close_all(&sides);
    side::settle(&mut sides);
    let [one, two] = &sides;
    let differs = side::difference(one, two);
    assert!(differs.is_empty(), "the sides differ:\n{}", differs.join("\n"));
    one.stands_below();
    two.stands_below();
}

/// Runs `seeds`, naming the one that fails.
fn run_all(seeds: std::ops::Range<u64>, mix: Mix) {
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed, mix));
        if let Err(panic) = outcome {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}

/// How many seeds each test runs; `LOCKSTEP_PAIR_SEEDS=FROM..TO` chooses others.
fn seeds() -> std::ops::Range<u64> {
    let chosen = std::env::var("LOCKSTEP_PAIR_SEEDS").ok();
    let chosen = chosen.as_deref().and_then(|range| range.split_once(".."));
    chosen.map_or(0..20, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

#[test]
fn files_of_one_directory_rewritten_renamed_and_removed_on_both_sides_end_equal() {
    run_all(seeds(), Mix::Files);
}

#[test]
fn trees_changed_on_both_sides_end_equal() {
    run_all(seeds(), Mix::Trees);
}
