//! `/configure_logging`.

use axum::extract::{Request, State};
use protocol::native::{CONFIGURE_LOGGING_TABLE, ConfigureLoggingRequest};

use crate::{AppState, LogFormat, body::read_json_or_default, error::ApiError};

pub(crate) async fn configure_logging(
    State(state): State<AppState>,
    request: Request,
) -> Result<(), ApiError> {
    let request: ConfigureLoggingRequest =
        read_json_or_default(&state, request, &CONFIGURE_LOGGING_TABLE).await?;
    // Everything is checked before anything changes.
    let format = request.log_requests_format.as_deref().map(str::parse::<LogFormat>).transpose();
    let format =
        format.map_err(|error| ApiError::value(format!("log_requests_format: {error}")))?;
    let level = request.log_requests_level.map(|level| match level.as_u64() {
        Some(level @ 0..=3) => Ok(level as u8),
        _ => Err(ApiError::value(format!("log_requests_level must be 0 to 3, got {level}."))),
    });
    let level = level.transpose()?;
    if let Some(level) = &request.log_level {
        state.set_log_level(level).map_err(ApiError::value)?;
    }
    state.requests.log().configure(|options| {
        options.is_on = request.log_requests.unwrap_or(options.is_on);
        options.level = level.unwrap_or(options.level);
        options.format = format.unwrap_or(options.format);
    });
    if let Some(folder) = request.crash_dump_folder {
        state.requests.book.set_folder(folder.into());
    }
    Ok(())
}
