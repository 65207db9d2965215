//! `/v1/messages`: Anthropic's dialect of chat.
//!
//! Upstream: `sglang/srt/entrypoints/anthropic/serving.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use protocol::anthropic::{ErrorBody, Event, MESSAGES_TABLE, MessagesRequest, TokenCount};

use super::chat_completions::{prompt_ids, start};
use crate::{
    AppState,
    body::{read_json, require_json_content_type},
    error::ApiError,
    sse,
};

mod translate;
mod words;

use translate::chat_request;
use words::Words;

/// An error in Anthropic's form.
pub(crate) struct MessagesError(ApiError);

impl From<ApiError> for MessagesError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for MessagesError {
    fn into_response(self) -> Response {
        self.0.response_with(&Event::Error { error: error_body(&self.0) })
    }
}

fn error_body(error: &ApiError) -> ErrorBody<'_> {
    let kind = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    ErrorBody { kind, message: &error.message }
}

pub(crate) async fn messages(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, MessagesError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    let request = read(&state, request).await?;
    if request.max_tokens.is_none_or(|max| max < 1) {
        return Err(ApiError::value("max_tokens must be there and at least 1.").into());
    }
    let mut words = Words::new(&request);
    let mut request = chat_request(&state, request)?;
    let is_streaming = request.stream.unwrap_or(false);
    let run = start(&state, &mut request, arrived).await?;
    words.format = run.format;
    if is_streaming {
        return Ok(sse::respond(run.set, words));
    }
    let sequences = run.set.collect().await?;
    Ok(words.response(&sequences))
}

pub(crate) async fn count_tokens(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<TokenCount>, MessagesError> {
    let request = chat_request(&state, read(&state, request).await?)?;
    let input_tokens = prompt_ids(&state, request, true).await?.len();
    Ok(Json(TokenCount { input_tokens }))
}

async fn read(state: &AppState, request: Request) -> Result<MessagesRequest, ApiError> {
    require_json_content_type(request.headers())?;
    read_json(state, request, &MESSAGES_TABLE).await
}
