//! `/set_internal_state`: arguments that may change while the server runs.

use axum::{
    Json,
    extract::{Request, State},
};
use protocol::{Table, native::SetInternalStateRequest};
use serde_json::Value;
use types::ControlMsg;

use crate::{AppState, body::read_json, error::ApiError};

/// Answers as upstream does, for each engine whether it changed: all of the arguments, or none.
pub(crate) async fn set_internal_state(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<[bool; 1]>, ApiError> {
    let request: SetInternalStateRequest = read_json(&state, request, &Table::EMPTY).await?;
    let mut limit = None;
    for (name, value) in &request.server_args {
        let checked = match name.as_str() {
            "pp_max_micro_batch_size" => running_limit(&state, value),
            _ => Err(format!("Updating {name} is not supported.")),
        };
        match checked {
            Ok(value) => limit = Some(value),
            Err(reason) => {
                tracing::warn!("{reason}");
                return Ok(Json([false]));
            }
        }
    }
    if let Some(max_running_requests) = limit {
        let limit = |reply| ControlMsg::LimitRunning { max_running_requests, reply };
        state.control(limit).await?;
        tracing::info!("at most {max_running_requests} requests run at once from now on");
    }
    Ok(Json([true]))
}

/// With one pipeline stage, a micro batch is all that runs.
fn running_limit(state: &AppState, value: &Value) -> Result<usize, String> {
    let most = state.engine.model().max_running_requests;
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
    count.filter(|count| (1..=most).contains(count)).ok_or_else(|| {
        format!(
            "Updating pp_max_micro_batch_size to {value} is rejected because it is out of the \
             valid range [1, {most}]."
        )
    })
}
