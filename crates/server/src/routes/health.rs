//! `/health`, `/health_generate`, `/ready`, `/ping`.
//!
//! A probe asks the engine for one token and is content with *any* sign of
//! life: while other requests run, theirs is enough, and so is a piece of a
//! long prompt, which gives nobody a token. In a pause there are no tokens,
//! and any answer of the engine is.
//!
//! Upstream: `health_generate` in `sglang/srt/entrypoints/http_server.py`,
//! `maybe_send_health_check_signal` in `sglang/srt/managers/scheduler.py`.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{extract::State, http::StatusCode};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use types::{EngineMsg, GenerateReq, Rid, SamplingParams, SubmitError};
use uuid::Uuid;

use crate::AppState;

/// How often the probe looks for a sign of life of other requests.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn ready(State(state): State<AppState>) -> StatusCode {
    status(state.is_ready())
}

pub(crate) async fn health(State(state): State<AppState>) -> StatusCode {
    if !state.config.health_generation {
        return status(state.is_ready());
    }
    probe(&state).await
}

pub(crate) async fn health_generate(State(state): State<AppState>) -> StatusCode {
    probe(&state).await
}

async fn probe(state: &AppState) -> StatusCode {
    if !state.is_ready() {
        return status(false);
    }
    if state.is_updating() {
        return status(true);
    }
    if state.is_paused() {
        return status(state.engine_state().await.is_some());
    }
    let (sender, events) = mpsc::unbounded_channel();
    let seen = num_signs(state);
    let req = Box::new(GenerateReq {
        rid: Rid::new(format!("HEALTH_CHECK_{}", Uuid::new_v4().simple())),
        input_ids: vec![0],
        sampling_params: SamplingParams {
            max_new_tokens: Some(1),
            temperature: 0.0,
            ..SamplingParams::default()
        },
        eos_token_ids: Vec::new(),
        logprobs: None,
        grammar: None,
        pooling: state.engine.model().pooled.as_ref().map(|pooled| pooled.pooling),
        second_text: None,
        priority: None,
    });
    match state.engine.submit(EngineMsg::Generate { req, events: sender }) {
        Err(SubmitError::Closed) => return status(false),
        // A full inbox is no answer: the engine may be busy or stuck.
        Ok(()) | Err(SubmitError::Full) => {}
    }
    let sign = sign_of_life(state, events, seen);
    let is_alive = timeout(state.config.health_timeout, sign).await.unwrap_or(false);
    if !is_alive {
        tracing::error!("health check failed: the engine computed nothing in time");
    }
    status(is_alive)
}

/// True once the engine answers anyone, false if it is gone.
async fn sign_of_life(
    state: &AppState,
    mut events: mpsc::UnboundedReceiver<types::ReqEvent>,
    seen: u64,
) -> bool {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_queued = true;
    loop {
        tokio::select! {
            event = events.recv(), if is_queued => match event {
                Some(_) => return true,
                None => is_queued = false,
            },
            _ = ticks.tick() => {
                if num_signs(state) != seen {
                    return true;
                }
                if !is_queued && !state.is_ready() {
                    return false;
                }
            }
        }
    }
}

/// Changes with each event for a request and with each batch.
fn num_signs(state: &AppState) -> u64 {
    let num_events = state.num_events.load(Ordering::Relaxed);
    num_events + state.engine.status_cell().num_batches()
}

fn status(is_healthy: bool) -> StatusCode {
    if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
