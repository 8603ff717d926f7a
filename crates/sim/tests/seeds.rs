//! Seeded runs of the real core, under each plan.

use lockstep_sim::{Plan, run};

fn none_fails(plan: Plan, seeds: std::ops::Range<u64>) {
    let failures: Vec<String> = seeds
        .filter_map(|seed| run(seed, plan, &mut |_| ()).err())
        .take(3)
        .map(|failure| failure.to_string())
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn no_run_with_changes_in_flight_fails() {
    none_fails(Plan::IN_FLIGHT, 0..1_000);
}

#[test]
fn no_run_apart_fails() {
    none_fails(Plan::APART, 0..1_000);
}

#[test]
fn no_run_with_crashes_fails() {
    none_fails(Plan::CRASHES, 0..1_000);
}

#[test]
fn no_run_that_meets_by_state_fails() {
    none_fails(Plan::BY_STATE, 0..1_000);
}

/// Seeds further on fail: see `ARCHITECTURE.md`.
#[test]
fn no_run_that_loses_its_state_fails() {
    none_fails(Plan::STATE_LOST, 0..1_000);
}

#[test]
fn no_run_of_three_fails() {
    none_fails(Plan::THREE, 0..400);
}

#[test]
fn no_run_of_three_apart_with_crashes_fails() {
    none_fails(Plan::THREE_APART, 0..400);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for (name, plan) in Plan::ALL {
        let trace = |seed| {
            let mut lines = Vec::new();
            let result = run(seed, plan, &mut |line| lines.push(line.to_string()));
            (lines, result.err().map(|failure| failure.what))
        };
        for seed in 0..5 {
            assert_eq!(trace(seed), trace(seed), "{name} {seed}");
        }
    }
}

/// Every seed that ever failed: a line is a plan, a seed, and what it found.
#[test]
fn regressions() {
    let mut runs = 0;
    for line in include_str!("regressions.txt").lines().filter(|line| !line.starts_with('#')) {
        let Some((what, seed)) = line.split(';').next().and_then(|run| run.rsplit_once(' ')) else {
            panic!("not a regression: {line}");
        };
        let plan = Plan::ALL.iter().find(|(name, _)| *name == what).map(|(_, plan)| *plan);
        let (Some(plan), Ok(seed)) = (plan, seed.parse()) else { panic!("unknown plan: {line}") };
        if let Err(failure) = run(seed, plan, &mut |_| ()) {
            panic!("{line}: {failure}");
        }
        runs += 1;
    }
    assert!(runs > 0, "there are regressions");
}
