//! The loop over a device that counts: the token after `x` is `x + 1`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use mem_cache::PageTables;
use scheduler::{BatchOutput, InputId, QueueRules, RowMask, ScheduleBatch, SchedulerLimits};
use tokio::sync::oneshot;
use types::{
    ControlMsg, EngineHandle, ModelInfo, PauseMode, SamplingParams, SchedulerStats, StepProfiles,
    SubmitError, TokenId, WeightUpdate,
};

use super::*;

/// Launches wait for a permit, so that tests decide when a step happens.
struct CountingDevice {
    permits: Receiver<Permit>,
    last: Vec<TokenId>,
    num_resets: usize,
    /// How far the next token is: what its weights say.
    stride: TokenId,
    is_short: Arc<AtomicBool>,
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
                    self.stride
                        + match batch.input_ids[end - 1] {
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

    fn sample(
        &mut self,
        _: &mut Self::Handle,
        _: &ScheduleBatch,
        _: &[RowMask],
    ) -> Result<(), String> {
        unreachable!("no request follows a grammar")
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

    fn update_weights(&mut self, update: &WeightUpdate) -> Result<(), String> {
        self.stride = update.model_path.parse().map_err(|_| "no such weights".to_owned())?;
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        if self.is_short.load(Ordering::Relaxed) { Pressure::Critical } else { Pressure::Normal }
    }

    fn release_cache(&mut self) {}

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
    is_short: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), EngineError>>,
}

fn start() -> Bench {
    start_with(false, Scheduler::audit)
}

fn start_with(profile: bool, audit: Audit<CountingDevice>) -> Bench {
    start_limited(profile, audit, None)
}

/// So many requests may wait.
fn start_limited(
    profile: bool,
    audit: Audit<CountingDevice>,
    max_queued_requests: Option<usize>,
) -> Bench {
    let (permits, receiver) = channel();
    let (sender, inbox) = mpsc::channel(64);
    let status = StatusCell::default();
    let cell = status.clone();
    let is_short = Arc::new(AtomicBool::new(false));
    let short = Arc::clone(&is_short);
    let thread = std::thread::spawn(move || {
        let device = CountingDevice {
            permits: receiver,
            last: Vec::new(),
            num_resets: 0,
            stride: 1,
            is_short: short,
            launched: None,
            read: None,
            clock: StageClock::new(),
        };
        let queue = QueueRules { max_queued_requests, ..QueueRules::default() };
        let limits = SchedulerLimits { queue, ..SchedulerLimits::default() };
        let scheduler = Scheduler::new(device, limits).unwrap();
        let (log, clock) = (StepLog::new(1), StepClock::default());
        let options = ThreadOptions { inbox, status: cell, random_seed: 1, log, clock, profile };
        let mut engine = EngineThread::new(scheduler, options);
        engine.audit_with(audit);
        engine.run()
    });
    status.set(EngineStatus::Running);
    let handle = EngineHandle::new(sender, status, ModelInfo::default());
    Bench { handle, permits, is_short, thread }
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
            grammar: None,
            pooling: None,
            second_text: None,
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

    fn ask<T>(&self, msg: impl FnOnce(Reply<T>) -> EngineMsg) -> T {
        let (reply, answer) = oneshot::channel();
        self.handle.submit(msg(reply)).unwrap();
        answer.blocking_recv().unwrap()
    }

    fn pause(&self, mode: PauseMode) -> usize {
        let (reply, answer) = oneshot::channel();
        self.handle.submit(EngineMsg::Control(ControlMsg::Pause { mode, reply })).unwrap();
        // The loop may be held in a launch, before which it has not seen the message.
        self.permits.send(Permit::Step).unwrap();
        answer.blocking_recv().unwrap()
    }

    fn resume(&self) {
        self.ask(|reply| EngineMsg::Control(ControlMsg::Continue(reply)));
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
    let status = bench.handle.status_cell().clone();
    bench.drain().unwrap();
    assert!((4..=8).contains(&status.num_batches()), "{}", status.num_batches());
}

#[test]
fn a_dropped_receiver_aborts_running_and_waiting_requests() {
    let bench = start();
    let mut gone = bench.generate("gone", 10, 1000);
    let mut stays = bench.generate("stays", 20, 1000);
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
        // One pass may answer many questions: a token tells that it is over.
        stays.blocking_recv().unwrap();
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
    let Bench { handle, permits, thread, .. } = bench;
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
fn what_an_audit_finds_ends_the_engine() {
    let bench = start_with(false, |_| Err("page 3 is free and in the tree".to_owned()));
    let events = bench.generate("a", 10, 3);
    bench.permits.send(Permit::Step).unwrap();
    assert_eq!(status_code(&collect(events).1), 500);
    let error = bench.thread.join().unwrap().unwrap_err();
    let expected = "the scheduler's bookkeeping is wrong: page 3 is free and in the tree";
    assert_eq!(error.to_string(), expected);
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
fn a_rid_is_free_when_its_client_has_left() {
    let bench = start();
    let mut other = bench.generate("other", 50, 100);
    let mut gone = bench.generate("a", 10, 100);
    bench.permits.send(Permit::Step).unwrap();
    bench.permits.send(Permit::Step).unwrap();
    gone.blocking_recv().unwrap();
    // The loop is held in a launch: all of this comes in one pass.
    drop(gone);
    bench.handle.submit(EngineMsg::Abort { rid: Some(Rid::new("a")) }).unwrap();
    drop(bench.generate("a", 20, 100));
    let next = bench.generate("a", 30, 2);
    for _ in 0..8 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(collect(next), (vec![31, 32], FinishReason::Length { length: 2 }));
    assert_eq!(other.blocking_recv().unwrap().token_ids, [51], "the others go on");
    drop(other);
    bench.drain().unwrap();
}

#[test]
fn who_waits_for_a_name_can_be_aborted() {
    let bench = start();
    let mut gone = bench.generate("a", 10, 100);
    bench.permits.send(Permit::Step).unwrap();
    bench.permits.send(Permit::Step).unwrap();
    gone.blocking_recv().unwrap();
    drop(gone);
    let next = bench.generate("a", 30, 2);
    bench.handle.submit(EngineMsg::Abort { rid: Some(Rid::new("a")) }).unwrap();
    bench.permits.send(Permit::Step).unwrap();
    assert_eq!(collect(next), (Vec::new(), FinishReason::aborted()));
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
    let bench = start_with(true, Scheduler::audit);
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

#[test]
fn a_pause_holds_what_is_live_and_what_comes() {
    for mode in [PauseMode::InPlace, PauseMode::Retract, PauseMode::Abort] {
        let bench = start();
        let mut live = bench.generate("live", 10, 50);
        bench.permits.send(Permit::Step).unwrap();
        bench.permits.send(Permit::Step).unwrap();
        assert_eq!(live.blocking_recv().unwrap().token_ids, [11]);
        assert_eq!(bench.pause(mode), usize::from(mode != PauseMode::Abort), "{mode:?}");
        let late = bench.generate("late", 20, 2);
        let flushed = bench.ask(EngineMsg::FlushCache);
        assert_eq!(flushed, mode != PauseMode::InPlace, "{mode:?}");
        let stats = bench.state().scheduler;
        let running = usize::from(mode == PauseMode::InPlace);
        let waiting = 1 + usize::from(mode == PauseMode::Retract);
        assert_eq!((stats.num_running_reqs, stats.num_waiting_reqs), (running, waiting));
        assert_eq!(stats.num_retractions, u64::from(mode == PauseMode::Retract), "{mode:?}");

        bench.resume();
        bench.drain().unwrap();
        assert_eq!(collect(late).0, [21, 22], "{mode:?}");
        let (tokens, reason) = collect(live);
        match mode {
            PauseMode::Abort => assert_eq!(reason, FinishReason::aborted()),
            _ => assert!(tokens.into_iter().eq(12..=60), "{mode:?}"),
        }
    }
}

#[test]
fn a_drain_ends_a_pause() {
    let bench = start();
    bench.pause(PauseMode::InPlace);
    let live = bench.generate("live", 10, 2);
    bench.drain().unwrap();
    assert_eq!(collect(live).0, [11, 12]);
}

#[test]
fn a_profile_can_be_asked_for_and_ends_by_itself() {
    let bench = start();
    let begin = |num_steps| {
        let (ended, profile) = oneshot::channel();
        let started = bench.ask(|started| {
            EngineMsg::Control(ControlMsg::StartProfile { num_steps, started, ended })
        });
        started.then_some(profile)
    };
    let stop = || bench.ask(|reply| EngineMsg::Control(ControlMsg::StopProfile(reply)));
    assert!(!stop(), "none has begun");
    let profile = begin(Some(2)).unwrap();
    assert!(begin(None).is_none(), "one at a time");
    for _ in 0..4 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(collect(bench.generate("a", 10, 4)).0, [11, 12, 13, 14]);
    let counts = profile.blocking_recv().unwrap();
    assert_eq!((counts.prefill.num_steps, counts.decode.num_steps), (1, 1));
    assert_eq!(bench.state().profile, None);

    let profile = begin(None).unwrap();
    assert!(stop() && !stop());
    assert_eq!(profile.blocking_recv().unwrap(), StepProfiles::default());
    bench.drain().unwrap();
}

fn update(model_path: &str) -> WeightUpdate {
    WeightUpdate {
        model_path: model_path.to_owned(),
        load_format: None,
        abort_all_requests: false,
        flush_cache: true,
    }
}

impl Bench {
    fn submit_update(&self, update: WeightUpdate) -> oneshot::Receiver<Result<usize, String>> {
        let (reply, answer) = oneshot::channel();
        let msg = ControlMsg::UpdateWeights { update, reply };
        self.handle.submit(EngineMsg::Control(msg)).unwrap();
        answer
    }
}

#[test]
fn new_weights_come_between_requests() {
    let bench = start();
    let before = bench.generate("before", 10, 3);
    bench.permits.send(Permit::Step).unwrap();
    let updated = bench.submit_update(update("5"));
    let second = bench.submit_update(update("7"));
    let after = bench.generate("after", 20, 2);
    for _ in 0..8 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(updated.blocking_recv().unwrap(), Ok(0));
    assert!(second.blocking_recv().unwrap().unwrap_err().contains("Another update"));
    assert_eq!(collect(before).0, [11, 12, 13], "it ends with the weights it began with");
    assert_eq!(collect(after).0, [25, 30], "it waits for the new ones");

    let failed = bench.submit_update(update("broken"));
    assert_eq!(failed.blocking_recv().unwrap(), Err("no such weights".to_owned()));
    assert_eq!(collect(bench.generate("still", 20, 2)).0, [25, 30]);
    bench.drain().unwrap();
}

/// One runs, and new weights wait for its end.
fn start_update(
    max_queued_requests: Option<usize>,
) -> (Bench, mpsc::UnboundedReceiver<ReqEvent>, oneshot::Receiver<Result<usize, String>>) {
    let bench = start_limited(false, Scheduler::audit, max_queued_requests);
    let live = bench.generate("live", 10, 3);
    bench.permits.send(Permit::Step).unwrap();
    let updated = bench.submit_update(update("5"));
    (bench, live, updated)
}

#[test]
fn what_waits_for_weights_can_be_aborted_and_is_bounded() {
    let (bench, live, updated) = start_update(Some(2));
    let [one, two, three] = ["one", "two", "three"].map(|rid| bench.generate(rid, 20, 2));
    bench.handle.submit(EngineMsg::Abort { rid: Some(Rid::new("one")) }).unwrap();
    let four = bench.generate("four", 30, 2);
    bench.permits.send(Permit::Step).unwrap();
    assert_eq!(status_code(&collect(three).1), 503, "two may wait");
    assert_eq!(collect(one).1, FinishReason::aborted());
    for _ in 0..8 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(updated.blocking_recv().unwrap(), Ok(0));
    assert_eq!(collect(live).0, [11, 12, 13]);
    assert_eq!((collect(two).0, collect(four).0), (vec![25, 30], vec![35, 40]));
    bench.drain().unwrap();
}

#[test]
fn what_waits_for_weights_ends_with_all_others() {
    let (bench, live, updated) = start_update(None);
    let held = bench.generate("held", 20, 2);
    bench.handle.submit(EngineMsg::Abort { rid: None }).unwrap();
    bench.permits.send(Permit::Step).unwrap();
    bench.permits.send(Permit::Step).unwrap();
    assert_eq!(collect(held).1, FinishReason::aborted());
    assert_eq!(collect(live).1, FinishReason::aborted());
    assert_eq!(updated.blocking_recv().unwrap(), Ok(0));
    bench.drain().unwrap();
}

#[test]
fn a_drain_refuses_weights_and_who_waits_for_them() {
    let (bench, live, updated) = start_update(None);
    let held = bench.generate("held", 20, 2);
    bench.handle.submit(EngineMsg::Drain).unwrap();
    let late = bench.submit_update(update("7"));
    let (reply, paused) = oneshot::channel();
    let pause = ControlMsg::Pause { mode: PauseMode::InPlace, reply };
    bench.handle.submit(EngineMsg::Control(pause)).unwrap();
    bench.drain().unwrap();
    assert!(paused.blocking_recv().is_ok(), "it is answered, and nothing pauses");
    assert_eq!(status_code(&collect(held).1), 503);
    for answer in [updated, late] {
        assert_eq!(answer.blocking_recv().unwrap(), Err(SHUTTING_DOWN.to_owned()));
    }
    assert_eq!(collect(live).0, [11, 12, 13]);
}

#[test]
fn who_waits_in_a_pause_can_be_aborted() {
    let bench = start();
    bench.pause(PauseMode::InPlace);
    let held = bench.generate("held", 20, 2);
    bench.handle.submit(EngineMsg::Abort { rid: Some(Rid::new("held")) }).unwrap();
    assert_eq!(collect(held).1, FinishReason::aborted());
    bench.drain().unwrap();
}

#[test]
fn new_weights_in_a_pause_take_over_running_requests() {
    let bench = start();
    let mut live = bench.generate("live", 10, 50);
    bench.permits.send(Permit::Step).unwrap();
    bench.permits.send(Permit::Step).unwrap();
    assert_eq!(live.blocking_recv().unwrap().token_ids, [11]);
    assert_eq!(bench.pause(PauseMode::InPlace), 1);
    let refused = bench.submit_update(update("5")).blocking_recv().unwrap();
    assert!(refused.unwrap_err().contains("flush_cache"), "its pages are of the old weights");
    let keep = WeightUpdate { flush_cache: false, ..update("5") };
    assert_eq!(bench.submit_update(keep).blocking_recv().unwrap(), Ok(1));
    bench.resume();
    bench.drain().unwrap();
    let (tokens, _) = collect(live);
    let strides: Vec<_> = tokens.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let first_new = strides.iter().position(|&stride| stride == 5).expect("new weights");
    assert!(first_new <= 2 && strides[first_new..].iter().all(|&stride| stride == 5), "{tokens:?}");
}

#[test]
fn new_weights_need_not_wait() {
    let bench = start();
    let live = bench.generate("live", 10, 1000);
    bench.permits.send(Permit::Step).unwrap();
    let now = WeightUpdate { abort_all_requests: true, ..update("5") };
    let updated = bench.submit_update(now);
    bench.permits.send(Permit::Step).unwrap();
    bench.permits.send(Permit::Step).unwrap();
    assert_eq!(updated.blocking_recv().unwrap(), Ok(0));
    assert_eq!(collect(live).1, FinishReason::aborted());
    bench.drain().unwrap();
}

#[test]
fn short_memory_runs_one_request_at_a_time_until_there_is_more() {
    let bench = start();
    bench.is_short.store(true, Ordering::Relaxed);
    let (mut first, mut second) = (bench.generate("1", 10, 4), bench.generate("2", 20, 3));
    for _ in 0..2 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(first.blocking_recv().unwrap().token_ids, [11]);
    assert!(second.try_recv().is_err(), "it waits");
    bench.is_short.store(false, Ordering::Relaxed);
    for _ in 0..8 {
        bench.permits.send(Permit::Step).unwrap();
    }
    assert_eq!(second.blocking_recv().unwrap().token_ids, [21]);
    assert_eq!((collect(first).0, collect(second).0), (vec![12, 13, 14], vec![22, 23]));
    bench.drain().unwrap();
}
