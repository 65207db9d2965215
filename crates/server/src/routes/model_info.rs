//! `/model_info` and its old name.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use protocol::native::ModelInfoResponse;
use serde_json::Value;

use crate::AppState;

pub(crate) async fn model_info(State(state): State<AppState>) -> Response {
    let (config, model) = (&state.config, state.engine.model());
    let arg = |name: &str| config.server_args.get(name).cloned().unwrap_or(Value::Null);
    Json(ModelInfoResponse {
        model_path: &state.model_path(),
        served_model_name: &config.served_model_name,
        tokenizer_path: &config.tokenizer_path,
        is_generation: model.pooled.is_none(),
        preferred_sampling_params: None,
        weight_version: &state.weight_version(),
        load_format: arg("load_format"),
        reasoning_parser: config.parsers.reasoning.map(|entry| entry.name.to_owned()),
        tool_call_parser: config.parsers.tool_call.map(|entry| entry.name.to_owned()),
        disaggregation_mode: "null",
        has_image_understanding: false,
        has_audio_understanding: false,
        model_type: &model.model_type,
        architectures: &model.architectures,
    })
    .into_response()
}
