//! What operators ask of the loop: to pause, to measure, to be slow.
//!
//! Upstream: `pause_generation`, `slow_down` and the profiler in `sglang/srt/managers`.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use scheduler::{Progress, SchedulerMsg};
use types::{ControlMsg, FinishReason, PauseMode, Reply, StepProfiles, WeightUpdate};

use super::{Device, EngineThread, SHUTTING_DOWN, held::HeldReq};
use crate::{
    memory_guard::{Pressure, Releases},
    profiler::Profiler,
};

/// What operators have asked for.
#[derive(Default)]
pub(super) struct Control {
    /// Pauses that wait for the batch in flight.
    pauses: Vec<(PauseMode, Reply<usize>)>,
    /// Slept after each batch.
    per_batch: Duration,
    profile: Option<RequestedProfile>,
    update: Option<RequestedUpdate>,
    /// How short memory was before the last step.
    pressure: Pressure,
    releases: Releases,
    /// Requests that came too early.
    pub(super) held: Vec<HeldReq>,
}

/// Weights that are to be loaded once nothing runs.
struct RequestedUpdate {
    update: WeightUpdate,
    reply: Reply<Result<usize, String>>,
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
            // What drains is not to be held up.
            ControlMsg::Pause { reply, .. } if self.draining => {
                let _ = reply.send(self.scheduler.num_live_reqs());
            }
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
            ControlMsg::UpdateWeights { update, reply } => self.request_update(update, reply),
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

    fn request_update(&mut self, update: WeightUpdate, reply: Reply<Result<usize, String>>) {
        if self.draining {
            let _ = reply.send(Err(SHUTTING_DOWN.to_owned()));
            return;
        }
        if self.control.update.is_some() {
            let _ = reply.send(Err("Another update waits for requests to finish.".to_owned()));
            return;
        }
        if update.abort_all_requests {
            self.queue.push(SchedulerMsg::AbortAll);
        }
        self.control.update = Some(RequestedUpdate { update, reply });
    }

    /// Whether a request that comes now has to wait for weights.
    pub(super) fn awaits_update(&self) -> bool {
        self.control.update.is_some() && !self.scheduler.is_paused() && !self.draining
    }

    /// For an engine that drains: nobody would use the weights.
    pub(super) fn cancel_update(&mut self) {
        if let Some(RequestedUpdate { reply, .. }) = self.control.update.take() {
            let _ = reply.send(Err(SHUTTING_DOWN.to_owned()));
        }
        self.end_held(None, &FinishReason::unavailable(SHUTTING_DOWN));
    }

    /// Loads the weights that were asked for, if nothing is in flight, and lets the requests go
    /// that were held for it.
    pub(super) fn settle_update(&mut self, progress: Progress) {
        if progress == Progress::Busy {
            return;
        }
        let Some(RequestedUpdate { update, reply }) = self.control.update.take() else { return };
        let result = self.update_weights(&update);
        if let Err(reason) = &result {
            tracing::error!("the weights stay as they are: {reason}");
        }
        let _ = reply.send(result);
        self.release_held();
    }

    fn update_weights(&mut self, update: &WeightUpdate) -> Result<usize, String> {
        if update.flush_cache && !self.scheduler.may_flush() {
            let message = "Requests that are paused in place hold the cache, which flush_cache asks \
                           to drop: pause with retract, or send flush_cache false.";
            return Err(message.to_owned());
        }
        self.scheduler.executor_mut().update_weights(update)?;
        if update.flush_cache {
            self.scheduler.flush_cache();
        }
        Ok(self.scheduler.num_live_reqs())
    }

    /// Before a step: takes less memory if it is short.
    pub(super) fn guard_memory(&mut self) {
        let pressure = self.scheduler.executor().pressure();
        if pressure > Pressure::Normal && self.control.releases.is_due(Instant::now()) {
            self.scheduler.executor_mut().release_cache();
        }
        if pressure == self.control.pressure {
            return;
        }
        self.control.pressure = pressure;
        self.scheduler.hold_back(pressure == Pressure::Critical);
        match pressure {
            Pressure::Normal => tracing::info!("memory suffices again"),
            Pressure::Warning => tracing::warn!("memory is short"),
            Pressure::Critical => {
                tracing::warn!("memory is very short: no prompt begins beside running requests");
            }
        }
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
