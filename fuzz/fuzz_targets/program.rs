//! Everything that the program decodes itself. It is no library: its modules are taken in here.
#![no_main]
#![allow(dead_code, unused)]

#[path = "../../crates/lockstep/src/cli/mod.rs"]
mod cli;
#[path = "../../crates/lockstep/src/control.rs"]
mod control;
#[path = "../../crates/lockstep/src/daemon/mod.rs"]
mod daemon;
#[path = "../../crates/lockstep/src/demo.rs"]
mod demo;
#[path = "../../crates/lockstep/src/errors.rs"]
mod errors;
#[path = "../../crates/lockstep/src/fuse/mod.rs"]
mod fuse;
#[path = "../../crates/lockstep/src/fuzz.rs"]
mod fuzz;
#[path = "../../crates/lockstep/src/home.rs"]
mod home;
#[path = "../mutated.rs"]
mod mutated;
#[path = "../../crates/lockstep/src/pump/mod.rs"]
mod pump;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mutated::select(&fuzz::decoders(), bytes));
