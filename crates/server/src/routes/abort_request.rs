//! `/abort_request`.

use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use protocol::{Table, native::AbortRequest};
use types::EngineMsg;

use crate::{AppState, body::read_json, error::ApiError};

/// 200 whether or not there was such a request: it may just have ended.
pub(crate) async fn abort_request(
    State(state): State<AppState>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let request: AbortRequest = read_json(&state, request, &Table::EMPTY).await?;
    let rids = match (request.abort_all, &request.rid) {
        (true, _) => vec![None],
        (false, Some(name)) => state.family_of(name).into_iter().map(Some).collect(),
        (false, None) => {
            let message = "Give a rid, or abort_all to abort every request.";
            return Err(ApiError::value(message).nested());
        }
    };
    for rid in rids {
        state.engine.send(EngineMsg::Abort { rid }).await?;
    }
    Ok(StatusCode::OK)
}
