//! `/vertex_generate`: `/generate` as Vertex AI calls it.
//!
//! Upstream: `vertex_generate` in `sglang/srt/entrypoints/http_server.py`.

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use protocol::Table;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::generate::generate;
use crate::{AppState, body::read_json, error::ApiError};

#[derive(Debug, Deserialize)]
pub(crate) struct VertexRequest {
    /// A prompt each.
    instances: Vec<Map<String, Value>>,
    /// Fields of `/generate` for all of them.
    parameters: Option<Map<String, Value>>,
}

pub(crate) async fn vertex_generate(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let request: VertexRequest = read_json(&state, request, &Table::EMPTY).await?;
    if request.instances.is_empty() {
        return Ok(Json(json!([])).into_response());
    }
    let body = Body::from(Value::Object(generate_body(request)?).to_string());
    let answer = generate(State(state), Request::new(body)).await?;
    if answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let bytes = to_bytes(answer.into_body(), usize::MAX).await;
    let bytes = bytes.map_err(|_| ApiError::engine_gone())?;
    let body = [b"{\"predictions\":".as_slice(), &bytes, b"}"].concat();
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// The instances side by side, as a batch.
fn generate_body(request: VertexRequest) -> Result<Map<String, Value>, ApiError> {
    let mut body = request.parameters.unwrap_or_default();
    if body.get("stream").is_some_and(|stream| *stream == true) {
        return Err(ApiError::value("`stream` is not supported by this server on this route"));
    }
    let side_by_side = |key: &str| -> Value {
        request.instances.iter().map(|instance| instance.get(key).cloned()).collect()
    };
    let inputs = ["text", "input_ids", "input_embeds"];
    if let Some(key) = inputs.into_iter().find(|key| request.instances[0].contains_key(*key)) {
        body.insert(key.to_owned(), side_by_side(key));
    }
    if request.instances.iter().any(|instance| instance.contains_key("image_data")) {
        body.insert("image_data".to_owned(), side_by_side("image_data"));
    }
    Ok(body)
}
