//! `/start_profile` and `/stop_profile`: where the time of steps goes.
//!
//! The profile is a table in the log and, if a folder is named, a file of JSON: mean times of
//! each stage of a step, for prefill and decode. Upstream writes a trace of the framework there.

use std::path::PathBuf;

use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use protocol::native::{START_PROFILE_TABLE, StartProfileRequest};
use serde_json::json;
use tokio::sync::oneshot;
use types::{ControlMsg, StepProfiles};

use crate::{AppState, body::read_json_or_default, error::ApiError, utc::Utc};

pub(crate) async fn start_profile(
    State(state): State<AppState>,
    request: Request,
) -> Result<&'static str, ApiError> {
    let request: StartProfileRequest =
        read_json_or_default(&state, request, &START_PROFILE_TABLE).await?;
    let num_steps = request.num_steps;
    if num_steps == Some(0) {
        return Err(ApiError::value("num_steps must be at least 1, got 0."));
    }
    let path = path(&request)?;
    let (ended, profile) = oneshot::channel();
    let start = |started| ControlMsg::StartProfile { num_steps, started, ended };
    if !state.control(start).await? {
        return Err(conflict("A profile is being taken already (/start_profile or --profile)."));
    }
    if let Some(path) = path {
        tokio::spawn(write(path, profile));
    }
    Ok("Start profiling.\n")
}

pub(crate) async fn stop_profile(State(state): State<AppState>) -> Result<&'static str, ApiError> {
    match state.control(ControlMsg::StopProfile).await? {
        true => Ok("Stop profiling. This will take some time.\n"),
        false => Err(conflict("No profile is being taken; /start_profile begins one.")),
    }
}

fn conflict(message: &str) -> ApiError {
    ApiError::http(StatusCode::BAD_REQUEST, message)
}

/// `<output_dir>/<profile_prefix>-<profile_id>.json`.
fn path(request: &StartProfileRequest) -> Result<Option<PathBuf>, ApiError> {
    let id = request.profile_id.clone().unwrap_or_else(|| Utc::now().file_name());
    let name = match &request.profile_prefix {
        Some(prefix) => format!("{prefix}-{id}.json"),
        None => format!("{id}.json"),
    };
    if name.contains(['/', '\\']) {
        return Err(ApiError::value("profile_id and profile_prefix must not contain slashes."));
    }
    Ok(request.output_dir.as_ref().map(|folder| PathBuf::from(folder).join(name)))
}

async fn write(path: PathBuf, profile: oneshot::Receiver<StepProfiles>) {
    // An engine that dies has no profile to give.
    let Ok(profile) = profile.await else { return };
    let written = tokio::task::spawn_blocking(move || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&path, json!(profile).to_string()).map(|()| path)
    });
    match written.await {
        Ok(Ok(path)) => tracing::info!("wrote a profile to {}", path.display()),
        Ok(Err(error)) => tracing::error!(%error, "cannot write a profile"),
        Err(error) => tracing::error!(%error, "writing a profile panicked"),
    }
}
