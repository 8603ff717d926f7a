//! Seeded runs of the real core, under each plan.

mod seeded;

use lockstep_sim::{Plan, run};

fn none_fails(plan: Plan, seeds: std::ops::Range<u64>) {
    seeded::none_fails(run, plan, seeds);
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

#[test]
fn no_run_on_a_slow_line_fails() {
    none_fails(Plan::SLOW, 0..1_000);
}

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
    seeded::is_repeated(run, &Plan::ALL, 0..5);
}

/// Every seed that ever failed: a line is a plan, a seed, and what it found.
#[test]
fn regressions() {
    seeded::no_regression_fails(run, &Plan::ALL, include_str!("regressions.txt"));
}
