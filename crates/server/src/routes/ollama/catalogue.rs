//! `/api/tags`, `/api/show` and `/api/version`: what there is to talk to.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::{
    Table,
    ollama::{Details, ModelCard, ShowRequest, ShowResponse, Tags},
};
use serde_json::{Map, Value, json};

use super::OllamaError;
use crate::{AppState, body::read_json, error::ApiError, utc::Utc};

/// Upstream's: nothing has been hashed.
const DIGEST: &str = "sha256:sglang0000000000000000000000000000000000000000000000000000000000";

pub(crate) async fn tags(State(state): State<AppState>) -> Result<Response, OllamaError> {
    let engine = state.engine_state().await.ok_or_else(ApiError::engine_gone)?;
    let name = &state.config.served_model_name;
    let card = ModelCard {
        name,
        model: name,
        modified_at: Utc::from_unix(state.created as f64).rfc3339(),
        size: engine.weight_bytes as u64,
        digest: DIGEST,
        details: details(&state),
    };
    Ok(Json(Tags { models: [card] }).into_response())
}

pub(crate) async fn show(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, OllamaError> {
    let request: ShowRequest = read_json(&state, request, &Table::EMPTY).await?;
    let model = state.engine.model();
    let (name, family, context) = (&request.model, &model.model_type, model.context_length);
    let mut info = Map::new();
    info.insert("general.architecture".to_owned(), family.as_str().into());
    info.insert("general.name".to_owned(), name.as_str().into());
    info.insert(format!("{family}.context_length"), context.into());
    info.insert(format!("{family}.vocab_size"), model.vocab_size.into());
    let parsers = &state.config.parsers;
    let abilities =
        [("tools", parsers.tool_call.is_some()), ("thinking", parsers.reasoning.is_some())];
    let more = abilities.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name);
    let template = state.chat_template.as_ref();
    let response = ShowResponse {
        license: "",
        modelfile: format!("FROM {name}\nPARAMETER num_ctx {context}\n"),
        parameters: format!("num_ctx {context}"),
        template: template.map(|template| template.source()).unwrap_or_default(),
        modified_at: Utc::from_unix(state.created as f64).rfc3339(),
        details: details(&state),
        model_info: info,
        capabilities: ["completion"].into_iter().chain(more).collect(),
    };
    Ok(Json(response).into_response())
}

pub(crate) async fn version(State(state): State<AppState>) -> Json<Value> {
    Json(json!({"version": state.config.version}))
}

fn details(state: &AppState) -> Details<'_> {
    let family = state.engine.model().model_type.as_str();
    Details {
        parent_model: "",
        format: "sglang",
        family,
        families: [family],
        parameter_size: "unknown",
        quantization_level: "",
    }
}
