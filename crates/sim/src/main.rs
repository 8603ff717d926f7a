//! `lockstep-sim [--seeds N] [--from S] [--plan NAME] [--shown N] [--trace]`: runs seeds, under every plan or
//! that of the name, and names the first that fail. `--volumes` does so with whole volumes, which
//! have plans of their own. Fails with 1 if a seed does, with 2 if it cannot understand what is asked.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod options;

use lockstep_sim::{Failure, Plan, VolumePlan};
use options::Options;
use std::fmt::Arguments;
use std::process::ExitCode;
use std::time::Instant;

/// Runs one seed and prints its steps.
type RunOne<'r> = &'r dyn Fn(u64, &mut dyn FnMut(Arguments<'_>)) -> Result<(), Failure>;

fn main() -> ExitCode {
    let options = match Options::of(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("lockstep-sim: {why}");
            return ExitCode::from(2);
        }
    };
    let mut failed = 0;
    if options.volumes {
        for (name, plan) in VolumePlan::ALL.iter().filter(|(name, _)| options.has_plan(name)) {
            failed +=
                run(name, &|seed, print| lockstep_sim::run_volumes(seed, *plan, print), &options);
        }
    } else {
        for (name, plan) in Plan::ALL.iter().filter(|(name, _)| options.has_plan(name)) {
            failed += run(name, &|seed, print| lockstep_sim::run(seed, *plan, print), &options);
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

fn run(name: &str, one: RunOne<'_>, options: &Options) -> u64 {
    let started = Instant::now();
    let mut failed = 0;
    for seed in options.from..options.from.saturating_add(options.seeds) {
        let mut print = |line: Arguments<'_>| {
            if options.trace {
                println!("{line}");
            }
        };
        if let Err(failure) = one(seed, &mut print) {
            failed += 1;
            if failed <= options.shown {
                println!("{failure}");
            }
        }
    }
    let count = options.seeds;
    let per_minute = count as f64 / started.elapsed().as_secs_f64() * 60.0;
    println!("{name} {count} seeds, {failed} failed, {per_minute:.0} seeds a minute");
    failed
}
