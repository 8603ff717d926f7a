//! Lockstep: one folder, in lockstep on every machine.
//!
//! | module | concept |
//! |---|---|
//! | `cli` | the commands, as a user types them and reads their answers |
//! | `control` | how commands reach the daemon |
//! | `daemon` | the process that keeps volumes open, mounted and connected |
//! | `pump` | what moves changes and content between a volume and its peers |
//! | `fuse` | what the kernel asks of a mounted volume |
//! | `demo` | the main job, shown |
//! | `home`, `errors` | where things are kept; how failures are told |

mod cli;
mod control;
mod daemon;
mod demo;
mod errors;
mod fuse;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod home;
mod pump;

pub use cli::main;
