//! What can go wrong in a run.

use std::fmt;

/// What went wrong, and when.
#[derive(Debug)]
pub struct Failure {
    /// The run's seed.
    pub seed: u64,
    /// Number of the step.
    pub step: usize,
    /// Which promise.
    pub kind: FailureKind,
    /// What did not hold.
    pub what: String,
}

/// Which promise did not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// A tree broke an invariant, or an effect asked the disk for the impossible.
    Broken,
    /// A change took effect before one that its author had made or seen before it.
    Order,
    /// A content that nobody who knew it gave up is nowhere.
    Lost,
    /// A reader saw bytes that nobody wrote.
    Torn,
    /// Something is there that was removed by one who knew all of it.
    Resurrected,
    /// At the end the sides show different trees.
    Differ,
    /// All sides agree, but not on what follows from the changes made.
    Wrong,
    /// With everybody connected something never arrives.
    Stuck,
    /// A queue is longer than it may be, or something that nobody needs is kept.
    Unbounded,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, step, kind, what } = self;
        write!(f, "seed {seed} step {step}: {kind:?}: {what}")
    }
}

/// A failure whose seed and step the run fills in.
pub type Check = Result<(), (FailureKind, String)>;
