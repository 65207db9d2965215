//! Bugs planted on purpose: whoever trusts the simulation should see it bite.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use mem_cache::Fault;

use super::{FakeExecutor, Simulation, Workload};

/// Seeds for each bug.
const NUM_SEEDS: u64 = 300;

/// What came of the seeds whose run gave the bug an opening.
#[derive(Debug, Default)]
struct Tally {
    planted: u64,
    caught: u64,
}

/// Plants `fault` at the first opening from step 3 on.
fn run_with_fault(fault: Fault, audits: bool) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..NUM_SEEDS {
        let workload = Workload::new(seed);
        let executor = FakeExecutor::new(&workload);
        let mut simulation = Simulation::new(workload, executor);
        simulation.audits = audits;
        let mut planted = false;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            simulation.run_with(|step, scheduler| {
                if step >= 3 && !planted {
                    planted = scheduler.cache.plant(fault);
                }
            })
        }));
        tally.planted += u64::from(planted);
        tally.caught += u64::from(planted && !matches!(outcome, Ok(Ok(_))));
    }
    tally
}

#[test]
fn audit_catches_every_double_free() {
    let tally = run_with_fault(Fault::DoubleFree, true);
    assert!(tally.planted >= 150, "{tally:?}");
    assert_eq!(tally.caught, tally.planted);
}

#[test]
fn audit_catches_every_early_eviction() {
    let tally = run_with_fault(Fault::EarlyEviction, true);
    assert!(tally.planted >= 100, "{tally:?}");
    assert_eq!(tally.caught, tally.planted);
}

#[test]
fn audit_catches_every_freed_snapshot() {
    let tally = run_with_fault(Fault::FreedSnapshot, true);
    assert!(tally.planted >= 40, "{tally:?}");
    assert_eq!(tally.caught, tally.planted);
}

#[test]
fn audit_catches_every_freed_window_page() {
    let tally = run_with_fault(Fault::FreedWindowPage, true);
    assert!(tally.planted >= 60, "{tally:?}");
    assert_eq!(tally.caught, tally.planted);
}

/// Without audit a bug shows once the page has a second owner, or comes back
/// twice; in a short run it may not.
#[test]
fn the_executor_alone_catches_most_of_them() {
    for fault in [Fault::DoubleFree, Fault::EarlyEviction] {
        let tally = run_with_fault(fault, false);
        assert!(tally.caught * 2 > tally.planted, "{fault:?}: {tally:?}");
    }
}

/// A state in two hands shows only where both are used before the run ends.
#[test]
fn the_executor_alone_catches_some_freed_snapshots() {
    let tally = run_with_fault(Fault::FreedSnapshot, false);
    assert!(tally.caught * 4 > tally.planted, "{tally:?}");
}

#[test]
fn the_executor_alone_catches_most_freed_window_pages() {
    let tally = run_with_fault(Fault::FreedWindowPage, false);
    assert!(tally.caught * 2 > tally.planted, "{tally:?}");
}

#[test]
fn the_executor_catches_every_wrong_slot() {
    let mut tally = Tally::default();
    for seed in 0..NUM_SEEDS {
        let workload = Workload::new(seed);
        let mut executor = FakeExecutor::new(&workload);
        let is_planted = Rc::new(Cell::new(false));
        executor.wrong_slot = Some(Rc::clone(&is_planted));
        let simulation = Simulation::new(workload, executor);
        let outcome = catch_unwind(AssertUnwindSafe(|| simulation.run()));
        tally.planted += u64::from(is_planted.get());
        tally.caught += u64::from(is_planted.get() && outcome.is_err());
    }
    assert!(tally.planted >= 200, "{tally:?}");
    assert_eq!(tally.caught, tally.planted);
}
