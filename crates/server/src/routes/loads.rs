//! `/v1/loads`: what a gateway balances by.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use protocol::native::{Load, LoadsResponse};
use types::EngineState;

use super::server_info::memory_usage;
use crate::{AppState, error::ApiError, state::unix_seconds};

pub(crate) async fn loads(State(state): State<AppState>) -> Result<Response, ApiError> {
    let engine_state = state.engine_state().await.ok_or_else(|| {
        let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
        ApiError::http(status, "The engine did not answer in time.")
    })?;
    let response = LoadsResponse {
        timestamp: unix_seconds(),
        version: &state.config.version,
        accelerator: &state.engine.model().device,
        num_accelerators: 1,
        loads: vec![load(&engine_state, state.engine.model().max_running_requests)],
    };
    Ok(Json(response).into_response())
}

fn load(state: &EngineState, max_running_requests: usize) -> Load {
    let stats = &state.scheduler;
    Load {
        dp_rank: 0,
        num_running_reqs: stats.num_running_reqs,
        num_waiting_reqs: stats.num_waiting_reqs,
        num_used_tokens: stats.num_used_tokens(),
        num_total_tokens: stats.num_used_tokens() + stats.num_evictable_tokens,
        max_total_num_tokens: stats.max_total_num_tokens,
        max_running_requests,
        token_usage: stats.token_usage(),
        gen_throughput: state.last_gen_throughput,
        cache_hit_rate: stats.cache_hit_rate(),
        utilization: stats.num_running_reqs as f64 / max_running_requests.max(1) as f64,
        memory: memory_usage(state),
    }
}
