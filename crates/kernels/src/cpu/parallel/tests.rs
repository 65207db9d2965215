//! Every task runs once, whoever calls, and panics come back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{Pool, parallel_for};

fn counters(len: usize) -> Vec<AtomicUsize> {
    (0..len).map(|_| AtomicUsize::new(0)).collect()
}

fn values(counters: &[AtomicUsize]) -> Vec<usize> {
    counters.iter().map(|counter| counter.load(Ordering::Relaxed)).collect()
}

#[test]
fn every_task_runs_once_in_thousands_of_calls() {
    for call in 0..5000 {
        let num_tasks = call % 37;
        let counts = counters(num_tasks);
        parallel_for(num_tasks, |task| {
            counts[task].fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(values(&counts), vec![1; num_tasks]);
    }
}

#[test]
fn more_workers_than_cores_do() {
    let pool = Pool::start(9);
    for call in 0..500 {
        let counts = counters(call % 50 + 1);
        pool.call(8, counts.len(), &|task| {
            counts[task].fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(values(&counts), vec![1; counts.len()]);
    }
}

#[test]
fn calls_within_calls_and_from_many_threads() {
    let counts = counters(64);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    parallel_for(8, |outer| {
                        parallel_for(8, |inner| {
                            counts[outer * 8 + inner].fetch_add(1, Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(values(&counts), vec![800; 64]);
}

#[test]
fn a_panic_reaches_the_caller_and_later_calls_work() {
    let pool = Pool::start(3);
    for bad in [0, 7, 15] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.call(2, 16, &|task| assert_ne!(task, bad, "task {task}"));
        }));
        let panic = result.expect_err("a task panics");
        let text = panic.downcast_ref::<String>().expect("a formatted message");
        assert!(text.contains(&format!("task {bad}")), "{text}");
        let counts = counters(16);
        pool.call(2, 16, &|task| {
            counts[task].fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(values(&counts), vec![1; 16]);
    }
}

#[test]
fn workers_take_part() {
    let pool = Pool::start(2);
    // The first two tasks wait for each other: one thread alone would hang.
    let barrier = std::sync::Barrier::new(2);
    for _ in 0..100 {
        pool.call(1, 2, &|_| {
            barrier.wait();
        });
    }
}
