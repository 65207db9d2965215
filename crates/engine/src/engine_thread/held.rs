//! Requests that came too early: while others finish for an update of the weights, or while one
//! of the same name, whose client has left, is not aborted yet.
//!
//! They are no requests of the scheduler yet, so aborts, limits and the end find them here.

use std::mem;

use tokio::sync::mpsc;
use types::{FinishReason, GenerateReq, ReqEvent, Rid};

use super::{Device, EngineThread, send_end};

/// One of them.
pub(super) struct HeldReq {
    req: Box<GenerateReq>,
    events: mpsc::UnboundedSender<ReqEvent>,
}

impl<D: Device> EngineThread<D> {
    /// Keeps a request back until the weights are there, if as many may wait.
    pub(super) fn hold(&mut self, req: Box<GenerateReq>, events: mpsc::UnboundedSender<ReqEvent>) {
        let num_waiting = self.control.held.len() + self.scheduler.stats().num_waiting_reqs;
        let most = self.scheduler.limits().queue.max_queued_requests;
        if most.is_some_and(|most| num_waiting >= most) {
            send_end(&events, FinishReason::unavailable("The request queue is full."));
            return;
        }
        self.control.held.push(HeldReq { req, events });
    }

    /// Keeps a request back for one pass, at whose end that of the same name is gone.
    pub(super) fn hold_for_name(
        &mut self,
        req: Box<GenerateReq>,
        events: mpsc::UnboundedSender<ReqEvent>,
    ) {
        self.control.held.push(HeldReq { req, events });
    }

    /// Ends those of this name, or all.
    pub(super) fn end_held(&mut self, rid: Option<&Rid>, reason: &FinishReason) {
        self.control.held.retain(|held| {
            let stays = rid.is_some_and(|rid| *rid != held.req.rid);
            if !stays {
                send_end(&held.events, reason.clone());
            }
            stays
        });
    }

    /// Forgets those whose clients have left.
    pub(super) fn forget_deserted(&mut self) {
        self.control.held.retain(|held| !held.events.is_closed());
    }

    /// Lets them all go.
    pub(super) fn release_held(&mut self) {
        for HeldReq { req, events } in mem::take(&mut self.control.held) {
            self.take_request(req, events);
        }
    }
}
