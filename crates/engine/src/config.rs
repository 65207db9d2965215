//! What the engine is started with: every option checked, none of them text any more.
//!
//! An `Option` that is left means "by the platform or by the model", which only
//! the engine thread can know. The command line's own form is `cli::args`.
//!
//! Upstream: `sglang/srt/server_args.py`.

use std::{fmt, path::PathBuf, str::FromStr};

use attention::KvDtype;
use mlx::Dtype;
use thiserror::Error;

use crate::Quantization;

/// A word that an option does not have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{given}` is not one of {}", known.join(", "))]
pub struct UnknownName {
    /// What was given.
    pub given: String,
    /// What there is.
    pub known: Vec<&'static str>,
}

impl UnknownName {
    pub(crate) fn new(given: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        Self { given: given.to_owned(), known: known.into_iter().collect() }
    }
}

/// `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best device that MLX has here.
    #[default]
    Mlx,
    /// An Apple GPU.
    Metal,
    /// An NVIDIA GPU.
    Cuda,
    /// The processor.
    Cpu,
}

impl DeviceChoice {
    const ALL: [(&'static str, Self); 4] =
        [("cpu", Self::Cpu), ("cuda", Self::Cuda), ("metal", Self::Metal), ("mlx", Self::Mlx)];
}

impl FromStr for DeviceChoice {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        find(&Self::ALL, name)
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::ALL, *self))
    }
}

/// `--dtype`: what activations, and weights that are not packed, are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DtypeChoice {
    /// By device and model.
    #[default]
    Auto,
    /// This one.
    Fixed(Dtype),
}

impl DtypeChoice {
    const ALL: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("half", Self::Fixed(Dtype::Float16)),
        ("float16", Self::Fixed(Dtype::Float16)),
        ("bfloat16", Self::Fixed(Dtype::Bfloat16)),
        ("float", Self::Fixed(Dtype::Float32)),
        ("float32", Self::Fixed(Dtype::Float32)),
    ];
}

impl FromStr for DtypeChoice {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        find(&Self::ALL, name)
    }
}

impl fmt::Display for DtypeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::ALL, *self))
    }
}

/// `--kv-cache-dtype`: what the rows of the K/V pool are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvCacheDtype {
    /// Elements of the type that is computed in.
    #[default]
    Auto,
    /// This.
    Fixed(KvDtype),
}

impl KvCacheDtype {
    const ALL: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("bf16", Self::Fixed(KvDtype::Plain(Dtype::Bfloat16))),
        ("bfloat16", Self::Fixed(KvDtype::Plain(Dtype::Bfloat16))),
        ("fp8_e4m3", Self::Fixed(KvDtype::Fp8E4m3)),
        ("int4", Self::Fixed(KvDtype::Int4)),
        ("int8", Self::Fixed(KvDtype::Int8)),
    ];

    /// Under a model that computes in `dtype`.
    pub fn of_model(self, dtype: Dtype) -> KvDtype {
        match self {
            Self::Auto => dtype.into(),
            Self::Fixed(kv_dtype) => kv_dtype,
        }
    }
}

impl FromStr for KvCacheDtype {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        find(&Self::ALL, name)
    }
}

fn find<T: Copy>(all: &[(&'static str, T)], name: &str) -> Result<T, UnknownName> {
    all.iter()
        .find(|entry| entry.0 == name)
        .map(|entry| entry.1)
        .ok_or_else(|| UnknownName::new(name, all.iter().map(|entry| entry.0)))
}

fn name_of<T: Copy + PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    all.iter().rev().find(|entry| entry.1 == value).map_or("?", |entry| entry.0)
}

/// Sizes of pool and batches; `None` is chosen by [`crate::MemoryPlan`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MemoryOptions {
    /// Share of the device's memory for weights and K/V pool, in (0, 1).
    pub mem_fraction_static: Option<f64>,
    /// Tokens in the K/V pool, at most.
    pub max_total_tokens: Option<usize>,
    /// Requests in one decode batch.
    pub max_running_requests: Option<usize>,
    /// Prompt and completion together; `None`: what the model was trained for.
    pub context_length: Option<usize>,
    /// Tokens of one prefill step.
    pub chunked_prefill: ChunkedPrefill,
    /// Tokens in a page.
    pub page_size: usize,
    /// Tokens that layers with a sliding window keep, for one that the others keep; in (0, 1].
    pub swa_full_tokens_ratio: Option<f64>,
    /// Layers with a sliding window keep every token.
    pub disable_hybrid_swa_memory: bool,
    /// Bytes that Metal is asked to keep resident. Off unless asked for: see
    /// docs/compat/server-args.md.
    pub wired_limit_bytes: Option<usize>,
}

/// `--chunked-prefill-size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChunkedPrefill {
    /// By device and memory.
    #[default]
    Auto,
    /// A prompt is prefilled in one step, however long.
    Off,
    /// At most this many tokens in one step.
    Tokens(usize),
}

/// Everything the engine thread needs to start.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// A folder, a GGUF file or a hub id.
    pub model_path: String,
    /// How to read it.
    pub load: LoadConfig,
    /// Where to run.
    pub device: DeviceChoice,
    /// What to compute in.
    pub dtype: DtypeChoice,
    /// What to keep K and V in.
    pub kv_cache_dtype: KvCacheDtype,
    /// For prompts: a name in `attention::BACKENDS`, or `mlx` for the platform's best.
    pub prefill_attention_backend: String,
    /// The same for decode steps.
    pub decode_attention_backend: String,
    /// Name in [`crate::graph_runner::RUNNERS`], or `auto`.
    pub graph_runner: String,
    /// Requests of the largest decode step that is made into a graph, where a runner makes
    /// any; `None`: as many as its kernels take.
    pub cuda_graph_max_bs_decode: Option<usize>,
    /// Pool and batch sizes.
    pub memory: MemoryOptions,
    /// Order of the waiting queue, and how much is admitted.
    pub schedule: ScheduleConfig,
    /// Seeds the requests that bring no seed of their own.
    pub random_seed: u64,
    /// A decode log line every so many decode steps.
    pub decode_log_interval: usize,
    /// Measure where the time of steps goes, for the log and `/server_info`.
    pub profile: bool,
    /// Prove the bookkeeping of pages and requests after every step, and end the engine where
    /// it is wrong: slow, for tests under load.
    pub audits: bool,
    /// Run every shape once before the first request.
    pub warm_up: bool,
}

/// Options of the scheduler that the memory plan does not touch.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleConfig {
    /// Who waits, and who goes first. The seed in it is the engine's.
    pub queue: scheduler::QueueRules,
    /// Scales the estimate of how much running requests will still generate.
    pub conservativeness: f64,
    /// Tokens of one prefill batch over all its requests.
    pub max_prefill_tokens: usize,
    /// Do not keep finished requests' pages.
    pub disable_radix_cache: bool,
    /// Which cached prefix goes first when pages run out.
    pub eviction_policy: scheduler::EvictionPolicy,
    /// Those that run take a token in every prefill step, too.
    pub mixed_chunk: bool,
    /// Whether step n + 1 is launched before step n is read.
    pub overlap: Overlap,
}

/// `--disable-overlap-schedule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// By device.
    #[default]
    Auto,
    /// Launch first, then read.
    On,
    /// Read first, then launch.
    Off,
}

/// Options of loading.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadConfig {
    /// `--load-format`.
    pub format: model_loader::LoadFormat,
    /// Branch, tag or commit of a hub id.
    pub revision: Option<String>,
    /// Where a hub id is kept.
    pub download_dir: Option<PathBuf>,
    /// Merged over the model's config.json.
    pub config_overrides: serde_json::Map<String, serde_json::Value>,
    /// `--quantization`.
    pub quantization: Option<Quantization>,
    /// `--is-embedding`: a decoder gives embeddings.
    pub is_embedding: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for name in ["cpu", "cuda", "metal", "mlx"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        for name in ["auto", "float16", "bfloat16", "float32"] {
            assert_eq!(name.parse::<DtypeChoice>().unwrap().to_string(), name);
        }
        for name in ["auto", "bf16", "bfloat16", "fp8_e4m3", "int4", "int8"] {
            let dtype: KvCacheDtype = name.parse().unwrap();
            assert_eq!(dtype == KvCacheDtype::Auto, name == "auto");
        }
        assert_eq!("int8".parse(), Ok(KvCacheDtype::Fixed(KvDtype::Int8)));
        assert_eq!(KvCacheDtype::Auto.of_model(Dtype::Float16), KvDtype::Plain(Dtype::Float16));
        assert_eq!(
            "fp8_e5m2".parse::<KvCacheDtype>().unwrap_err().to_string(),
            "`fp8_e5m2` is not one of auto, bf16, bfloat16, fp8_e4m3, int4, int8"
        );
        assert_eq!("half".parse(), Ok(DtypeChoice::Fixed(Dtype::Float16)));
        assert_eq!("float".parse(), Ok(DtypeChoice::Fixed(Dtype::Float32)));
        assert_eq!(
            "npu".parse::<DeviceChoice>().unwrap_err().to_string(),
            "`npu` is not one of cpu, cuda, metal, mlx"
        );
    }
}
