//! `/update_weight_version`: what answers call the weights from now on.

use axum::{
    Json,
    extract::{Request, State},
};
use protocol::{
    Table,
    native::{UpdateWeightVersionRequest, UpdateWeightVersionResponse},
};
use types::EngineMsg;

use crate::{AppState, body::read_json, error::ApiError};

pub(crate) async fn update_weight_version(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<UpdateWeightVersionResponse>, ApiError> {
    let request: UpdateWeightVersionRequest = read_json(&state, request, &Table::EMPTY).await?;
    if request.abort_all_requests {
        state.engine.send(EngineMsg::Abort { rid: None }).await?;
    }
    let new_version = request.new_version;
    state.set_weight_version(new_version.clone());
    let message = format!("Weight version updated to {new_version}");
    Ok(Json(UpdateWeightVersionResponse { success: true, message, new_version }))
}
