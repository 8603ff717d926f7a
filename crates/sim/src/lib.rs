//! Two replicas of the real `core` in one deterministic world: random operations on both, random
//! delivery between them, a model of each disk that carries out the effects, and checks.
//!
//! Everything follows from one seed: the same seed gives the same run.
#![forbid(unsafe_code)]

mod actions;
mod below;
mod rng;
mod world;

pub use rng::Rng;
pub use world::{Failure, FailureKind, run};
