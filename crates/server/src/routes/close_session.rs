//! `/close_session`.

use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use protocol::{Table, native::CloseSessionRequest};

use crate::{AppState, body::read_json, error::ApiError};

/// Answers as upstream does if there is no such session: it is closed.
pub(crate) async fn close_session(
    State(state): State<AppState>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let CloseSessionRequest { session_id } = read_json(&state, request, &Table::EMPTY).await?;
    if !state.sessions.close(&session_id) {
        tracing::warn!("there is no session {session_id} to close");
    }
    Ok(StatusCode::OK)
}
