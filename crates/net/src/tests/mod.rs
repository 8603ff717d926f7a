//! Peers on loopback, honest and hostile.

mod calls;
mod fake;
mod hostile;
mod identity;
mod pairing;
mod sessions;
