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
    /// Whether the log keeps so little that who was away is told the state.
    pub short_log: bool,
    /// Whether replicas lose their state, get an old copy of it back, or lose by a power cut what
    /// their peers have already.
    pub loses_state: bool,
    /// Whether contents come seconds after the changes that announce them.
    pub slow_contents: bool,
}

impl Plan {
    const PLAIN: Plan = Plan {
        replicas: 2,
        apart: false,
        crashes: false,
        short_log: false,
        loses_state: false,
        slow_contents: false,
    };

    /// Two replicas that are mostly connected.
    pub const IN_FLIGHT: Plan = Plan::PLAIN;
    /// Two replicas that meet at the end.
    pub const APART: Plan = Plan { apart: true, ..Plan::PLAIN };
    /// Two replicas that crash.
    pub const CRASHES: Plan = Plan { crashes: true, ..Plan::PLAIN };
    /// Two replicas that hardly keep a log, so that they meet by state.
    pub const BY_STATE: Plan = Plan { short_log: true, ..Plan::PLAIN };
    /// Two replicas that lose their state.
    pub const STATE_LOST: Plan = Plan { short_log: true, loses_state: true, ..Plan::PLAIN };
    /// Two replicas on a slow line that hardly keep a log.
    pub const SLOW: Plan = Plan { short_log: true, slow_contents: true, ..Plan::PLAIN };
    /// Three replicas that are mostly connected.
    pub const THREE: Plan = Plan { replicas: 3, ..Plan::PLAIN };
    /// Three replicas that meet at the end, and crash.
    pub const THREE_APART: Plan = Plan { replicas: 3, apart: true, crashes: true, ..Plan::PLAIN };

    /// All of them, with their names.
    pub const ALL: [(&'static str, Plan); 8] = [
        ("in flight", Plan::IN_FLIGHT),
        ("apart", Plan::APART),
        ("crashes", Plan::CRASHES),
        ("by state", Plan::BY_STATE),
        ("state lost", Plan::STATE_LOST),
        ("slow", Plan::SLOW),
        ("three", Plan::THREE),
        ("three apart", Plan::THREE_APART),
    ];
}
