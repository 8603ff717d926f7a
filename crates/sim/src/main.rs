//! `lockstep-sim [--seeds N] [--from S] [--apart] [--three] [--crashes] [--all] [--trace]`: runs
//! seeds and names the first that fail. `--all` runs them under every plan.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command-line tool")]

use lockstep_sim::Plan;
use std::time::Instant;

/// Failures shown in full.
const SHOWN_MAX: usize = 3;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let number = |flag: &str, default: u64| {
        let at = args.iter().position(|arg| arg == flag);
        at.and_then(|at| args.get(at + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (from, seeds) = (number("--from", 0), number("--seeds", 10_000));
    let replicas = if has("--three") { 3 } else { 2 };
    let chosen = Plan { replicas, apart: has("--apart"), crashes: has("--crashes") };
    let plans = match has("--all") {
        true => Plan::ALL.to_vec(),
        false => vec![("", chosen)],
    };
    let mut failed = 0;
    for (name, plan) in plans {
        failed += run(name, plan, from..from + seeds, has("--trace"));
    }
    std::process::ExitCode::from(u8::from(failed > 0))
}

fn run(name: &str, plan: Plan, seeds: std::ops::Range<u64>, trace: bool) -> usize {
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
            if failed <= SHOWN_MAX {
                println!("{failure}");
            }
        }
    }
    let per_minute = count as f64 / started.elapsed().as_secs_f64() * 60.0;
    println!("{name} {count} seeds, {failed} failed, {per_minute:.0} seeds a minute");
    failed
}
