//! The simulator is tested itself: bugs planted in the mechanism are found within a stated number
//! of seeds. `cargo test -p lockstep-sim --features planted-bugs --test planted`.
#![allow(clippy::print_stdout, reason = "tests report what they measured")]

use lockstep_core::planted::{Bug, plant};
use lockstep_sim::{Failure, Plan, VolumePlan, run, run_volumes};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs seeds with `bug` until one fails, at most `seeds` of them. A seed that fails without the bug
/// too finds nothing.
fn is_found(bug: Bug, seeds: u64, run: impl Fn(u64) -> Result<(), Failure>) {
    let fails = |bug: Option<Bug>, seed: u64| {
        plant(bug);
        let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
        plant(None);
        !matches!(result, Ok(Ok(())))
    };
    let found = (0..seeds).find(|seed| fails(Some(bug), *seed) && !fails(None, *seed));
    println!("{bug:?}: seed {found:?} of {seeds}");
    assert!(found.is_some(), "{bug:?} is not found within {seeds} seeds");
}

macro_rules! planted {
    ($run:ident, $plans:ident: $($test:ident: $bug:ident, $plan:ident, $seeds:literal;)*) => {
        $(#[test]
        fn $test() {
            is_found(Bug::$bug, $seeds, |seed| $run(seed, $plans::$plan, &mut |_| ()));
        })*
    };
}

planted! { run_volumes, VolumePlan:
    acknowledge_unsynced: AckUnsynced, POWER, 300;
    fsync_nothing: FsyncNothing, POWER, 300;
    skip_the_note_of_a_batch: SkipBegun, ONE_WORKS_KILLS, 300;
    drop_a_fetch: DropFetch, IN_FLIGHT, 300;
    announce_by_size: AnnounceBySize, IN_FLIGHT, 300;
    keep_nothing: KeepNothing, IN_FLIGHT, 300;
}

planted! { run, Plan:
    skip_ack: SkipAck, IN_FLIGHT, 10;
    apply_out_of_order: ApplyOutOfOrder, IN_FLIGHT, 300;
    apply_twice: ApplyTwice, IN_FLIGHT, 50;
    drop_on_full: DropOnFull, IN_FLIGHT, 100;
    compare_by_size: CompareBySize, IN_FLIGHT, 300;
    retarget_wrongly: RetargetWrongly, IN_FLIGHT, 10;
    forget_seen: ForgetSeen, APART, 300;
    ignore_taken: IgnoreTaken, APART, 100;
    first_come_first_shown: FirstComeFirstShown, APART, 50;
    forget_entries: ForgetEntries, APART, 300;
    clock_stands_still: ClockStandsStill, IN_FLIGHT, 100;
    keep_old_row: KeepOldRow, CRASHES, 300;
    drop_overruled: DropOverruled, APART, 300;
    forget_taken: ForgetTaken, THREE, 300;
    lose_history: LoseHistory, CRASHES, 1000;
    ignore_consequences: IgnoreConsequences, IN_FLIGHT, 300;
    forget_early: ForgetEarly, IN_FLIGHT, 1000;
    plan_late: PlanLate, BY_STATE, 200;
    tell_once: TellOnce, BY_STATE, 200;
    forget_overruled: ForgetOverruled, BY_STATE, 200;
    forget_removals: ForgetRemovals, BY_STATE, 200;
    trust_an_old_state: TrustOldState, STATE_LOST, 100;
}
