//! `lockstep-sim [--seeds N] [--from S] [--apart] [--trace]`: runs seeds and names the first that fails.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command-line tool")]

use lockstep_sim::Failure;
use std::time::Instant;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let number = |flag: &str, default: u64| {
        let at = args.iter().position(|arg| arg == flag);
        at.and_then(|at| args.get(at + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (from, seeds) = (number("--from", 0), number("--seeds", 10_000));
    let trace = args.iter().any(|arg| arg == "--trace");
    let apart = args.iter().any(|arg| arg == "--apart");
    let started = Instant::now();
    let mut failed = 0;
    for seed in from..from + seeds {
        let mut print = |line: String| {
            if trace {
                println!("{line}");
            }
        };
        if let Err(failure) = lockstep_sim::run(seed, apart, &mut print) {
            failed += 1;
            if failed <= 3 {
                let Failure { seed, step, kind, what } = failure;
                println!("seed {seed} step {step}: {kind:?}: {what}");
            }
        }
    }
    let per_minute = seeds as f64 / started.elapsed().as_secs_f64() * 60.0;
    println!("{seeds} seeds, {failed} failed, {per_minute:.0} seeds a minute");
    std::process::ExitCode::from(u8::from(failed > 0))
}
