//! `/metrics`.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use metrics::Format;

use crate::{AppState, error::ApiError};

pub(crate) async fn metrics(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !state.config.enable_metrics {
        return Err(super::root::not_found_error());
    }
    // A busy or dead engine leaves the gauges at their last values.
    if let Some(engine) = state.engine_state().await {
        let scheduler = &state.metrics.scheduler;
        scheduler.observe(&engine.scheduler, engine.last_gen_throughput, &state.static_facts());
        scheduler.observe_memory(&engine);
        let stats = &engine.scheduler;
        let num_live = stats.num_running_reqs + stats.num_waiting_reqs;
        scheduler.observe_paused(if state.is_paused() { num_live } else { 0 });
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept);
    let text = state.metrics.export(format);
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}
