//! The power of one machine is cut while both sides work: its disk keeps what had been synced, and of
//! the rest what it had happened to write.
//!
//! `LOCKSTEP_CUT_ROUNDS` rounds (4 if not set) from the seed `LOCKSTEP_CUT_SEED` (1).

use super::crash::from_environment;
use crate::support::dice::Dice;
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use crate::support::power::PowerSupply;
use crate::support::repository::noise;
use crate::support::tree::files_here;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The power goes at most this long after the work began.
const CUT_WITHIN_MS: u64 = 1_500;

/// Bytes by path in the volume.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What the work of both sides came to.
#[derive(Default)]
struct Done {
    /// What was synced.
    synced: Mutex<Files>,
    /// What was begun, under names that nobody renames or removes.
    begun: Mutex<Files>,
}

fn write(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    if sync { file.sync_all() } else { Ok(()) }
}

/// Makes files in a directory of its own, syncs some, renames others over each other, until told to
/// stop or until the disk is gone.
fn work(side: &Peer, seed: u64, done: &Done, stop: &AtomicBool) -> io::Result<()> {
    let dir = PathBuf::from(format!("{}-{seed}", side.name));
    fs::create_dir(side.at(&dir))?;
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let at = |name: &str| dir.join(format!("{name}{number}"));
        let len = if number % 40 == 39 { 3 << 20 } else { 400 + number as usize % 5000 };
        let bytes = noise(seed << 32 | number, len);
        let begun = |name| drop(done.begun.lock().unwrap().insert(at(name), bytes.clone()));
        let synced = |name| drop(done.synced.lock().unwrap().insert(at(name), bytes.clone()));
        match number % 4 {
            0 => {
                begun("synced-");
                write(&side.at(at("synced-")), &bytes, true)?;
                synced("synced-");
            }
            1 => {
                begun("plain-");
                write(&side.at(at("plain-")), &bytes, false)?;
            }
            2 => {
                begun("moved-");
                write(&side.at(at("new-")), &bytes, true)?;
                fs::rename(side.at(at("new-")), side.at(at("moved-")))?;
                File::open(side.at(&dir))?.sync_all()?;
                synced("moved-");
            }
            _ => {
                let lock = dir.join("lock");
                write(&side.at(&lock), &bytes, number % 8 == 3)?;
                fs::rename(side.at(&lock), side.at(dir.join(format!("name-{}", number % 20))))?;
            }
        }
    }
    Ok(())
}

/// Runs the work of both sides until the power of `victim` goes; then its machine comes up again.
fn cut_during(
    [victim, survivor]: [&Peer; 2],
    supply: &PowerSupply,
    after: Duration,
    seed: u64,
    done: &Done,
) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let dies = threads.spawn(|| work(victim, seed, done, &stop));
        let goes_on = threads.spawn(|| work(survivor, seed, done, &stop));
        std::thread::park_timeout(after);
        supply.cut();
        stop.store(true, Ordering::Relaxed);
        goes_on.join().unwrap().unwrap();
        // It failed where the cut found it, or had just finished a file.
        let _ = dies.join().unwrap();
    });
    supply.restore();
}

/// What `survivor` has, under names that last: nothing of it may be lost.
fn lasting(survivor: &Peer) -> Files {
    let lasts = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["synced-", "plain-", "moved-"].iter().any(|kind| name.starts_with(kind))
    };
    files_here(survivor.mnt()).into_iter().filter(|(path, _)| lasts(path)).collect()
}

fn round(pair: &Pair, supplies: &[PowerSupply; 2], seed: u64) {
    let mut dice = Dice(seed);
    let which = dice.below(2) as usize;
    let (victim, survivor) = ([&pair.a, &pair.b][which], [&pair.b, &pair.a][which]);
    let after = Duration::from_millis(dice.below(CUT_WITHIN_MS));
    println!("seed {seed}: the power of {} goes after {after:?}", victim.name);
    let done = Done::default();
    cut_during([victim, survivor], &supplies[which], after, seed, &done);
    let had = lasting(survivor);
    victim.start();
    pair.reconnected();
    pair.identical();
    let (synced, begun) = (done.synced.into_inner().unwrap(), done.begun.into_inner().unwrap());
    for side in [&pair.a, &pair.b] {
        let there = |name: &PathBuf| {
            let bytes = fs::read(side.at(name));
            let len = bytes.as_ref().map(Vec::len).map_err(io::Error::kind);
            (bytes.ok(), format!("{} on {}: {len:?}", name.display(), side.name))
        };
        for (name, bytes) in &synced {
            let (now, what) = there(name);
            assert!(
                now.as_ref() == Some(bytes),
                "seed {seed}: {what}, where {} were synced",
                bytes.len()
            );
        }
        for (name, bytes) in &had {
            let (now, what) = there(name);
            // What was only begun when the other side saw it may have been finished since.
            let goes_on = begun.get(name).is_some_and(|whole| whole.starts_with(bytes));
            let finished = goes_on && now.as_ref() == begun.get(name);
            let (same, had) = (now.as_ref() == Some(bytes), bytes.len());
            assert!(same || finished, "seed {seed}: {what}, where the peer had {had}");
        }
        let verified = side.run(&["verify", "--json"]);
        assert_eq!(verified.code, Some(0), "seed {seed}: {verified:#?}");
    }
    println!("{} files synced, {} on the other side", synced.len(), had.len());
}

#[test]
fn slow_a_power_cut_at_a_random_moment_loses_nothing_that_was_synced_or_that_the_peer_has() {
    let rounds = from_environment("LOCKSTEP_CUT_ROUNDS", 4);
    let first = from_environment("LOCKSTEP_CUT_SEED", 1);
    let Some(pair) = Pair::apart(Layout::default()) else { return };
    let images = pair.outside("images");
    let Some(a) = PowerSupply::of(&pair.a, &images) else { return };
    let Some(b) = PowerSupply::of(&pair.b, &images) else { return };
    pair.b.join(pair.a.share()["invite"].as_str().unwrap());
    pair.reconnected();
    let supplies = [a, b];
    for seed in first..first + rounds {
        round(&pair, &supplies, seed);
    }
    println!("{rounds} rounds from seed {first}");
}
