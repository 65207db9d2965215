//! `/pause_generation` and `/continue_generation`.
//!
//! Requests that come during a pause wait in the engine's queue. Health probes do not: they are
//! content with an engine that answers at all.

use axum::{
    Json,
    extract::{Request, State},
};
use protocol::{
    Table,
    native::{ContinueRequest, PauseMode, PauseRequest, PauseResponse},
};
use types::ControlMsg;

use crate::{AppState, body::read_json_or_default, error::ApiError};

pub(crate) async fn pause_generation(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<PauseResponse>, ApiError> {
    let request: PauseRequest = read_json_or_default(&state, request, &Table::EMPTY).await?;
    let mode = match request.mode {
        PauseMode::Abort => types::PauseMode::Abort,
        PauseMode::Retract => types::PauseMode::Retract,
        PauseMode::InPlace => types::PauseMode::InPlace,
    };
    state.set_paused(true);
    let num_held = state.control(|reply| ControlMsg::Pause { mode, reply }).await?;
    tracing::info!(num_held, ?mode, "generation is paused");
    Ok(Json(PauseResponse { message: "Generation paused successfully.", status: "ok" }))
}

pub(crate) async fn continue_generation(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<PauseResponse>, ApiError> {
    let ContinueRequest {} = read_json_or_default(&state, request, &Table::EMPTY).await?;
    // Before the engine goes on, or a pause that comes right behind would be forgotten.
    state.set_paused(false);
    state.control(ControlMsg::Continue).await?;
    tracing::info!("generation goes on");
    Ok(Json(PauseResponse { message: "Generation continued successfully.", status: "ok" }))
}
