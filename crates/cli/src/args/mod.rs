//! The command line as typed: SGLang's flag names and defaults, grouped as
//! upstream groups them. [`crate::resolve`] turns it into configurations.
//!
//! Upstream: `sglang/srt/server_args.py`.

mod device;
mod exec;
mod grammar;
mod memory;
mod metrics;
mod model;
mod observability;
pub(crate) mod refused;
mod requests;
mod schedule;
mod serving;
mod token_count;

use std::fmt::Display;

use engine::StartedEngine;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

pub(crate) use device::DeviceArgs;
pub(crate) use exec::ExecArgs;
pub(crate) use grammar::GrammarArgs;
pub(crate) use memory::MemoryArgs;
pub(crate) use metrics::MetricsArgs;
pub(crate) use model::ModelArgs;
pub(crate) use observability::ObservabilityArgs;
pub(crate) use requests::RequestArgs;
pub(crate) use schedule::{DEFAULT_PREEMPTION_THRESHOLD, ScheduleArgs};
pub(crate) use serving::ServingArgs;

/// What every command that runs a model takes.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) memory: MemoryArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) schedule: ScheduleArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) exec: ExecArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) observability: ObservabilityArgs,
}

/// What `launch-server` takes.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) serving: ServingArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) requests: RequestArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) metrics: MetricsArgs,
}

impl ServerArgs {
    /// All options as `/server_info` shows them: as typed, and where the engine
    /// has decided, what it decided. Without the key.
    ///
    /// # Errors
    /// None: every option is plain data.
    pub(crate) fn as_shown(
        &self,
        engine: &StartedEngine,
        model_path: &str,
    ) -> serde_json::Result<Map<String, Value>> {
        let mut shown = match serde_json::to_value(self)? {
            Value::Object(shown) => shown,
            other => Map::from_iter([("arguments".to_owned(), other)]),
        };
        let plan = &engine.plan;
        let chunk = plan.chunked_prefill_size.map_or(-1, |size| size as i64);
        for (name, value) in [
            ("model_path", json!(model_path)),
            (
                "served_model_name",
                json!(self.serving.served_model_name.as_deref().unwrap_or(model_path)),
            ),
            ("context_length", json!(plan.context_length)),
            ("mem_fraction_static", json!(plan.mem_fraction_static)),
            ("max_running_requests", json!(plan.max_running_requests)),
            ("max_total_tokens", json!(plan.max_total_num_tokens())),
            ("chunked_prefill_size", json!(chunk)),
            ("random_seed", json!(engine.random_seed)),
        ] {
            shown.insert(name.to_owned(), value);
        }
        Ok(shown)
    }
}

/// Shows an option as it is typed.
fn as_text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
