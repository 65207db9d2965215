//! `/flush_cache`.

use std::time::Duration;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use protocol::native::FlushCacheQuery;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use types::EngineMsg;

use crate::{AppState, error::ApiError};

/// Between two tries while the engine is busy.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// Waiting longer than this is a mistake in the unit.
const MAX_TIMEOUT_SECONDS: f64 = 3600.0;

pub(crate) async fn flush_cache(
    State(state): State<AppState>,
    query: Result<Query<FlushCacheQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::schema(error.body_text()))?;
    if !(0.0..=MAX_TIMEOUT_SECONDS).contains(&query.timeout) {
        let message =
            format!("timeout must be in [0, {MAX_TIMEOUT_SECONDS}], got {}", query.timeout);
        return Err(ApiError::schema(message));
    }
    let deadline = Instant::now() + Duration::from_secs_f64(query.timeout);
    loop {
        let (reply, answer) = oneshot::channel();
        state.engine.send(EngineMsg::FlushCache(reply)).await?;
        if answer.await.map_err(|_| ApiError::engine_gone())? {
            return Ok("Cache flushed.\n".into_response());
        }
        if Instant::now() >= deadline {
            let message = "Flush cache failed: requests are running or waiting.\n";
            return Ok((StatusCode::BAD_REQUEST, message).into_response());
        }
        sleep_until(deadline.min(Instant::now() + RETRY_EVERY)).await;
    }
}
