//! `/open_session`.

use axum::{
    Json,
    extract::{Request, State},
};
use protocol::{Table, native::OpenSessionRequest};

use crate::{AppState, body::read_json, error::ApiError};

pub(crate) async fn open_session(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<String>, ApiError> {
    let request: OpenSessionRequest = read_json(&state, request, &Table::EMPTY).await?;
    if request.streaming.unwrap_or(false) && !state.config.enable_streaming_session {
        let message =
            "Streaming sessions are disabled. Please relaunch with --enable-streaming-session.";
        return Err(ApiError::value(message).nested());
    }
    let opened = state.sessions.open(request);
    opened.map(Json).map_err(|error| ApiError::value(error.to_string()).nested())
}
