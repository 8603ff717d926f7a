//! Peers on loopback, honest and hostile.

mod calls;
mod fake;
mod hostile;
mod identity;
mod mutated;
mod pairing;
mod sessions;
