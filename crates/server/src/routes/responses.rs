//! `/v1/responses`: OpenAI's dialect with a memory.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_responses.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use protocol::{
    openai::ChatMessage,
    responses::{LOGPROBS, RESPONSES_TABLE, ResponsesRequest, RetrieveQuery, Status},
};
use serde_json::json;

use super::chat_completions::{ChatRun, start};
use crate::{
    AppState,
    body::{read_json, require_json_content_type},
    error::ApiError,
    response_store::Stored,
    sse,
};

mod draft;
mod events;
mod reasoning;
mod translate;

use draft::Draft;
use events::Events;

/// An error as this route words it.
pub(crate) struct ResponsesError {
    error: ApiError,
    param: Option<&'static str>,
}

impl From<ApiError> for ResponsesError {
    fn from(error: ApiError) -> Self {
        Self { error, param: None }
    }
}

impl IntoResponse for ResponsesError {
    fn into_response(self) -> Response {
        let Self { error, param } = self;
        let is_clients = error.status.is_client_error();
        let kind = if is_clients { "invalid_request_error" } else { "server_error" };
        let code = error.status.as_u16();
        error.response_with(&json!({"error": {
            "message": error.message, "type": kind, "param": param, "code": code,
        }}))
    }
}

pub(crate) async fn create(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ResponsesError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    require_json_content_type(request.headers())?;
    let request: ResponsesRequest = read_json(&state, request, &RESPONSES_TABLE).await?;
    check(&request)?;
    let mut messages = match &request.previous_response_id {
        Some(id) => conversation(&state, id)?,
        None => Vec::new(),
    };
    messages.extend(translate::messages(&request.input)?);
    let mut draft = Draft::new(&state, &request);
    let mut chat = translate::chat_request(&request, &messages, &draft.response.id)?;
    let ChatRun { set, format, usage } = start(&state, &mut chat, arrived).await?;
    (draft.format, draft.usage, draft.messages) = (format, usage, messages);
    if request.stream.unwrap_or(false) {
        return Ok(sse::respond(set, Events::new(draft)));
    }
    if request.background.unwrap_or(false) {
        let response = Json(draft.response.clone()).into_response();
        draft.run_in_background(set);
        return Ok(response);
    }
    let sequences = set.collect().await?;
    let sequence = sequences.first().ok_or_else(ApiError::engine_gone)?;
    Ok(Json(draft.finish(sequence).response).into_response())
}

/// # Errors
/// Fields that contradict each other.
fn check(request: &ResponsesRequest) -> Result<(), ResponsesError> {
    let refuse = |param, message: &str| {
        Err(ResponsesError { error: ApiError::value(message), param: Some(param) })
    };
    let is_streaming = request.stream.unwrap_or(false);
    let is_background = request.background.unwrap_or(false);
    if is_background && !request.store.unwrap_or(true) {
        return refuse("store", "background=true requires store=true.");
    }
    if is_background && is_streaming {
        return refuse(
            "background",
            "`background` together with `stream` is not supported by this server",
        );
    }
    let include = request.include.as_deref().unwrap_or_default();
    if is_streaming && include.iter().any(|name| name == LOGPROBS) {
        let message = format!("`include` of {LOGPROBS:?} together with `stream` is not supported");
        return refuse("include", &message);
    }
    Ok(())
}

/// The conversation up to the end of a response.
fn conversation(state: &AppState, id: &str) -> Result<Vec<ChatMessage>, ResponsesError> {
    let stored = find(state, id, "previous_response_id")?;
    match stored.response.status {
        Status::Completed | Status::Incomplete => Ok(stored.messages),
        Status::InProgress | Status::Failed | Status::Cancelled => {
            let message = format!("The response {id} has no answer that could be continued.");
            Err(ResponsesError {
                error: ApiError::value(message),
                param: Some("previous_response_id"),
            })
        }
    }
}

fn find(state: &AppState, id: &str, param: &'static str) -> Result<Stored, ResponsesError> {
    state.responses.get(id).ok_or_else(|| not_found(id, param))
}

fn not_found(id: &str, param: &'static str) -> ResponsesError {
    let message = format!("Response with id '{id}' not found.");
    ResponsesError { error: ApiError::http(StatusCode::NOT_FOUND, message), param: Some(param) }
}

pub(crate) async fn retrieve(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query(query): Query<RetrieveQuery>,
) -> Result<Response, ResponsesError> {
    if query.stream == Some(true) {
        let message = "`stream` is not supported by this server for a stored response";
        return Err(ResponsesError { error: ApiError::value(message), param: Some("stream") });
    }
    Ok(Json(find(&state, &id, "response_id")?.response).into_response())
}

pub(crate) async fn cancel(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Response, ResponsesError> {
    let stored = find(&state, &id, "response_id")?;
    if !stored.response.background {
        let message = "Only responses in the background can be cancelled.";
        return Err(ResponsesError { error: ApiError::value(message), param: Some("response_id") });
    }
    let response = state.responses.cancel(&id).ok_or_else(|| not_found(&id, "response_id"))?;
    Ok(Json(response).into_response())
}
