//! `/server_info` and its old name: resolved arguments and live state.

use axum::{Json, extract::State};
use protocol::native::{InternalState, MemoryUsage};
use serde_json::{Map, Value, json};
use types::{EngineState, EngineStatus, SchedulerStats};

use crate::AppState;

pub(super) const GIB: f64 = (1u64 << 30) as f64;

pub(crate) async fn server_info(State(state): State<AppState>) -> Json<Map<String, Value>> {
    let (config, model) = (&state.config, state.engine.model());
    // A busy engine answers late; the rest is worth having without it.
    let engine_state = state.engine_state().await;
    let internal_states: Vec<InternalState> = engine_state.iter().map(internal_state).collect();
    let mut info = config.shown_args();
    let facts = json!({
        "served_model_name": config.served_model_name,
        "model_path": state.model_path(),
        "weight_version": state.weight_version(),
        "model_type": model.model_type,
        "architectures": model.architectures,
        "context_length": model.context_length,
        "max_total_num_tokens": model.max_total_num_tokens,
        "max_total_tokens": model.max_total_num_tokens,
        "max_running_requests": model.max_running_requests,
        "max_req_input_len": model.max_req_input_len,
        "prefill_sharing": model.prefill_sharing,
        "vocab_size": model.vocab_size,
        "eos_token_ids": state.eos_token_ids,
        "device_name": model.device,
        "status": status_name(state.engine.status()),
        "startup_time": state.created,
        "uptime_seconds": state.started.elapsed().as_secs_f64(),
        "num_live_requests": state.num_live_requests(),
        "internal_states": internal_states,
        "version": config.version,
        "frontend": "rust",
    });
    if let Value::Object(facts) = facts {
        info.extend(facts);
    }
    if let Some(profile) = engine_state.and_then(|state| state.profile) {
        info.insert("profile".to_owned(), json!(profile));
    }
    Json(info)
}

fn status_name(status: EngineStatus) -> &'static str {
    match status {
        EngineStatus::Starting => "starting",
        EngineStatus::Running => "ready",
        EngineStatus::Draining => "draining",
        EngineStatus::Stopped => "stopped",
        EngineStatus::Failed => "failed",
    }
}

fn internal_state(state: &EngineState) -> InternalState {
    InternalState {
        last_gen_throughput: state.last_gen_throughput,
        memory_usage: memory_usage(state),
        scheduler: scheduler_fields(&state.scheduler),
    }
}

fn memory_usage(state: &EngineState) -> MemoryUsage {
    MemoryUsage {
        weight: state.weight_bytes as f64 / GIB,
        kvcache: state.kv_pool_bytes as f64 / GIB,
        token_capacity: state.scheduler.max_total_num_tokens,
        active: state.active_memory_bytes as f64 / GIB,
        peak: state.peak_memory_bytes as f64 / GIB,
    }
}

fn scheduler_fields(stats: &SchedulerStats) -> Map<String, Value> {
    let fields = json!({
        "num_running_reqs": stats.num_running_reqs,
        "num_waiting_reqs": stats.num_waiting_reqs,
        "num_used_tokens": stats.num_used_tokens(),
        "num_free_tokens": stats.num_free_tokens,
        "num_evictable_tokens": stats.num_evictable_tokens,
        "num_protected_tokens": stats.num_protected_tokens,
        "num_private_tokens": stats.num_private_tokens,
        "token_usage": stats.token_usage(),
        "cache_hit_rate": stats.cache_hit_rate(),
        "num_retractions": stats.num_retractions,
        "num_aborted_reqs": stats.num_aborted_reqs,
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "generation_tokens": stats.generation_tokens,
        "evicted_tokens": stats.evicted_tokens,
        "new_token_ratio": stats.new_token_ratio,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
