//! Two or three replicas of the real `core` in one deterministic world: users who do random things,
//! connections with latency, cuts and half-open ends, disks and databases that lose what was not
//! synced, and checks at every step and at the end, among them a naive reference model.
//!
//! Everything follows from one seed: the same seed gives the same run.
#![forbid(unsafe_code)]

mod actions;
mod below;
mod catch_up;
mod checks;
mod crash;
mod exchange;
mod failure;
mod model;
mod network;
mod plan;
mod rng;
mod scan;
mod settle;
mod side;
mod volumes;
mod world;

pub use failure::{Failure, FailureKind};
pub use plan::Plan;
pub use rng::Rng;
pub use volumes::{VolumePlan, run as run_volumes};
pub use world::run;
