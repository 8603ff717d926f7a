//! What the seeded tests of replicas and of whole volumes have in common.

use lockstep_sim::Failure;
use std::fmt::Arguments;
use std::ops::Range;

/// Runs one seed under a plan and tells its steps.
pub type Run<P> = fn(u64, P, &mut dyn FnMut(Arguments<'_>)) -> Result<(), Failure>;

/// No seed of `seeds` fails.
pub fn none_fails<P: Copy>(run: Run<P>, plan: P, seeds: Range<u64>) {
    let failures: Vec<String> = seeds
        .filter_map(|seed| run(seed, plan, &mut |_| ()).err())
        .take(3)
        .map(|failure| failure.to_string())
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A seed of `seeds` run again takes the same steps to the same end.
pub fn is_repeated<P: Copy>(run: Run<P>, plans: &[(&str, P)], seeds: Range<u64>) {
    for (name, plan) in plans {
        let trace = |seed| {
            let mut lines = Vec::new();
            let result = run(seed, *plan, &mut |line| lines.push(line.to_string()));
            (lines, result.err().map(|failure| failure.what))
        };
        for seed in seeds.clone() {
            assert_eq!(trace(seed), trace(seed), "{name} {seed}");
        }
    }
}

/// No regression fails: a line of `lines` is a plan, a seed, and what it found.
pub fn no_regression_fails<P: Copy>(run: Run<P>, plans: &[(&str, P)], lines: &str) {
    let mut runs = 0;
    for line in lines.lines().filter(|line| !line.starts_with('#')) {
        let Some((what, seed)) = line.split(';').next().and_then(|run| run.rsplit_once(' ')) else {
            panic!("not a regression: {line}");
        };
        let plan = plans.iter().find(|(name, _)| *name == what).map(|(_, plan)| *plan);
        let (Some(plan), Ok(seed)) = (plan, seed.parse()) else { panic!("unknown plan: {line}") };
        if let Err(failure) = run(seed, plan, &mut |_| ()) {
            panic!("{line}: {failure}");
        }
        runs += 1;
    }
    assert!(runs > 0, "there are regressions");
}
