//! The scheduler against a device that notices everything.
//!
//! A seed gives a configuration and a workload: arrivals with shared prefixes,
//! aborts, flushes, bad requests, pools of a few pages. The [`FakeExecutor`]
//! reads every page table back in every step; `audit` runs after each; and the
//! completions must be those that each request would get alone, computed
//! without any scheduler. A failing seed prints the line that replays it.

mod failing_grammar;
mod fake_executor;
mod fake_grammar;
mod mixed;
mod mutations;
mod oracle;
mod queues;
mod run;
mod scenarios;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::{
    fake_executor::FakeExecutor,
    run::{Coverage, Simulation},
    workload::Workload,
};

/// Seeds in all; four tests share them, so that cores do.
const NUM_SEEDS: u64 = 20_000;

fn run_seed(seed: u64) -> Coverage {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let workload = Workload::new(seed);
        let executor = FakeExecutor::new(&workload);
        Simulation::new(workload, executor).run()
    }));
    match result {
        Ok(Ok(coverage)) => coverage,
        Ok(Err(message)) => panic!("{message}\nreplay: {}", replay(seed)),
        Err(payload) => {
            eprintln!("replay: {}", replay(seed));
            std::panic::resume_unwind(payload)
        }
    }
}

fn replay(seed: u64) -> String {
    format!("SIM_SEED={seed} cargo test -p scheduler sim::replay_one -- --nocapture")
}

/// Runs a quarter of the seeds and checks that they went where bugs live.
fn run_quarter(quarter: u64) {
    let mut total = Coverage::default();
    for seed in (quarter..NUM_SEEDS).step_by(4) {
        total.add(&run_seed(seed));
    }
    let floor = Coverage {
        finished: 10_000,
        stopped: 2_000,
        aborted: 500,
        refused: 500,
        filled_pool: 50,
        retractions: 1_000,
        cached_tokens: 20_000,
        evicted_tokens: 20_000,
        dropped_tokens: 500,
        flushes: 200,
        suppressed: 500,
        prefill_only: 200,
        snapshots_read: 1_000,
        past_window: 400,
        full_windows: 1_000,
        input_logprobs: 5_000,
        pending_penalties: 2_000,
        masked: 5_000,
        pooled: 100,
        preemptions: 300,
        turned_away: 500,
        riders: 2_000,
    };
    assert!(total.reaches(&floor), "too tame: {total:?}");
}

#[test]
fn seeds_first_quarter() {
    run_quarter(0);
}

#[test]
fn seeds_second_quarter() {
    run_quarter(1);
}

#[test]
fn seeds_third_quarter() {
    run_quarter(2);
}

#[test]
fn seeds_last_quarter() {
    run_quarter(3);
}

/// Runs the seed in `SIM_SEED`, or the first.
#[test]
fn replay_one() {
    let seed = std::env::var("SIM_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    let workload = Workload::new(seed);
    eprintln!("{workload:#?}");
    eprintln!("{:#?}", run_seed(seed));
}
