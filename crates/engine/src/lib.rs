//! The engine: one thread that owns MLX, the model, the K/V pool and the
//! scheduler, and answers messages.
//!
//! Platform and memory plan decide what fits; the model runner turns batches
//! into tensors; the loop in `engine_thread` joins both with the world outside.
//!
//! Upstream: `sglang/srt/managers/scheduler.py`,
//! `sglang/srt/model_executor/model_runner.py`.

mod bench;
mod config;
mod convert;
mod engine_thread;
mod error;
pub mod graph_runner;
mod kv;
mod loading;
mod memory_guard;
mod memory_plan;
mod model_runner;
mod pace;
pub mod platform;
mod pooling;
mod profiler;
mod quantization;
mod reload;
mod sampler;
mod stage_clock;
mod start;
mod step_clock;
mod step_log;
#[cfg(test)]
mod tests;

pub use attention::KvDtype;
pub use bench::{BenchCase, BenchResult, OneBatch};
pub use config::{
    ChunkedPrefill, DeviceChoice, DtypeChoice, EngineConfig, KvCacheDtype, LoadConfig,
    MemoryOptions, Overlap, ScheduleConfig, UnknownName,
};
pub use convert::{ConvertOptions, convert};
pub use error::EngineError;
pub use loading::{check_attention_backend, check_graph_runner, dump_prompt_logits, inspect};
pub use memory_plan::{Bytes, MemoryPlan, ModelShape, PlanError};
pub use model_loader::{Progress as LoadProgress, Quiet, TokenizerSource, Written};
pub use models::{MixedRecipe, UnknownRecipe};
pub use nn::QuantSpec;
pub use platform::Platform;
pub use pooling::check_gives_tokens;
pub use quantization::Quantization;
pub use scheduler::{EvictionPolicy, PriorityRules, QueueRules, RetractionPolicy, SchedulePolicy};
pub use start::{StartedEngine, TextSource, start};
pub use step_clock::StepClock;
pub use types::{Profile, Stage, StageTimes};
