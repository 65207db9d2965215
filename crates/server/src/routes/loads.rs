//! `/v1/loads`: what a gateway balances by.
//!
//! Upstream: `sglang/srt/entrypoints/v1_loads.py`.

use std::fmt::Write;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use metrics::Format;
use protocol::native::{
    Load, LoadDisaggregation, LoadMemory, LoadQueues, LoadsQuery, LoadsResponse,
};
use serde_json::{Map, Value, json};
use types::EngineState;

use super::server_info::GIB;
use crate::{AppState, error::ApiError, state::unix_seconds, utc::Utc};

/// Sorted. There is nothing to tell of `lora` and `spec`.
const SECTIONS: [&str; 7] = ["all", "core", "disagg", "lora", "memory", "queues", "spec"];

pub(crate) async fn loads(
    State(state): State<AppState>,
    query: Result<Query<LoadsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::schema(error.body_text()))?;
    let sections = Sections::parse(query.include.as_deref())?;
    let is_prometheus = match query.format.as_deref() {
        None | Some("json") => false,
        Some("prometheus") => true,
        Some(other) => {
            return Err(ApiError::value(format!(
                "format must be json or prometheus, got {other}."
            )));
        }
    };
    let engine_state = state.engine_state().await.ok_or_else(|| {
        ApiError::http(StatusCode::SERVICE_UNAVAILABLE, "The engine did not answer in time.")
    })?;
    let load = load(&state, &engine_state, &sections);
    let loads: Vec<_> =
        query.dp_rank.is_none_or(|rank| rank == 0).then_some(load).into_iter().collect();
    if is_prometheus {
        let content_type = Format::Prometheus.content_type();
        return Ok(([(CONTENT_TYPE, content_type)], prometheus(&loads)).into_response());
    }
    let response = LoadsResponse {
        timestamp: format!("{}+00:00", Utc::now().iso()),
        version: &state.config.version,
        accelerator: &state.engine.model().device,
        num_accelerators: 1,
        loads,
    };
    Ok(Json(response).into_response())
}

/// Which of the sections that there are were asked for.
struct Sections {
    memory: bool,
    disagg: bool,
    queues: bool,
}

impl Sections {
    fn parse(include: Option<&str>) -> Result<Self, ApiError> {
        let include = include.filter(|include| !include.is_empty()).unwrap_or("all");
        let names: Vec<&str> = include.split(',').map(str::trim).collect();
        if let Some(name) = names.iter().find(|name| !SECTIONS.contains(name)) {
            let known = SECTIONS.join(", ");
            let message = format!("Invalid include section: {name}. Valid options: {known}.");
            return Err(ApiError::value(message));
        }
        let has = |name| names.contains(&"all") || names.contains(&name);
        Ok(Self { memory: has("memory"), disagg: has("disagg"), queues: has("queues") })
    }
}

fn load(state: &AppState, engine: &EngineState, sections: &Sections) -> Load {
    let stats = &engine.scheduler;
    let max_running_requests = state.engine.model().max_running_requests;
    let num_total_tokens = stats.num_used_tokens() + stats.num_evictable_tokens;
    let num_live = stats.num_running_reqs + stats.num_waiting_reqs;
    Load {
        timestamp: unix_seconds(),
        dp_rank: 0,
        num_running_reqs: stats.num_running_reqs,
        num_waiting_reqs: stats.num_waiting_reqs,
        num_used_tokens: stats.num_used_tokens(),
        num_total_tokens,
        num_active_tokens: num_total_tokens,
        max_total_num_tokens: stats.max_total_num_tokens,
        max_running_requests,
        token_usage: stats.token_usage(),
        gen_throughput: engine.last_gen_throughput,
        cache_hit_rate: stats.cache_hit_rate(),
        utilization: stats.num_running_reqs as f64 / max_running_requests.max(1) as f64,
        total_prefill_uncached_tokens: stats.prompt_tokens.saturating_sub(stats.cached_tokens),
        memory: sections.memory.then(|| LoadMemory {
            weight_gb: engine.weight_bytes as f64 / GIB,
            kv_cache_gb: engine.kv_pool_bytes as f64 / GIB,
            token_capacity: stats.max_total_num_tokens,
        }),
        disaggregation: sections.disagg.then_some(LoadDisaggregation { mode: "null" }),
        queues: sections.queues.then(|| LoadQueues {
            waiting: stats.num_waiting_reqs,
            paused: if state.is_paused() { num_live } else { 0 },
        }),
    }
}

/// Every number as a gauge; those of a section with its name before them.
fn prometheus(loads: &[Load]) -> String {
    let mut text = String::new();
    for load in loads {
        let Value::Object(fields) = json!(load) else { continue };
        let rank = load.dp_rank;
        let mut gauge = |name: &str, value: &Value| {
            if value.is_number() {
                let _ = writeln!(text, "# TYPE sglang_{name} gauge");
                let _ = writeln!(text, "sglang_{name}{{dp_rank=\"{rank}\"}} {value}");
            }
        };
        for (name, value) in fields.iter().filter(|(name, _)| *name != "dp_rank") {
            let section = if name == "disaggregation" { "disagg" } else { name };
            gauge(name, value);
            let nothing = Map::new();
            for (inner, value) in value.as_object().unwrap_or(&nothing) {
                gauge(&format!("{section}_{inner}"), value);
            }
        }
    }
    text
}
