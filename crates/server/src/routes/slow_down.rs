//! `/slow_down`: sleeps after each batch, for tests of what surrounds the server.

use std::time::Duration;

use axum::extract::{Request, State};
use protocol::{Table, native::SlowDownRequest};
use types::ControlMsg;

use crate::{AppState, body::read_json, error::ApiError};

/// Longer sleeps are a mistake in the unit.
const MAX_SECONDS: f64 = 60.0;

pub(crate) async fn slow_down(
    State(state): State<AppState>,
    request: Request,
) -> Result<(), ApiError> {
    let request: SlowDownRequest = read_json(&state, request, &Table::EMPTY).await?;
    let seconds = request.forward_sleep_time.unwrap_or(0.0);
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        let message = format!("forward_sleep_time must be in [0, {MAX_SECONDS}], got {seconds}.");
        return Err(ApiError::value(message));
    }
    let per_batch = Duration::from_secs_f64(seconds);
    state.control(|reply| ControlMsg::SlowDown { per_batch, reply }).await
}
