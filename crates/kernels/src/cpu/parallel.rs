//! Fork and join over the cores, for kernels that take microseconds.
//!
//! A decode step calls a few hundred kernels, most of them shorter than the
//! wake-up of a sleeping thread. So workers look out for the next call for a
//! moment before they sleep, and the caller works along and never waits for a
//! worker that did not come: it closes the call when no task is left. On a busy
//! machine it then simply does all tasks itself.
//!
//! Two threads that meet in a call, on two cores of a virtual machine: 0.27 µs
//! (the worker is looking out) or 42 µs (it sleeps). With rayon's `for_each`,
//! called from outside its pool as MLX's stream thread does: 6 to 30 µs, or 60.
//! `examples/cpu_matmul.rs` measures it.

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Number of threads that kernels run on, instead of one per core.
pub const NUM_THREADS_VARIABLE: &str = "SGLANG_MLX_NUM_THREADS";

/// How long a worker looks out for the next call before it sleeps: longer than
/// what lies between two kernels of a step.
const LOOK_OUT: Duration = Duration::from_micros(100);

/// The lowest bits of [`Pool::state`]: how many workers are in the call.
const WORKERS_MASK: u64 = (1 << 31) - 1;
/// The bit of [`Pool::state`] that is set while workers may enter the call.
const OPEN: u64 = 1 << 31;
/// Where the number of the call begins in [`Pool::state`].
const NUMBER_SHIFT: u32 = 32;

thread_local! {
    /// Whether this thread is inside a call, its own or another's.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Most threads that a call runs on, the caller's included.
pub fn num_threads() -> usize {
    Pool::get().num_threads.load(Ordering::Relaxed)
}

/// Bounds the threads of all later calls, from 1 to what the pool was made with.
pub fn set_num_threads(num_threads: usize) {
    let pool = Pool::get();
    pool.num_threads.store(num_threads.clamp(1, pool.workers.len() + 1), Ordering::Relaxed);
}

/// Runs `task(0)` to `task(num_tasks - 1)`, each once, in any order, on this
/// thread and those workers that are free; returns when all are done. A call
/// from within a task, or while another thread's call runs, stays on its thread.
///
/// # Panics
/// With a task's panic, after all threads have left the call; tasks that had not
/// begun by then are left out.
pub fn parallel_for(num_tasks: usize, task: impl Fn(usize) + Sync) {
    let pool = Pool::get();
    let num_workers = pool.num_threads.load(Ordering::Relaxed).min(num_tasks).saturating_sub(1);
    if num_workers == 0 || BUSY.get() {
        return (0..num_tasks).for_each(task);
    }
    match pool.caller.try_lock() {
        Ok(_guard) => pool.call(num_workers, num_tasks, &task),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => {
            let _guard = poisoned.into_inner();
            pool.call(num_workers, num_tasks, &task);
        }
        Err(std::sync::TryLockError::WouldBlock) => (0..num_tasks).for_each(task),
    }
}

/// The call that is open.
#[derive(Clone, Copy)]
struct Job {
    /// Valid while the call is open or a worker is in it.
    task: *const (dyn Fn(usize) + Sync),
    num_tasks: usize,
    /// Workers from this index on stay out.
    num_workers: usize,
}

struct Worker {
    is_asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

struct Pool {
    /// Held by the thread whose call is open.
    caller: Mutex<()>,
    /// The call's number, whether it is open, and how many workers are in it.
    state: AtomicU64,
    /// Written by the caller between its calls, read by workers in a call.
    job: UnsafeCell<Option<Job>>,
    next_task: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    num_threads: AtomicUsize,
    workers: Vec<Worker>,
}

// SAFETY: `job` is written only by the holder of `caller` while no worker is in
// a call, and read only by workers in one; the task it points to is `Sync`.
unsafe impl Sync for Pool {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Pool {}

impl Pool {
    fn get() -> &'static Self {
        static POOL: OnceLock<&'static Pool> = OnceLock::new();
        POOL.get_or_init(|| {
            let asked = std::env::var(NUM_THREADS_VARIABLE).ok().and_then(|text| text.parse().ok());
            let cores = || thread::available_parallelism().map_or(1, usize::from);
            Self::start(asked.unwrap_or_else(cores).max(1))
        })
    }

    /// Starts the workers; they live as long as the process.
    fn start(num_threads: usize) -> &'static Self {
        let worker = |_| Worker { is_asleep: AtomicBool::new(false), thread: OnceLock::new() };
        let pool: &'static Self = Box::leak(Box::new(Self {
            caller: Mutex::new(()),
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next_task: AtomicUsize::new(0),
            panic: Mutex::new(None),
            num_threads: AtomicUsize::new(num_threads),
            workers: (1..num_threads).map(worker).collect(),
        }));
        for (index, worker) in pool.workers.iter().enumerate() {
            let name = format!("cpu-kernel-{index}");
            // Without a worker its share of the tasks falls to the others.
            if let Ok(handle) = thread::Builder::new().name(name).spawn(move || pool.work(index)) {
                worker.thread.get_or_init(|| handle.thread().clone());
            }
        }
        pool
    }

    /// Opens a call, works along, closes it. The caller holds `self.caller`.
    fn call(&self, num_workers: usize, num_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes; this function returns after all
        // workers have left the call.
        let task: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
        let job = Job { task, num_tasks, num_workers };
        // SAFETY: no call is open and no worker in one: this is the only user.
        unsafe { *self.job.get() = Some(job) };
        self.next_task.store(0, Ordering::Relaxed);
        let number = (self.state.load(Ordering::Relaxed) >> NUMBER_SHIFT).wrapping_add(1);
        self.state.store((number << NUMBER_SHIFT) | OPEN, Ordering::Release);
        self.wake(num_workers);
        self.run_tasks(job);
        self.close();
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn wake(&self, num_workers: usize) {
        // Either a worker that falls asleep sees the call, or this sees it asleep.
        fence(Ordering::SeqCst);
        for worker in &self.workers[..num_workers] {
            if worker.is_asleep.load(Ordering::Relaxed)
                && worker.is_asleep.swap(false, Ordering::Relaxed)
                && let Some(thread) = worker.thread.get()
            {
                thread.unpark();
            }
        }
    }

    fn close(&self) {
        let mut state = self.state.fetch_and(!OPEN, Ordering::Acquire);
        let mut rounds = 0_u32;
        while state & WORKERS_MASK != 0 {
            rounds += 1;
            // A worker may have lost its core to another process.
            if rounds.is_multiple_of(1024) {
                thread::yield_now();
            }
            std::hint::spin_loop();
            state = self.state.load(Ordering::Acquire);
        }
    }

    /// Takes tasks until none is left or one panics.
    fn run_tasks(&self, job: Job) {
        // SAFETY: the call is not closed, or this worker is still in it.
        let task = unsafe { &*job.task };
        BUSY.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next_task.fetch_add(1, Ordering::Relaxed);
                if index >= job.num_tasks {
                    break;
                }
                task(index);
            }
        }));
        BUSY.set(false);
        if let Err(panic) = result {
            self.next_task.store(job.num_tasks, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            let state = self.wait(index, seen);
            seen = state >> NUMBER_SHIFT;
            if self.enter(state) {
                // SAFETY: in a call, nobody writes the job.
                let job = unsafe { *self.job.get() };
                if let Some(job) = job.filter(|job| index < job.num_workers) {
                    self.run_tasks(job);
                }
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Waits for an open call with another number than `seen`.
    fn wait(&self, index: usize, seen: u64) -> u64 {
        let is_new = |state: u64| state & OPEN != 0 && state >> NUMBER_SHIFT != seen;
        let mut asleep_at = None;
        let mut rounds = 0_u32;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if is_new(state) {
                return state;
            }
            std::hint::spin_loop();
            rounds += 1;
            if rounds.is_multiple_of(32) {
                let now = Instant::now();
                if now > *asleep_at.get_or_insert(now + LOOK_OUT) {
                    self.sleep(index, is_new);
                    asleep_at = None;
                }
            }
        }
    }

    fn sleep(&self, index: usize, is_new: impl Fn(u64) -> bool) {
        let is_asleep = &self.workers[index].is_asleep;
        is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while is_asleep.load(Ordering::Relaxed) && !is_new(self.state.load(Ordering::Relaxed)) {
            thread::park();
        }
        is_asleep.store(false, Ordering::Relaxed);
    }

    /// Whether the call of this state was still open and has one worker more now.
    fn enter(&self, mut state: u64) -> bool {
        let number = state >> NUMBER_SHIFT;
        while state & OPEN != 0 && state >> NUMBER_SHIFT == number {
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(current) => state = current,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
