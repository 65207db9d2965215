//! `/v1/models`.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use protocol::openai::{ModelCard, ModelList};
use serde_json::json;

use crate::AppState;

pub(crate) async fn list(State(state): State<AppState>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: vec![card(&state)] })
}

pub(crate) async fn retrieve(State(state): State<AppState>, Path(id): Path<String>) -> Response {
    if id == state.config.served_model_name {
        return Json(card(&state)).into_response();
    }
    let error = json!({"error": {
        "message": format!("The model '{id}' does not exist"),
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }});
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}

fn card(state: &AppState) -> ModelCard {
    let id = state.config.served_model_name.clone();
    ModelCard {
        root: id.clone(),
        id,
        object: "model",
        created: state.created,
        owned_by: "sglang",
        parent: None,
        max_model_len: state.engine.model().context_length,
    }
}
