//! Seeded runs of two replicas of the real core.

#![allow(clippy::print_stdout, reason = "tests report what they measured")]

use lockstep_sim::{Failure, FailureKind, run};

const SEEDS: u64 = 10_000;

fn failures(apart: bool) -> Vec<Failure> {
    (0..SEEDS).filter_map(|seed| run(seed, apart, &mut |_| ()).err()).collect()
}

fn none_but_names(apart: bool) {
    let failures = failures(apart);
    let worse: Vec<&Failure> =
        failures.iter().filter(|failure| failure.kind != FailureKind::Differ).collect();
    assert!(worse.is_empty(), "{worse:?}");
    // Known and open: a name can end differently on the two sides when one removes or renames a
    // file that the other renames and edits at the same moment. Both sides keep every content.
    println!("{} of {SEEDS} seeds end with a name that differs", failures.len());
}

#[test]
fn no_run_with_changes_in_flight_loses_content_or_breaks_the_tree() {
    none_but_names(false);
}

#[test]
fn no_run_apart_loses_content_or_breaks_the_tree() {
    none_but_names(true);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let mut lines = Vec::new();
        let result = run(seed, false, &mut |line| lines.push(line));
        (lines, result.err().map(|failure| failure.what))
    };
    assert_eq!(trace(7), trace(7));
}

/// Seeds that once broke something worse than a name, each after the defect it found.
#[test]
fn regressions() {
    // A directory revived below the one that moves into it; a link shown under a taken name;
    // an exchange of two nodes of one name; a file removed again after its removal was undone.
    for (seed, apart) in
        [(37_219, false), (58_604, false), (52_727, false), (58_246, true), (40, false)]
    {
        if let Err(failure) = run(seed, apart, &mut |_| ()) {
            assert_eq!(failure.kind, FailureKind::Differ, "{failure:?}");
        }
    }
}
