//! `lockstep-sim [--seeds N] [--from S] [--plan NAME] [--shown N] [--trace]`: runs seeds, under every plan or
//! that of the name, and names the first that fail. `--volumes` does so with whole volumes, which
//! have plans of their own.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command-line tool")]

use lockstep_sim::{Failure, Plan, VolumePlan};
use std::fmt::Arguments;
use std::ops::Range;
use std::time::Instant;

/// Runs one seed and prints its steps.
type RunOne<'r> = &'r dyn Fn(u64, &mut dyn FnMut(Arguments<'_>)) -> Result<(), Failure>;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let number = |flag: &str, default: u64| {
        let at = args.iter().position(|arg| arg == flag);
        at.and_then(|at| args.get(at + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (from, seeds) = (number("--from", 0), number("--seeds", 10_000));
    let chosen = args.iter().position(|arg| arg == "--plan").and_then(|at| args.get(at + 1));
    let is_chosen = |name: &str| chosen.is_none_or(|chosen| chosen == name);
    let (shown, trace) = (number("--shown", 3), has("--trace"));
    let run = |name: &str, one: RunOne<'_>| run(name, one, from..from + seeds, shown, trace);
    let mut failed = 0;
    if has("--volumes") {
        for (name, plan) in VolumePlan::ALL.iter().filter(|(name, _)| is_chosen(name)) {
            failed += run(name, &|seed, print| lockstep_sim::run_volumes(seed, *plan, print));
        }
    } else {
        for (name, plan) in Plan::ALL.iter().filter(|(name, _)| is_chosen(name)) {
            failed += run(name, &|seed, print| lockstep_sim::run(seed, *plan, print));
        }
    }
    std::process::ExitCode::from(u8::from(failed > 0))
}

fn run(name: &str, one: RunOne<'_>, seeds: Range<u64>, shown: u64, trace: bool) -> u64 {
    let (started, count) = (Instant::now(), seeds.end - seeds.start);
    let mut failed = 0;
    for seed in seeds {
        let mut print = |line: std::fmt::Arguments<'_>| {
            if trace {
                println!("{line}");
            }
        };
        if let Err(failure) = one(seed, &mut print) {
            failed += 1;
            if failed <= shown {
                println!("{failure}");
            }
        }
    }
    let per_minute = count as f64 / started.elapsed().as_secs_f64() * 60.0;
    println!("{name} {count} seeds, {failed} failed, {per_minute:.0} seeds a minute");
    failed
}
