//! Daemons killed at random moments while something goes on: a clone, a large fetch, a storm of renames.
//!
//! `LOCKSTEP_CRASH_ROUNDS` rounds (4 if not set) from the seed `LOCKSTEP_CRASH_SEED` (1); a round that
//! fails says its seed. `scripts/crash` runs many.

use crate::support::dice::Dice;
use crate::support::git::Git;
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use crate::support::repository::{SMALL, noise};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Rounds that one pair of daemons lives through.
const ROUNDS_PER_PAIR: u64 = 4;
/// The daemon dies at most this long after the work began.
const KILL_WITHIN_MS: u64 = 700;

/// What was synced, by path in the volume.
type Synced = Mutex<BTreeMap<PathBuf, Vec<u8>>>;

pub fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Writes a file and syncs it; from then on it may never be lost.
fn write_synced(at: &Path, name: &str, bytes: &[u8], synced: &Synced) -> std::io::Result<()> {
    let mut file = File::create(at.join(name))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    synced.lock().unwrap().insert(name.into(), bytes.to_vec());
    Ok(())
}

/// Large files, which the other side fetches.
fn large_files(at: &Path, round: u64, synced: &Synced) -> std::io::Result<()> {
    for number in 0..4 {
        let bytes = noise(round * 10 + number, 6 << 20);
        write_synced(at, &format!("large-{round}-{number}"), &bytes, synced)?;
    }
    Ok(())
}

/// Files written, synced, and renamed over each other; the newest synced bytes stand under one of two
/// names.
fn rename_storm(at: &Path, round: u64, synced: &Synced) -> std::io::Result<()> {
    let dir = format!("storm-{round}");
    fs::create_dir(at.join(&dir))?;
    for number in 0..400u64 {
        let (temporary, name) =
            (format!("{dir}/t{number}.lock"), format!("{dir}/n{}", number % 40));
        let mut file = File::create(at.join(&temporary))?;
        file.write_all(&noise(number, 900))?;
        if number % 8 == 0 {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(at.join(&temporary), at.join(&name))?;
        if number % 16 == 0 {
            write_synced(at, &format!("{dir}/synced-{number}"), &noise(number, 2000), synced)?;
        }
    }
    Ok(())
}

/// Runs `work` on `worker` and kills `victim` meanwhile, then starts it again.
fn kill_during(
    pair: &Pair,
    victim: &Peer,
    after: Duration,
    work: impl FnOnce() -> std::io::Result<()> + Send,
) -> bool {
    std::thread::scope(|threads| {
        let working = threads.spawn(work);
        std::thread::park_timeout(after);
        victim.kill9();
        let done = working.join().unwrap().is_ok();
        victim.start();
        pair.reconnected();
        done
    })
}

fn round(pair: &Pair, git: &Git, source: &Path, seed: u64) {
    let mut dice = Dice(seed);
    let synced = Synced::default();
    let worker = if dice.below(2) == 0 { &pair.a } else { &pair.b };
    let victim = if dice.below(2) == 0 { &pair.a } else { &pair.b };
    let after = Duration::from_millis(dice.below(KILL_WITHIN_MS));
    let kind = dice.below(3);
    println!(
        "seed {seed}: kind {kind}, {} works, {} dies after {after:?}",
        worker.name, victim.name
    );
    let repository = format!("clone-{seed}");
    let at = worker.mnt();
    let done = kill_during(pair, victim, after, || match kind {
        0 => {
            let into = at.join(&repository);
            let args = ["clone", "--quiet", &source.to_string_lossy(), &into.to_string_lossy()];
            let outcome = git.attempt(source, &args.map(str::to_owned));
            // Where HEAD cannot be read any more, git warns, checks nothing out, and succeeds.
            match (outcome.code, outcome.stderr.as_str()) {
                (Some(0), "") => Ok(()),
                _ => Err(std::io::Error::other("the clone was interrupted")),
            }
        }
        1 => large_files(at, seed, &synced),
        _ => rename_storm(at, seed, &synced),
    });
    pair.identical();
    for side in [&pair.a, &pair.b] {
        for (name, bytes) in synced.lock().unwrap().iter() {
            let there = fs::read(side.at(name));
            let same = there.as_ref().is_ok_and(|there| there == bytes);
            assert!(same, "seed {seed}: {} on {} was synced", name.display(), side.name);
        }
        if kind == 0 && done {
            git.assert_sound(&side.at(&repository));
            git.assert_clean(&side.at(&repository));
        }
        let copies = crate::support::tree::plain_files(&side.backing);
        let copies: Vec<_> =
            copies.keys().filter(|p| p.to_string_lossy().contains("conflict from")).collect();
        assert!(copies.is_empty(), "seed {seed}: one side worked, {copies:?} on {}", side.name);
    }
}

#[test]
fn slow_kill_9_at_random_moments_loses_nothing_that_was_synced() {
    let rounds = from_environment("LOCKSTEP_CRASH_ROUNDS", 4);
    let first = from_environment("LOCKSTEP_CRASH_SEED", 1);
    let mut done = 0;
    while done < rounds {
        let Some(pair) = Pair::connected(Layout::default()) else { return };
        let git = Git::new(&pair.outside("git"));
        let source = pair.outside("source");
        SMALL.generate(&git, &source, 7);
        fs::write(pair.a.at("there-from-the-start"), noise(1, 10_000)).unwrap();
        pair.identical();
        for _ in 0..ROUNDS_PER_PAIR.min(rounds - done) {
            round(&pair, &git, &source, first + done);
            done += 1;
        }
    }
    println!("{rounds} rounds from seed {first}");
}
