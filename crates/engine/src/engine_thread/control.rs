//! What operators ask of the loop: to pause, to measure, to be slow.
//!
//! Upstream: `pause_generation`, `slow_down` and the profiler in `sglang/srt/managers`.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use scheduler::SchedulerMsg;
use types::{ControlMsg, PauseMode, Reply, StepProfiles};

use super::{Device, EngineThread};
use crate::profiler::Profiler;

/// What operators have asked for.
#[derive(Default)]
pub(super) struct Control {
    /// Pauses that wait for the batch in flight.
    pauses: Vec<(PauseMode, Reply<usize>)>,
    /// Slept after each batch.
    per_batch: Duration,
    profile: Option<RequestedProfile>,
}

/// A profile that an operator has begun, unlike `--profile`.
struct RequestedProfile {
    /// Batches until it ends by itself.
    steps_left: Option<usize>,
    ended: Reply<StepProfiles>,
}

// Nobody waits for an answer any more: nothing to do about it. So sends may fail.
impl<D: Device> EngineThread<D> {
    pub(super) fn control(&mut self, msg: ControlMsg) {
        match msg {
            ControlMsg::Pause { mode, reply } => {
                self.scheduler.pause();
                if mode == PauseMode::Abort {
                    self.queue.push(SchedulerMsg::AbortAll);
                }
                self.control.pauses.push((mode, reply));
            }
            ControlMsg::Continue(reply) => {
                self.resume();
                let _ = reply.send(());
            }
            ControlMsg::SlowDown { per_batch, reply } => {
                self.control.per_batch = per_batch;
                let _ = reply.send(());
            }
            ControlMsg::StartProfile { num_steps, started, ended } => {
                let is_free = self.profiler.is_none();
                if is_free {
                    self.profiler = Some(Profiler::new(Instant::now()));
                    self.control.profile = Some(RequestedProfile { steps_left: num_steps, ended });
                }
                let _ = started.send(is_free);
            }
            ControlMsg::StopProfile(reply) => {
                let _ = reply.send(self.stop_profile());
            }
            ControlMsg::LimitRunning { max_running_requests, reply } => {
                self.scheduler.limit_running(max_running_requests);
                let _ = reply.send(());
            }
        }
    }

    /// Ends a pause, also one that has hardly begun.
    pub(super) fn resume(&mut self) {
        self.scheduler.resume();
        self.tell_paused();
    }

    /// After a step: in a pause nothing is in flight now.
    pub(super) fn settle_pauses(&mut self) {
        if !self.scheduler.is_paused() {
            return;
        }
        if self.control.pauses.iter().any(|(mode, _)| *mode == PauseMode::Retract) {
            self.scheduler.retract_all();
        }
        self.tell_paused();
    }

    fn tell_paused(&mut self) {
        for (_, reply) in self.control.pauses.drain(..) {
            let _ = reply.send(self.scheduler.num_live_reqs());
        }
    }

    /// After a batch was launched.
    pub(super) fn after_launch(&mut self) {
        if !self.control.per_batch.is_zero() {
            sleep(self.control.per_batch);
        }
        let steps_left = self.control.profile.as_mut().and_then(|p| p.steps_left.as_mut());
        if let Some(steps_left) = steps_left {
            *steps_left = steps_left.saturating_sub(1);
            if *steps_left == 0 {
                self.stop_profile();
            }
        }
    }

    fn stop_profile(&mut self) -> bool {
        let Some(requested) = self.control.profile.take() else { return false };
        if let Some(mut profiler) = self.profiler.take() {
            if let Some(tables) = profiler.tables(Instant::now()) {
                tracing::info!("{tables}");
            }
            let _ = requested.ended.send(profiler.profiles());
        }
        true
    }
}
