//! What kind of run a seed is for.

/// Which troubles a run has. Everything else follows from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many replicas: two or three.
    pub replicas: usize,
    /// Whether the replicas hardly ever hear of each other before the end.
    pub apart: bool,
    /// Whether replicas are killed or lose power, and start again from what was written down.
    pub crashes: bool,
}

impl Plan {
    /// Two replicas that are mostly connected.
    pub const IN_FLIGHT: Plan = Plan { replicas: 2, apart: false, crashes: false };
    /// Two replicas that meet at the end.
    pub const APART: Plan = Plan { replicas: 2, apart: true, crashes: false };
    /// Two replicas that crash.
    pub const CRASHES: Plan = Plan { replicas: 2, apart: false, crashes: true };
    /// Three replicas that are mostly connected.
    pub const THREE: Plan = Plan { replicas: 3, apart: false, crashes: false };
    /// Three replicas that meet at the end, and crash.
    pub const THREE_APART: Plan = Plan { replicas: 3, apart: true, crashes: true };

    /// All of them, with their names.
    pub const ALL: [(&'static str, Plan); 5] = [
        ("in flight", Plan::IN_FLIGHT),
        ("apart", Plan::APART),
        ("crashes", Plan::CRASHES),
        ("three", Plan::THREE),
        ("three apart", Plan::THREE_APART),
    ];
}
