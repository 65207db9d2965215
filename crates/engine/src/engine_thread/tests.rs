//! The loop over a device that counts: the token after `x` is `x + 1`.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

use mem_cache::PageTables;
use scheduler::{BatchOutput, InputId, ScheduleBatch, SchedulerLimits};
use tokio::sync::oneshot;
use types::{EngineHandle, ModelInfo, SamplingParams, SchedulerStats, SubmitError, TokenId};

use super::*;

/// Launches wait for a permit, so that tests decide when a step happens.
struct CountingDevice {
    permits: Receiver<Permit>,
    last: Vec<TokenId>,
    num_resets: usize,
    launched: Option<LaunchedBatch>,
    read: Option<ForwardMode>,
    clock: StageClock,
}

enum Permit {
    Step,
    Fail,
    Panic,
}

impl Executor for CountingDevice {
    type Handle = (Vec<TokenId>, ForwardMode);
    type Error = String;

    fn launch(&mut self, batch: &ScheduleBatch, _: &PageTables) -> Result<Self::Handle, String> {
        match self.permits.recv() {
            Ok(Permit::Fail) => return Err("out of device memory".to_owned()),
            Ok(Permit::Panic) => panic!("a planted bug"),
            // No sender: as many steps as it takes.
            Ok(Permit::Step) | Err(_) => (),
        }
        let mut end = 0;
        let mut sampled = Vec::new();
        for row in &batch.rows {
            end += row.extend_len;
            if row.sampled {
                sampled.push(
                    1 + match batch.input_ids[end - 1] {
                        InputId::Host(id) => id,
                        InputId::Previous { row } => self.last[row],
                    },
                );
            }
        }
        self.last.clone_from(&sampled);
        self.launched = Some(batch.into());
        Ok((sampled, batch.mode))
    }

    fn wait(&mut self, (sampled, mode): Self::Handle) -> Result<BatchOutput, String> {
        self.read = Some(mode);
        Ok(sampled.into())
    }
}

impl Device for CountingDevice {
    fn reset(&mut self) -> Result<(), String> {
        self.num_resets += 1;
        Ok(())
    }

    fn memory(&self) -> EngineState {
        EngineState { weight_bytes: self.num_resets, ..Default::default() }
    }

    fn take_launched(&mut self) -> Option<LaunchedBatch> {
        self.launched.take()
    }

    fn take_read(&mut self) -> Option<ForwardMode> {
        self.read.take()
    }

    fn clock(&mut self) -> &mut StageClock {
        &mut self.clock
    }

    fn runs_on_submit(&self) -> bool {
        true
    }
}

struct Bench {
    handle: EngineHandle,
    permits: Sender<Permit>,
    thread: JoinHandle<Result<(), EngineError>>,
}

fn start() -> Bench {
    start_with(false)
}

fn start_with(profile: bool) -> Bench {
    let (permits, receiver) = channel();
    let (sender, inbox) = mpsc::channel(64);
    let status = StatusCell::default();
    let cell = status.clone();
    let thread = std::thread::spawn(move || {
        let device = CountingDevice {
            permits: receiver,
            last: Vec::new(),
            num_resets: 0,
            launched: None,
            read: None,
            clock: StageClock::new(),
        };
        let scheduler = Scheduler::new(device, SchedulerLimits::default()).unwrap();
        let (log, clock) = (StepLog::new(1), StepClock::default());
        let options = ThreadOptions { inbox, status: cell, random_seed: 1, log, clock, profile };
        EngineThread::new(scheduler, options).run()
    });
    status.set(EngineStatus::Running);
    Bench { handle: EngineHandle::new(sender, status, ModelInfo::default()), permits, thread }
}

impl Bench {
    fn generate(&self, rid: &str, first: TokenId, n: usize) -> mpsc::UnboundedReceiver<ReqEvent> {
        let (events, receiver) = mpsc::unbounded_channel();
        let req = GenerateReq {
            rid: Rid::new(rid),
            input_ids: vec![first],
            sampling_params: SamplingParams {
                max_new_tokens: Some(n),
                temperature: 0.0,
                ..Default::default()
            },
            eos_token_ids: Vec::new(),
            logprobs: None,
            pooling: None,
            priority: None,
        };
        self.handle.submit(EngineMsg::Generate { req: Box::new(req), events }).unwrap();
        receiver
    }

    fn state(&self) -> EngineState {
        let (reply, answer) = oneshot::channel();
        self.handle.submit(EngineMsg::GetState(reply)).unwrap();
        answer.blocking_recv().unwrap()
    }

    fn drain(self) -> Result<(), EngineError> {
        drop(self.permits);
        self.handle.submit(EngineMsg::Drain).unwrap();
        self.thread.join().unwrap()
    }
}

/// All tokens and the end of a stream.
fn collect(mut events: mpsc::UnboundedReceiver<ReqEvent>) -> (Vec<TokenId>, FinishReason) {
    let mut tokens = Vec::new();
    while let Some(event) = events.blocking_recv() {
        tokens.extend(event.token_ids);
        if let Some(reason) = event.finish_reason {
            return (tokens, reason);
        }
    }
    panic!("the stream ended without a reason");
}

fn status_code(reason: &FinishReason) -> u16 {
    match reason {
        FinishReason::Abort { status_code, .. } => *status_code,
        other => panic!("not an abort: {other:?}"),
    }
}

#[test]
fn streams_get_their_own_tokens() {
    let bench = start();
    let a = bench.generate("a", 10, 4);
    let b = bench.generate("b", 20, 2);
    for _ in 0..8 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(collect(a), (vec![11, 12, 13, 14], FinishReason::Length { length: 4 }));
    assert_eq!(collect(b), (vec![21, 22], FinishReason::Length { length: 2 }));
    bench.drain().unwrap();
}

#[test]
fn a_dropped_receiver_aborts_running_and_waiting_requests() {
    let bench = start();
    let mut gone = bench.generate("gone", 10, 1000);
    let stays = bench.generate("stays", 20, 1000);
    bench.permits.send(Permit::Step).unwrap();
    bench.permits.send(Permit::Step).unwrap();
    gone.blocking_recv().unwrap();
    drop(gone);
    drop(bench.generate("never-ran", 30, 1000));
    // The loop is held in a launch, before or after it has noticed.
    let mut stats = SchedulerStats::default();
    for _ in 0..10 {
        let (reply, answer) = oneshot::channel();
        bench.handle.submit(EngineMsg::GetState(reply)).unwrap();
        bench.permits.send(Permit::Step).unwrap();
        stats = answer.blocking_recv().unwrap().scheduler;
    }
    assert_eq!((stats.num_running_reqs, stats.num_waiting_reqs), (1, 0));
    assert_eq!(stats.num_aborted_reqs, 2);
    drop(stays);
    bench.drain().unwrap();
}

#[test]
fn a_drain_finishes_what_is_live_and_refuses_the_rest() {
    let bench = start();
    let live = bench.generate("live", 10, 3);
    bench.handle.submit(EngineMsg::Drain).unwrap();
    let late = bench.generate("late", 20, 3);
    let Bench { handle, permits, thread } = bench;
    drop(permits);
    assert_eq!(collect(live).0, [11, 12, 13]);
    assert_eq!(status_code(&collect(late).1), 503);
    thread.join().unwrap().unwrap();
    assert_eq!(handle.status(), EngineStatus::Stopped);
    assert_eq!(handle.submit(EngineMsg::Drain), Err(SubmitError::Closed));
}

#[test]
fn a_failed_step_ends_its_requests_and_the_engine_goes_on() {
    let bench = start();
    let failed = bench.generate("failed", 10, 3);
    bench.permits.send(Permit::Step).unwrap();
    bench.permits.send(Permit::Fail).unwrap();
    let (_, reason) = collect(failed);
    assert_eq!(status_code(&reason), 500);
    assert_eq!(bench.state().weight_bytes, 1, "the device was reset once");

    let next = bench.generate("next", 20, 2);
    for _ in 0..3 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(collect(next).0, [21, 22]);
    bench.drain().unwrap();
}

#[test]
fn a_device_that_always_fails_ends_the_engine() {
    let bench = start();
    for attempt in 0..MAX_FAILURES_IN_A_ROW {
        let events = bench.generate(&attempt.to_string(), 10, 3);
        bench.permits.send(Permit::Fail).unwrap();
        assert_eq!(status_code(&collect(events).1), 500);
    }
    let error = bench.thread.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the device fails every step: out of device memory");
    assert_eq!(bench.handle.status(), EngineStatus::Failed);
}

#[test]
fn a_panic_ends_every_stream_and_the_engine() {
    let bench = start();
    let events = bench.generate("a", 10, 3);
    bench.permits.send(Permit::Panic).unwrap();
    assert_eq!(status_code(&collect(events).1), 500);
    let error = bench.thread.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the engine thread panicked: a planted bug");
    assert_eq!(bench.handle.status(), EngineStatus::Failed);
}

#[test]
fn a_live_rid_is_not_taken_twice() {
    let bench = start();
    let first = bench.generate("a", 10, 2);
    let second = bench.generate("a", 20, 2);
    for _ in 0..4 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(status_code(&collect(second).1), 400);
    assert_eq!(collect(first).0, [11, 12]);
    bench.drain().unwrap();
}

#[test]
fn control_messages_are_answered() {
    let bench = start();
    let (reply, answer) = oneshot::channel();
    bench.handle.submit(EngineMsg::FlushCache(reply)).unwrap();
    assert!(answer.blocking_recv().unwrap(), "nothing is live");

    let live = bench.generate("live", 10, 500);
    bench.handle.submit(EngineMsg::Abort { rid: None }).unwrap();
    drop(bench.permits);
    let (_, reason) = collect(live);
    assert_eq!(reason, FinishReason::aborted());
    bench.handle.submit(EngineMsg::Drain).unwrap();
    bench.thread.join().unwrap().unwrap();
}

#[test]
fn a_profile_counts_the_steps_of_each_kind() {
    let bench = start_with(true);
    for _ in 0..4 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(collect(bench.generate("a", 10, 4)).0, [11, 12, 13, 14]);
    let profile = bench.state().profile.unwrap();
    assert_eq!((profile.prefill.num_steps, profile.decode.num_steps), (1, 3));
    for of_kind in [profile.prefill, profile.decode] {
        // This device marks no stage: all the time lies before the last mark.
        assert!(of_kind.runs_on_submit);
        assert_eq!(of_kind.times.total(), of_kind.times.of(Stage::Publish));
        assert!(!of_kind.times.total().is_zero() && of_kind.device().is_zero());
    }
    bench.drain().unwrap();
}

#[test]
fn there_is_no_profile_unless_asked_for() {
    let bench = start();
    bench.permits.send(Permit::Step).unwrap();
    assert_eq!(collect(bench.generate("a", 10, 1)).0, [11]);
    assert_eq!(bench.state().profile, None);
    bench.drain().unwrap();
}
