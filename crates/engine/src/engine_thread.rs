//! The loop of the thread that owns MLX and the scheduler: take messages, step,
//! hand out what came back.
//!
//! It blocks only while there is nothing to do, so an idle engine costs nothing.
//! A client that left is noticed before each step, whether its request runs or
//! waits. A step that fails ends the requests that were live, not the process;
//! failures in a row, and panics, end the thread, and every stream hears of it.
//!
//! Upstream: `event_loop_overlap` in `sglang/srt/managers/scheduler.py`.

mod control;
mod held;

use std::{
    collections::VecDeque,
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use rustc_hash::FxHashMap;
use scheduler::{Executor, ForwardMode, Progress, Scheduler, SchedulerEvent, SchedulerMsg};
use tokio::sync::mpsc;
use types::{
    EngineMsg, EngineState, EngineStatus, FinishReason, GenerateReq, Reply, ReqCounts, ReqEvent,
    Rid, Stage, StatusCell, WeightUpdate, splitmix64,
};

use self::control::Control;
use crate::{
    EngineError, StepClock,
    memory_guard::Pressure,
    pace::Pace,
    profiler::{Pass, Profiler},
    stage_clock::StageClock,
    step_log::{LaunchedBatch, StepLog},
};

/// Steps that may fail one after the other before the device is given up.
const MAX_FAILURES_IN_A_ROW: usize = 3;
/// For whoever comes while the engine drains.
const SHUTTING_DOWN: &str = "The server is shutting down.";

/// What the loop needs of an executor besides running batches.
pub(crate) trait Device: Executor<Error: Display> {
    /// Back to a known state after a step has failed; cached K/V is gone.
    fn reset(&mut self) -> Result<(), Self::Error>;
    /// Runs other weights from now on; with an error, the old ones as before. For a device
    /// that nothing runs on.
    fn update_weights(&mut self, update: &WeightUpdate) -> Result<(), String>;
    /// How short memory is.
    fn pressure(&self) -> Pressure;
    /// Gives back what is kept for later.
    fn release_cache(&mut self);
    /// Memory figures for `GetState`; the loop fills in the rest.
    fn memory(&self) -> EngineState;
    /// The batch launched by the last step, once.
    fn take_launched(&mut self) -> Option<LaunchedBatch>;
    /// What kind of batch the last step read, once.
    fn take_read(&mut self) -> Option<ForwardMode>;
    /// Times of a step's stages, for whoever restarts it before each step.
    fn clock(&mut self) -> &mut StageClock;
    /// Whether handing a batch over runs much of it.
    fn runs_on_submit(&self) -> bool;
}

/// Everything the loop owns.
pub(crate) struct EngineThread<D: Device> {
    scheduler: Scheduler<D>,
    inbox: mpsc::Receiver<EngineMsg>,
    status: StatusCell,
    streams: FxHashMap<Rid, mpsc::UnboundedSender<ReqEvent>>,
    flushes: VecDeque<Reply<bool>>,
    /// For the scheduler, in the order they came.
    queue: Vec<SchedulerMsg>,
    events: Vec<SchedulerEvent>,
    draining: bool,
    /// State of the generator of seeds, for requests that bring none.
    seed: u64,
    log: StepLog,
    clock: StepClock,
    /// Where the scheduler's time begins.
    started: Instant,
    profiler: Option<Profiler>,
    pace: Pace,
    control: Control,
    /// Run after each step.
    audit: Option<Audit<D>>,
}

/// Says what is wrong with the bookkeeping.
type Audit<D> = fn(&Scheduler<D>) -> Result<(), String>;

/// What the loop is told at its start.
pub(crate) struct ThreadOptions {
    pub(crate) inbox: mpsc::Receiver<EngineMsg>,
    pub(crate) status: StatusCell,
    pub(crate) random_seed: u64,
    pub(crate) log: StepLog,
    pub(crate) clock: StepClock,
    /// Measure where the time of steps goes.
    pub(crate) profile: bool,
}

impl<D: Device> EngineThread<D> {
    pub(crate) fn new(scheduler: Scheduler<D>, options: ThreadOptions) -> Self {
        Self {
            scheduler,
            inbox: options.inbox,
            status: options.status,
            streams: FxHashMap::default(),
            flushes: VecDeque::new(),
            queue: Vec::new(),
            events: Vec::new(),
            draining: false,
            seed: options.random_seed,
            log: options.log,
            clock: options.clock,
            started: Instant::now(),
            profiler: options.profile.then(|| Profiler::new(Instant::now())),
            pace: Pace::default(),
            control: Control::default(),
            audit: None,
        }
    }

    /// Runs `audit` after each step; what it finds ends the engine.
    pub(crate) fn audit_with(&mut self, audit: Audit<D>) {
        self.audit = Some(audit);
    }

    /// Runs until drained, until every handle is gone, or until it fails.
    pub(crate) fn run(mut self) -> Result<(), EngineError> {
        let result = catch_unwind(AssertUnwindSafe(|| self.serve())).unwrap_or_else(|panic| {
            Err(EngineError::Panic { message: panic_message(panic.as_ref()) })
        });
        match &result {
            Ok(()) => self.status.set(EngineStatus::Stopped),
            Err(error) => {
                tracing::error!("the engine has failed: {error}");
                self.status.set(EngineStatus::Failed);
                self.end_streams(&FinishReason::internal_error(error.to_string()));
            }
        }
        self.inbox.close();
        if let Some(tables) = self.profiler.as_mut().and_then(|p| p.tables(Instant::now())) {
            tracing::info!("{tables}");
        }
        result
    }

    fn serve(&mut self) -> Result<(), EngineError> {
        let mut progress = Progress::Idle;
        let mut failures = 0;
        loop {
            if !self.receive(progress) {
                return Ok(());
            }
            self.begin_pass();
            self.guard_memory();
            self.abort_deserted();
            match self.step() {
                Ok(after) => {
                    progress = after;
                    failures = 0;
                }
                Err(message) => {
                    failures += 1;
                    self.recover(&message, failures)?;
                    progress = Progress::Idle;
                }
            }
            self.publish();
            self.settle_pauses();
            self.settle_update(progress);
            self.end_pass(progress);
            if let Some(audit) = self.audit {
                audit(&self.scheduler).map_err(|problem| EngineError::Audit { problem })?;
            }
        }
    }

    /// Takes all messages that are there; waits for one if there is no work.
    /// False if there is none and will be none.
    fn receive(&mut self, progress: Progress) -> bool {
        if !self.awaits_update() {
            self.release_held();
        }
        if progress == Progress::Idle && self.queue.is_empty() {
            if self.draining {
                return false;
            }
            self.log.idle();
            match self.inbox.blocking_recv() {
                Some(msg) => self.take(msg),
                None => return false,
            }
        }
        while let Ok(msg) = self.inbox.try_recv() {
            self.take(msg);
        }
        true
    }

    fn take(&mut self, msg: EngineMsg) {
        match msg {
            EngineMsg::Generate { req, events } => match self.awaits_update() {
                true => self.hold(req, events),
                false => self.take_request(req, events),
            },
            EngineMsg::Abort { rid } => {
                self.end_held(rid.as_ref(), &FinishReason::aborted());
                self.queue.push(rid.map_or(SchedulerMsg::AbortAll, SchedulerMsg::Abort));
            }
            EngineMsg::FlushCache(reply) => {
                self.flushes.push_back(reply);
                self.queue.push(SchedulerMsg::FlushCache);
            }
            EngineMsg::GetState(reply) => {
                // Nobody waits for an answer any more: nothing to do about it.
                let _ = reply.send(self.state());
            }
            EngineMsg::Control(msg) => self.control(msg),
            EngineMsg::Drain => {
                self.resume();
                self.draining = true;
                self.status.set(EngineStatus::Draining);
                self.cancel_update();
            }
        }
    }

    fn take_request(&mut self, mut req: Box<GenerateReq>, events: mpsc::UnboundedSender<ReqEvent>) {
        if self.draining {
            return send_end(&events, FinishReason::unavailable(SHUTTING_DOWN));
        }
        match self.streams.get(&req.rid) {
            // Its abort comes with the next step.
            Some(earlier) if earlier.is_closed() => return self.hold_for_name(req, events),
            Some(_) => {
                let message = format!("Duplicate request ID detected: {}", req.rid);
                return send_end(&events, FinishReason::bad_request(message));
            }
            None => {}
        }
        if req.sampling_params.sampling_seed.is_none() {
            self.seed = splitmix64(self.seed);
            req.sampling_params.sampling_seed = Some(self.seed);
        }
        self.streams.insert(req.rid.clone(), events);
        self.queue.push(SchedulerMsg::Generate(req));
    }

    /// Aborts the requests whose clients have left.
    fn abort_deserted(&mut self) {
        self.forget_deserted();
        let queue = &mut self.queue;
        self.streams.retain(|rid, events| {
            let deserted = events.is_closed();
            if deserted {
                queue.push(SchedulerMsg::Abort(rid.clone()));
            }
            !deserted
        });
    }

    fn step(&mut self) -> Result<Progress, String> {
        self.clock.begin();
        let time = SchedulerMsg::Time(self.started.elapsed());
        let inbox = std::iter::once(time).chain(self.queue.drain(..));
        let result = self.scheduler.step(inbox, &mut self.events);
        self.clock.end();
        result.map_err(|error| error.to_string())
    }

    fn publish(&mut self) {
        for event in self.events.drain(..) {
            match event {
                SchedulerEvent::Req { rid, event } => {
                    let last = event.finish_reason.is_some();
                    let Some(events) = self.streams.get(&rid) else { continue };
                    // A client that left is noticed before the next step.
                    let _ = events.send(event);
                    if last {
                        self.streams.remove(&rid);
                    }
                }
                SchedulerEvent::Refused { rid, reason } => {
                    if let Some(events) = self.streams.remove(&rid) {
                        send_end(&events, reason);
                    }
                }
                SchedulerEvent::CacheFlushed { ok } => {
                    if let Some(reply) = self.flushes.pop_front() {
                        let _ = reply.send(ok);
                    }
                }
            }
        }
    }

    /// Ends what was live and starts over with an empty cache: the pool's
    /// contents are unknown after a failed step.
    fn recover(&mut self, message: &str, failures: usize) -> Result<(), EngineError> {
        tracing::error!("a step has failed ({failures} in a row): {message}");
        self.scheduler.fail_all(message, &mut self.events);
        if failures >= MAX_FAILURES_IN_A_ROW {
            self.publish();
            return Err(EngineError::Device { message: message.to_owned() });
        }
        let reset = self.scheduler.executor_mut().reset();
        reset.map_err(|error| EngineError::Device { message: error.to_string() })
    }

    fn end_streams(&mut self, reason: &FinishReason) {
        self.end_held(None, reason);
        for (_, events) in self.streams.drain() {
            send_end(&events, reason.clone());
        }
    }

    fn begin_pass(&mut self) {
        let device = self.scheduler.executor_mut();
        device.take_read();
        if self.profiler.is_some() {
            device.clock().restart();
        }
    }

    fn end_pass(&mut self, progress: Progress) {
        let device = self.scheduler.executor_mut();
        let (launched, read) = (device.take_launched(), device.take_read());
        let mode = launched.as_ref().map(LaunchedBatch::mode);
        if read.is_some() {
            self.status.add_batch();
        }
        if let Some(profiler) = &mut self.profiler {
            device.clock().mark(Stage::Publish);
            let pass = Pass { launched: mode, read };
            profiler.add(&device.clock().times(), pass, device.runs_on_submit());
            if let Some(tables) = profiler.due(Instant::now()) {
                tracing::info!("{tables}");
            }
        }
        if let Some(count) = self.pace.pass(mode, read, Instant::now()) {
            self.scheduler.set_decodes_per_piece(count);
        }
        if progress == Progress::Idle {
            self.pace.idle();
        }
        if let Some(batch) = launched {
            self.log.after_step(&batch, &self.scheduler.stats());
            self.after_launch();
        }
    }

    fn state(&self) -> EngineState {
        EngineState {
            scheduler: self.scheduler.stats(),
            last_gen_throughput: self.log.last_gen_throughput(),
            profile: self.profiler.as_ref().map(Profiler::profiles),
            ..self.scheduler.executor().memory()
        }
    }
}

fn send_end(events: &mpsc::UnboundedSender<ReqEvent>, reason: FinishReason) {
    let end = ReqEvent {
        token_ids: Vec::new(),
        counts: ReqCounts::default(),
        finish_reason: Some(reason),
        logprobs: None,
        pooled: None,
    };
    let _ = events.send(end);
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests;
