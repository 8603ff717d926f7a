//! How far each log has come, as `status --json` tells it, across kills at random moments.
//!
//! `LOCKSTEP_CRASH_ROUNDS` rounds (6 if not set) from the seed `LOCKSTEP_CRASH_SEED` (1).

use super::crash::from_environment;
use crate::support::dice::Dice;
use crate::support::pair::Pair;
use crate::support::peer::Peer;
use crate::support::repository::noise;
use crate::support::{SOON, SetOnDrop, connected, eventually};
use serde_json::Value;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A daemon dies at most this long after the work began.
const KILL_WITHIN_MS: u64 = 900;
/// Cursors that say what has happened for good. `sent` is not one: each session begins with what
/// the peer has.
const NEVER_BACK: [&str; 6] = [
    "appended",
    "durable",
    "acknowledged",
    "acknowledged_durable",
    "acknowledged_complete",
    "applied",
];

/// What one side says of its log and of its peer's.
#[derive(Clone, Debug, Default)]
struct Told {
    cursors: [u64; 6],
    /// Changes of the peer applied since the daemon started.
    count: u64,
}

impl Told {
    fn by(side: &Peer) -> Told {
        let volume = side.volume();
        assert_eq!(volume["counters"]["state_exchanges"], 0, "the logs reach");
        let cursors = &volume["peers"][0]["cursors"];
        let number = |value: &Value| value.as_u64().unwrap();
        Told {
            cursors: NEVER_BACK.map(|name| number(&cursors[name])),
            count: number(&volume["counters"]["changes_applied"]),
        }
    }

    fn of(&self, name: &str) -> u64 {
        self.cursors[NEVER_BACK.iter().position(|other| *other == name).unwrap()]
    }

    /// The cursors that are behind those of `before`.
    fn behind(&self, before: &Told) -> Vec<String> {
        let pairs = NEVER_BACK.iter().zip(self.cursors.iter().zip(&before.cursors));
        pairs
            .filter(|(_, (now, then))| now < then)
            .map(|(name, (now, then))| format!("{name} {then} -> {now}"))
            .collect()
    }
}

/// Makes, renames, edits and removes files of its own until told to stop or its daemon is gone.
fn work(side: &Peer, round: u64, stop: &AtomicBool) -> std::io::Result<()> {
    let dir = side.at(format!("from-{}-{round}", side.name));
    fs::create_dir(&dir)?;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (lock, name) = (dir.join("lock"), dir.join(format!("{number}")));
        fs::write(&lock, noise(number, 600))?;
        fs::rename(&lock, &name)?;
        match number % 6 {
            1 => fs::write(&name, noise(number, 50_000))?,
            3 => fs::remove_file(&name)?,
            5 => fs::hard_link(&name, dir.join(format!("{number} again")))?,
            _ => {}
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok(())
}

/// Asks both sides until `end`; each cursor only grows.
fn watch(sides: [&Peer; 2], told: &mut [Told; 2], end: Instant) {
    while Instant::now() < end {
        for (side, last) in sides.iter().zip(told.iter_mut()) {
            let now = Told::by(side);
            assert_eq!(now.behind(last), [""; 0], "{}", side.name);
            *last = now;
        }
    }
}

#[test]
fn slow_cursors_survive_kill_9_and_each_change_is_applied_once() {
    let pair = connected!();
    let (rounds, first) =
        (from_environment("LOCKSTEP_CRASH_ROUNDS", 6), from_environment("LOCKSTEP_CRASH_SEED", 1));
    let sides = [&*pair.a, &*pair.b];
    pair.wait();
    let mut told = sides.map(Told::by);
    // The peer's log when each daemon started.
    let mut began = [0, 1].map(|n| told[n].of("applied") - told[n].count);
    for seed in first..first + rounds {
        let mut dice = Dice(seed);
        let victim = dice.below(2) as usize;
        let after = Duration::from_millis(dice.below(KILL_WITHIN_MS));
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let _stop = SetOnDrop(&stop);
            for side in sides {
                threads.spawn(|| drop(work(side, seed, &stop)));
            }
            watch(sides, &mut told, Instant::now() + after);
            sides[victim].kill9();
        });
        sides[victim].start();
        let at_start = Told::by(sides[victim]);
        for name in ["appended", "applied"] {
            let (then, now) = (told[victim].of(name), at_start.of(name));
            assert!(now >= then, "seed {seed}: {name} of {} {then} -> {now}", sides[victim].name);
        }
        eventually("what was durable is so again", SOON, || {
            Told::by(sides[victim]).of("durable") >= told[victim].of("durable")
        });
        pair.reconnected();
        pair.identical();
        settled(&pair, seed, &mut told);
        let of_victim = told[victim].of("applied") - told[victim].count;
        let seen = at_start.of("applied");
        println!("seed {seed}: {} died after {after:?}, at {of_victim}", sides[victim].name);
        assert!(of_victim <= seen, "seed {seed}: some of {of_victim}..{seen} applied again");
        assert!(of_victim >= began[victim], "seed {seed}");
        began[victim] = of_victim;
        let other = 1 - victim;
        let of_other = told[other].of("applied") - told[other].count;
        assert_eq!(of_other, began[other], "seed {seed}: each change is counted once");
    }
}

/// With everything arrived: no cursor is behind what was seen before, and each side has all of the
/// other's log.
fn settled(pair: &Pair, seed: u64, told: &mut [Told; 2]) {
    let sides = [&*pair.a, &*pair.b];
    for (side, last) in sides.iter().zip(told.iter_mut()) {
        let mut now = Told::by(side);
        eventually("acknowledgements are where they were", SOON, || {
            now = Told::by(side);
            now.behind(last).is_empty() && now.of("acknowledged_complete") == now.of("appended")
        });
        *last = now;
    }
    for (one, other) in [(0, 1), (1, 0)] {
        let (applied, appended) = (told[one].of("applied"), told[other].of("appended"));
        assert_eq!(applied, appended, "seed {seed}: all of the log of {}", sides[other].name);
    }
}
