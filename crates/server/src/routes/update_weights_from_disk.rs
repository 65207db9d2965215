//! `/update_weights_from_disk`: other weights for the model that runs.

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use protocol::native::{UPDATE_WEIGHTS_TABLE, UpdateWeightsFromDiskRequest, UpdateWeightsResponse};
use types::{ControlMsg, WeightUpdate};

use crate::{AppState, body::read_json, error::ApiError};

/// Health probes are content meanwhile: the engine is busy, not stuck.
pub(crate) async fn update_weights_from_disk(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let request: UpdateWeightsFromDiskRequest =
        read_json(&state, request, &UPDATE_WEIGHTS_TABLE).await?;
    let update = WeightUpdate {
        model_path: request.model_path.clone(),
        load_format: request.load_format,
        abort_all_requests: request.abort_all_requests,
        flush_cache: request.flush_cache,
    };
    let updating = state.begin_update();
    // A client that leaves does not undo what the engine does: the names must follow.
    let task = tokio::spawn(async move {
        let answer = state.control(|reply| ControlMsg::UpdateWeights { update, reply }).await;
        drop(updating);
        let result = answer?;
        if result.is_ok() {
            state.set_model_path(request.model_path);
            if let Some(version) = &request.weight_version {
                state.set_weight_version(version.clone());
            }
        }
        Ok::<_, ApiError>(response(result, request.weight_version))
    });
    task.await.map_err(|_| ApiError::engine_gone())?
}

fn response(result: Result<usize, String>, version: Option<String>) -> Response {
    match result {
        Ok(num_paused_requests) => {
            let version = version.map(|version| format!(" Weight version updated to {version}."));
            let message =
                format!("Succeeded to update model weights.{}", version.unwrap_or_default());
            Json(UpdateWeightsResponse { success: true, message, num_paused_requests })
                .into_response()
        }
        Err(message) => {
            let body = UpdateWeightsResponse { success: false, message, num_paused_requests: 0 };
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}
