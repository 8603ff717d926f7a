//! The simulator is tested itself: bugs planted in the mechanism are found within a stated number
//! of seeds. `cargo test -p lockstep-sim --features planted-bugs --test planted`.
#![allow(clippy::print_stdout, reason = "tests report what they measured")]

use lockstep_core::planted::{Bug, plant};
use lockstep_sim::{Plan, VolumePlan, run, run_volumes};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `plan` with `bug` until a seed fails, at most `seeds` of them.
fn is_found(bug: Bug, plan: Plan, seeds: u64) {
    plant(Some(bug));
    let fails = |seed: &u64| {
        let result = catch_unwind(AssertUnwindSafe(|| run(*seed, plan, &mut |_| ())));
        !matches!(result, Ok(Ok(())))
    };
    let found = (0..seeds).find(fails);
    plant(None);
    println!("{bug:?}: seed {found:?} of {seeds}");
    assert!(found.is_some(), "{bug:?} is not found within {seeds} seeds");
}

/// The same with whole volumes. A seed that fails without the bug too finds nothing.
fn is_found_in_volumes(bug: Bug, plan: VolumePlan, seeds: u64) {
    let fails = |bug: Option<Bug>, seed: u64| {
        plant(bug);
        let result = catch_unwind(AssertUnwindSafe(|| run_volumes(seed, plan, &mut |_| ())));
        plant(None);
        !matches!(result, Ok(Ok(())))
    };
    let found = (0..seeds).find(|seed| fails(Some(bug), *seed) && !fails(None, *seed));
    println!("{bug:?}: seed {found:?} of {seeds}");
    assert!(found.is_some(), "{bug:?} is not found within {seeds} seeds");
}

macro_rules! planted_in_volumes {
    ($($test:ident: $bug:ident, $plan:ident, $seeds:literal;)*) => {
        $(#[test]
        fn $test() {
            is_found_in_volumes(Bug::$bug, VolumePlan::$plan, $seeds);
        })*
    };
}

planted_in_volumes! {
    acknowledge_unsynced: AckUnsynced, POWER, 300;
    fsync_nothing: FsyncNothing, POWER, 300;
    trust_what_a_transfer_left: TrustResumed, POWER, 300;
    skip_the_note_of_a_batch: SkipBegun, KILLS, 300;
    take_a_loss_for_an_edit: LossIsEdit, POWER, 300;
    drop_a_fetch: DropFetch, IN_FLIGHT, 300;
    announce_by_size: AnnounceBySize, IN_FLIGHT, 300;
    keep_nothing: KeepNothing, IN_FLIGHT, 300;
}

macro_rules! planted {
    ($($test:ident: $bug:ident, $plan:ident, $seeds:literal;)*) => {
        $(#[test]
        fn $test() {
            is_found(Bug::$bug, Plan::$plan, $seeds);
        })*
    };
}

planted! {
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
