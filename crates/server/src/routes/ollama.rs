//! `/api/...`: Ollama's dialect.
//!
//! Upstream: `sglang/srt/entrypoints/ollama/serving.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::{
    ollama::{CHAT_TABLE, ChatRequest, GENERATE_TABLE, GenerateRequest},
    openai,
};
use serde_json::json;

use super::chat_completions::start;
use crate::{AppState, body::read_json, error::ApiError, sse};

mod catalogue;
mod translate;
mod words;

pub(crate) use catalogue::{show, tags, version};
use words::{Route, Words};

/// An error in Ollama's form.
pub(crate) struct OllamaError(ApiError);

impl From<ApiError> for OllamaError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for OllamaError {
    fn into_response(self) -> Response {
        self.0.response_with(&json!({"error": self.0.message}))
    }
}

pub(crate) async fn chat(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, OllamaError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    let request: ChatRequest = read_json(&state, request, &CHAT_TABLE).await?;
    if request.messages.is_empty() {
        return Ok(Words::new(&state, Route::Chat).loaded());
    }
    let request = translate::chat(&state, request)?;
    answer(&state, request, Route::Chat, arrived).await
}

pub(crate) async fn generate(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, OllamaError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    let request: GenerateRequest = read_json(&state, request, &GENERATE_TABLE).await?;
    if request.prompt.is_empty() {
        return Ok(Words::new(&state, Route::Generate).loaded());
    }
    let request = translate::generate(&state, request).await?;
    answer(&state, request, Route::Generate, arrived).await
}

async fn answer(
    state: &AppState,
    mut request: openai::ChatRequest,
    route: Route,
    arrived: Instant,
) -> Result<Response, OllamaError> {
    let is_streaming = request.stream.unwrap_or(true);
    request.stream = Some(is_streaming);
    let run = start(state, &mut request, arrived).await?;
    let mut words = Words::new(state, route);
    words.format = run.format;
    if is_streaming {
        return Ok(sse::respond(run.set, words));
    }
    let sequences = run.set.collect().await?;
    let sequence = sequences.first().ok_or_else(ApiError::engine_gone)?;
    Ok(Json(words.whole(sequence)).into_response())
}
