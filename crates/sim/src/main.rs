//! `lockstep-sim [--seeds N] [--from S] [--plan NAME] [--shown N] [--trace]`: runs seeds, under every plan or
//! that of the name, and names the first that fail.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command-line tool")]

use lockstep_sim::Plan;
use std::time::Instant;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let number = |flag: &str, default: u64| {
        let at = args.iter().position(|arg| arg == flag);
        at.and_then(|at| args.get(at + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (from, seeds) = (number("--from", 0), number("--seeds", 10_000));
    let chosen = args.iter().position(|arg| arg == "--plan").and_then(|at| args.get(at + 1));
    let plans = Plan::ALL.iter().filter(|(name, _)| chosen.is_none_or(|chosen| chosen == name));
    let mut failed = 0;
    for (name, plan) in plans {
        failed += run(name, *plan, from..from + seeds, number("--shown", 3), has("--trace"));
    }
    std::process::ExitCode::from(u8::from(failed > 0))
}

fn run(name: &str, plan: Plan, seeds: std::ops::Range<u64>, shown: u64, trace: bool) -> u64 {
    let (started, count) = (Instant::now(), seeds.end - seeds.start);
    let mut failed = 0;
    for seed in seeds {
        let mut print = |line: std::fmt::Arguments<'_>| {
            if trace {
                println!("{line}");
            }
        };
        if let Err(failure) = lockstep_sim::run(seed, plan, &mut print) {
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
