//! Which history a log is: a replica whose state was lost or put back goes on from an earlier
//! point than its peers remember, and what they remember is then another log under the same name.

use crate::ids::Sequence;
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};

/// How far somebody has a log, and which one: `seq` as numbered by the run `incarnation`, or by
/// runs it went on from. The default has nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursor {
    /// Drawn at random when the author's daemon starts.
    pub incarnation: u64,
    /// Last change had.
    pub seq: Sequence,
}

/// The runs that numbered a log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Changes up to here are not this log's.
    floor: Sequence,
    /// Each run, with the number it started after.
    runs: Vec<(u64, Sequence)>,
}

/// Runs remembered. Whoever was away for more gets the full state.
const RUNS_MAX: usize = 32;

impl Branch {
    /// A run starts to number after `last`.
    pub fn run(&mut self, incarnation: u64, last: Sequence) {
        self.runs.push((incarnation, last));
        if self.runs.len() > RUNS_MAX {
            self.runs.remove(0);
        }
    }

    /// The current run.
    pub fn incarnation(&self) -> u64 {
        self.runs.last().map_or(0, |(incarnation, _)| *incarnation)
    }

    /// What was numbered up to `floor` is not to be continued from.
    pub fn restart(&mut self, floor: Sequence) {
        self.floor = floor;
        self.runs =
            self.runs.last().map(|(incarnation, _)| (*incarnation, floor)).into_iter().collect();
    }

    /// Whether the log that ends at `last` goes on from `cursor`: what its owner has is what was
    /// numbered here.
    pub fn holds(&self, cursor: LogCursor, last: Sequence) -> bool {
        if cursor.seq < self.floor {
            return false;
        }
        if cursor.seq == Sequence(0) {
            return true;
        }
        let run = self.runs.iter().position(|(incarnation, _)| *incarnation == cursor.incarnation);
        planted::has(Bug::TrustOldState)
            || run.is_some_and(|at| {
                let end = self.runs.get(at + 1).map_or(last, |(_, after)| *after);
                cursor.seq <= end
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(incarnation: u64, seq: u64) -> LogCursor {
        LogCursor { incarnation, seq: Sequence(seq) }
    }

    #[test]
    fn a_log_put_back_to_an_earlier_point_is_told_from_the_one_that_went_on() {
        let mut original = Branch::default();
        original.run(11, Sequence(0));
        let mut restored = original.clone();
        original.run(22, Sequence(100));
        restored.run(33, Sequence(80));
        assert!(original.holds(at(11, 100), Sequence(150)));
        assert!(original.holds(at(22, 120), Sequence(150)));
        assert!(original.holds(at(22, 50), Sequence(150)), "the run went on from there");
        assert!(restored.holds(at(11, 70), Sequence(500)), "common history");
        assert!(!restored.holds(at(11, 95), Sequence(500)), "numbered after the copy was made");
        assert!(!restored.holds(at(22, 120), Sequence(500)), "a run the copy never saw");
    }

    #[test]
    fn a_log_begun_anew_holds_nothing_of_before() {
        let mut branch = Branch::default();
        branch.run(11, Sequence(0));
        assert!(branch.holds(LogCursor::default(), Sequence(0)));
        branch.restart(Sequence(40));
        assert!(!branch.holds(LogCursor::default(), Sequence(41)));
        assert!(!branch.holds(at(11, 39), Sequence(41)));
        assert!(branch.holds(at(11, 41), Sequence(41)));
    }
}
