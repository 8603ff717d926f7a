//! What kind of run a seed is for.

/// Which troubles a run of volumes has. Everything else follows from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    /// How many hosts: two or three.
    pub hosts: usize,
    /// Whether programs work on the first host only.
    pub one_works: bool,
    /// Whether the hosts hardly ever hear of each other before the end.
    pub apart: bool,
    /// Whether daemons are killed and started again, with edits below meanwhile.
    pub kills: bool,
    /// Whether the power goes.
    pub power_cuts: bool,
    /// Whether disks are full for a while.
    pub full_disks: bool,
}

impl VolumePlan {
    /// Two hosts that are mostly connected.
    pub const IN_FLIGHT: VolumePlan = VolumePlan {
        hosts: 2,
        one_works: false,
        apart: false,
        kills: false,
        power_cuts: false,
        full_disks: false,
    };
    /// Two, of which one works.
    pub const ONE_WORKS: VolumePlan = VolumePlan { one_works: true, ..VolumePlan::IN_FLIGHT };
    /// Two that meet at the end.
    pub const APART: VolumePlan = VolumePlan { apart: true, ..VolumePlan::IN_FLIGHT };
    /// Two whose daemons are killed.
    pub const KILLS: VolumePlan = VolumePlan { kills: true, ..VolumePlan::IN_FLIGHT };
    /// Two whose daemons are killed, of which one works: whatever the other says is wrong.
    pub const ONE_WORKS_KILLS: VolumePlan =
        VolumePlan { kills: true, one_works: true, ..VolumePlan::IN_FLIGHT };
    /// Two that lose power.
    pub const POWER: VolumePlan = VolumePlan { power_cuts: true, ..VolumePlan::IN_FLIGHT };
    /// Two whose disks are full for a while.
    pub const FULL: VolumePlan = VolumePlan { full_disks: true, ..VolumePlan::IN_FLIGHT };
    /// Three that are mostly connected: who has a content is not who is asked first.
    pub const THREE_IN_FLIGHT: VolumePlan = VolumePlan { hosts: 3, ..VolumePlan::IN_FLIGHT };
    /// Three that have all troubles.
    pub const THREE: VolumePlan = VolumePlan {
        hosts: 3,
        kills: true,
        power_cuts: true,
        full_disks: true,
        ..VolumePlan::IN_FLIGHT
    };

    /// All of them, with their names.
    pub const ALL: [(&'static str, VolumePlan); 9] = [
        ("volumes in flight", VolumePlan::IN_FLIGHT),
        ("volumes one works", VolumePlan::ONE_WORKS),
        ("volumes apart", VolumePlan::APART),
        ("volumes kills", VolumePlan::KILLS),
        ("volumes one works kills", VolumePlan::ONE_WORKS_KILLS),
        ("volumes power", VolumePlan::POWER),
        ("volumes full", VolumePlan::FULL),
        ("volumes three in flight", VolumePlan::THREE_IN_FLIGHT),
        ("volumes three", VolumePlan::THREE),
    ];

    /// Whether daemons end before the run does.
    pub fn crashes(&self) -> bool {
        self.kills || self.power_cuts
    }
}
