//! Bugs on purpose, to test that the simulator finds them. They exist only with the feature
//! `planted-bugs`, which no product build has; without it every question is answered no, and the
//! compiler leaves nothing of it.

/// A defect in the mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Acknowledgements are not recorded.
    SkipAck,
    /// A change is applied although changes before it are missing.
    ApplyOutOfOrder,
    /// A change is applied again.
    ApplyTwice,
    /// Changes are dropped when some are pending.
    DropOnFull,
    /// Contents of one size count as equal.
    CompareBySize,
    /// A rename into another directory stays in the old one.
    RetargetWrongly,
    /// A removal counts as having seen everything.
    ForgetSeen,
    /// A name that was taken is given back by an older change.
    IgnoreTaken,
    /// Of two nodes of one name the one that came first is shown.
    FirstComeFirstShown,
    /// A removed directory goes with what is in it.
    ForgetEntries,
    /// The clock does not follow what peers say.
    ClockStandsStill,
    /// A new content is not written down.
    KeepOldRow,
    /// Overruled bytes are not set aside.
    DropOverruled,
    /// Taken names are forgotten at once.
    ForgetTaken,
    /// What is written down of a node lacks its history of names.
    LoseHistory,
    /// What follows from a local change is not done on disk.
    IgnoreConsequences,
    /// Removed nodes are forgotten although a peer's changes of before it knew may still come.
    ForgetEarly,
    /// An exchange of state leaves out what was removed.
    ForgetRemovals,
    /// A log is taken to go on from whatever a peer says it has.
    TrustOldState,
    /// Who was told a state does not tell what came of it.
    TellOnce,
    /// Contents that lost count as known to those who had overruled them.
    ForgetOverruled,
    /// An exchange of state ends where the log is when the comparison is done.
    PlanLate,
    /// What was applied counts as durable although nothing was synced.
    AckUnsynced,
    /// `fsync` does not sync the file.
    FsyncNothing,
    /// What an interrupted transfer left is not compared with its hash.
    TrustResumed,
    /// It is not noted how far a batch got.
    SkipBegun,
    /// What a power cut took is an edit.
    LossIsEdit,
    /// Contents to be fetched are dropped when others wait.
    DropFetch,
    /// A written file of the size it had is taken to hold what it held.
    AnnounceBySize,
    /// The bytes of a removed file are not kept for peers.
    KeepNothing,
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread has `bug`, and no other.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether `bug` is planted.
#[cfg(feature = "planted-bugs")]
pub fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether `bug` is planted: never.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn has(_: Bug) -> bool {
    false
}
