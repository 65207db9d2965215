//! Fork and join over all cores, for loops of tens of microseconds.
//!
//! A decode step of a small model is some 270 such loops, so handing one over
//! must cost about a microsecond. Workers therefore spin for a moment after
//! their last loop, then park: an idle engine costs nothing, and a busy one does
//! not go through the kernel. A worker that wakes up late finds the loop closed
//! and is not waited for.
//!
//! One loop runs at a time; a second caller, or a loop inside a loop, runs on
//! its own thread.

#![expect(unsafe_code, reason = "workers borrow the caller's closure while it waits for them")]

use std::{
    any::Any,
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long a worker waits awake for the next loop.
const SPIN: Duration = Duration::from_micros(100);

/// The gate is open: workers may enter the loop.
const OPEN: usize = 1 << 16;
/// Number of workers inside.
const INSIDE: usize = OPEN - 1;
/// Loops are counted above the flag.
const NEXT_LOOP: usize = OPEN << 1;

type Task = dyn Fn(usize) + Sync;

struct Pool {
    workers: Vec<Worker>,
    shared: &'static Shared,
}

struct Worker {
    thread: Thread,
    is_parked: &'static AtomicBool,
}

#[derive(Default)]
struct Shared {
    caller: Mutex<()>,
    /// Loop number, [`OPEN`], [`INSIDE`].
    gate: AtomicUsize,
    /// Set by the caller before the gate opens, read by workers inside.
    job: UnsafeCell<Option<Job>>,
    next_task: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Job {
    task: *const Task,
    num_tasks: usize,
}

// SAFETY: `job` is written only while the gate is closed and nobody is inside,
// and read only by those inside; everything else synchronises itself.
unsafe impl Sync for Shared {}

/// Threads that share a loop, the caller's included.
pub fn num_threads() -> usize {
    pool().workers.len() + 1
}

/// Runs `task(0)`, ... `task(num_tasks - 1)`, spread over the cores.
///
/// # Panics
/// With what a task panicked with, after all have ended.
pub fn parallel_for(num_tasks: usize, task: impl Fn(usize) + Sync) {
    let serial = || (0..num_tasks).for_each(&task);
    if num_tasks <= 1 {
        return serial();
    }
    let pool = pool();
    let shared = pool.shared;
    let Ok(caller) = shared.caller.try_lock() else { return serial() };
    if pool.workers.is_empty() {
        return serial();
    }
    let task: &(dyn Fn(usize) + Sync) = &task;
    // SAFETY: only the lifetime changes; the gate is closed and everybody has
    // left before this function returns.
    let task: *const Task = unsafe { std::mem::transmute(std::ptr::from_ref(task)) };
    let job = Job { task, num_tasks };
    // SAFETY: the gate is closed, nobody is inside, and this is the only caller.
    unsafe { *shared.job.get() = Some(job) };
    shared.next_task.store(0, Ordering::Relaxed);
    shared.gate.fetch_add(NEXT_LOOP + OPEN, Ordering::SeqCst);
    for worker in pool.workers.iter().take(num_tasks - 1) {
        if worker.is_parked.swap(false, Ordering::SeqCst) {
            worker.thread.unpark();
        }
    }
    shared.work(job);
    shared.gate.fetch_and(!OPEN, Ordering::SeqCst);
    while shared.gate.load(Ordering::Acquire) & INSIDE != 0 {
        std::hint::spin_loop();
    }
    let panic = shared.panic.lock().unwrap_or_else(|poison| poison.into_inner()).take();
    drop(caller);
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

impl Shared {
    /// Takes tasks until there are none.
    fn work(&self, job: Job) {
        loop {
            let index = self.next_task.fetch_add(1, Ordering::Relaxed);
            if index >= job.num_tasks {
                return;
            }
            // SAFETY: the caller waits for everybody inside.
            let task = unsafe { &*job.task };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(index))) {
                *self.panic.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(panic);
            }
        }
    }

    /// Waits for the next open loop and enters it.
    fn enter(&self, is_parked: &AtomicBool, last_loop: &mut usize) -> Job {
        let mut since = Instant::now();
        let mut spins = 0_u32;
        loop {
            let gate = self.gate.load(Ordering::SeqCst);
            if gate & OPEN != 0 && gate / NEXT_LOOP != *last_loop {
                let entered =
                    self.gate.compare_exchange(gate, gate + 1, Ordering::SeqCst, Ordering::SeqCst);
                if entered.is_ok() {
                    *last_loop = gate / NEXT_LOOP;
                    // SAFETY: inside, where `job` is not written.
                    return unsafe { *self.job.get() }.expect("set before the gate opened");
                }
                continue;
            }
            std::hint::spin_loop();
            spins += 1;
            if spins.is_multiple_of(64) && since.elapsed() > SPIN {
                is_parked.store(true, Ordering::SeqCst);
                let gate = self.gate.load(Ordering::SeqCst);
                if gate & OPEN == 0 || gate / NEXT_LOOP == *last_loop {
                    thread::park();
                }
                is_parked.store(false, Ordering::SeqCst);
                since = Instant::now();
            }
        }
    }
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shared: &'static Shared = Box::leak(Box::default());
        let workers = (1..cores).filter_map(|index| {
            let is_parked: &'static AtomicBool = Box::leak(Box::default());
            let name = format!("cpu-kernel-{index}");
            let body = move || {
                let mut last_loop = 0;
                loop {
                    let job = shared.enter(is_parked, &mut last_loop);
                    shared.work(job);
                    shared.gate.fetch_sub(1, Ordering::Release);
                }
            };
            // Fewer workers than cores is slower, not wrong.
            let handle = thread::Builder::new().name(name).spawn(body).ok()?;
            Some(Worker { thread: handle.thread().clone(), is_parked })
        });
        Pool { workers: workers.collect(), shared }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for round in 0..2000 {
            let num_tasks = round % 17;
            let counts: Vec<AtomicUsize> = (0..num_tasks).map(|_| AtomicUsize::new(0)).collect();
            parallel_for(num_tasks, |task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn callers_at_once_and_loops_in_loops() {
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        parallel_for(5, |_| {
                            parallel_for(3, |_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 200 * 15);
    }

    #[test]
    fn a_panic_comes_back_and_the_pool_lives_on() {
        for culprit in 0..4 {
            let run = || parallel_for(4, |task| assert!(task != culprit, "task {task}"));
            let panic = catch_unwind(run).unwrap_err();
            assert_eq!(*panic.downcast::<String>().unwrap(), format!("task {culprit}"));
        }
        let done = AtomicUsize::new(0);
        parallel_for(8, |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 8);
    }

    #[test]
    fn parked_workers_wake() {
        // Other tests may have the pool; then a loop runs on its caller alone.
        let spread = (0..100).any(|_| {
            thread::sleep(SPIN * 20);
            let ids = Mutex::new(std::collections::HashSet::new());
            parallel_for(num_threads() * 4, |_| {
                thread::sleep(Duration::from_millis(2));
                ids.lock().unwrap().insert(thread::current().id());
            });
            ids.into_inner().unwrap().len() == num_threads()
        });
        assert!(spread);
    }
}
