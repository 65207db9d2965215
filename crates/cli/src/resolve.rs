//! From what was typed to what is run: every option checked and combined once,
//! before anything heavy is touched.

pub(crate) mod environment;
mod eviction;
mod queue;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use engine::{
    ChunkedPrefill, DeviceChoice, EngineConfig, KvCacheDtype, LoadConfig, MemoryOptions, Overlap,
    ScheduleConfig,
};
use serde_json::{Map, Value};

use crate::{
    args::{EngineArgs, ExecArgs, MemoryArgs, ModelArgs, ScheduleArgs, refused::DOCUMENT},
    default_model::default_model_path,
};

/// Upstream's, for deterministic inference.
const DEFAULT_SAMPLING_SEED: u64 = 42;

/// Names that exist.
struct Backends {
    prefill: String,
    decode: String,
    graph_runner: String,
}

impl ExecArgs {
    fn resolve(&self) -> Result<Backends> {
        engine::check_attention_backend("--attention-backend", &self.attention_backend)?;
        let backend = |option, own: &Option<String>| match own {
            Some(name) => {
                engine::check_attention_backend(option, name)?;
                anyhow::Ok(name.clone())
            }
            None => Ok(self.attention_backend.clone()),
        };
        engine::check_graph_runner(&self.graph_runner)?;
        ensure!(
            self.cuda_graph_max_bs_decode != Some(0),
            "--cuda-graph-max-bs-decode must be at least 1; --disable-cuda-graph makes no graphs"
        );
        let graph_runner = match (self.disable_cuda_graph, self.graph_runner.as_str()) {
            (true, "auto" | "eager") => "eager",
            (true, name) => bail!("--disable-cuda-graph contradicts --graph-runner {name}"),
            (false, name) => name,
        };
        Ok(Backends {
            prefill: backend("--prefill-attention-backend", &self.prefill_attention_backend)?,
            decode: backend("--decode-attention-backend", &self.decode_attention_backend)?,
            graph_runner: graph_runner.to_owned(),
        })
    }
}

impl EngineArgs {
    /// Checks the options and turns them into the engine's configuration.
    ///
    /// # Errors
    /// The first option that cannot be honoured, by its name.
    pub(crate) fn resolve(&self) -> Result<EngineConfig> {
        let exec = self.exec.resolve()?;
        let random_seed = self.device.random_seed.or(self.deterministic_seed()?);
        ensure!(
            self.observability.decode_log_interval >= 1,
            "--decode-log-interval must be at least 1"
        );
        Ok(EngineConfig {
            model_path: self.model.resolved_path()?,
            load: self.model.load_config()?,
            device: self.device.device,
            dtype: self.model.dtype,
            kv_cache_dtype: self.model.kv_cache_dtype()?,
            prefill_attention_backend: exec.prefill,
            decode_attention_backend: exec.decode,
            graph_runner: exec.graph_runner,
            cuda_graph_max_bs_decode: self.exec.cuda_graph_max_bs_decode,
            memory: self.memory_options()?,
            schedule: self.schedule.resolve(&self.memory)?,
            random_seed: random_seed.unwrap_or_else(seed_of_this_start),
            decode_log_interval: self.observability.decode_log_interval,
            profile: false,
            audits: environment::audits()?,
            warm_up: true,
        })
    }

    /// What requests without a seed get under `--enable-deterministic-inference`.
    ///
    /// # Errors
    /// The device is, or might turn out to be, a GPU.
    pub(crate) fn deterministic_seed(&self) -> Result<Option<u64>> {
        let is_asked_for = self.exec.enable_deterministic_inference;
        let device = self.device.device;
        ensure!(
            !is_asked_for || device == DeviceChoice::Cpu,
            "--enable-deterministic-inference needs --device cpu, got --device {device}"
        );
        Ok(is_asked_for.then_some(DEFAULT_SAMPLING_SEED))
    }

    fn memory_options(&self) -> Result<MemoryOptions> {
        let memory = &self.memory;
        Ok(MemoryOptions {
            mem_fraction_static: memory.mem_fraction_static,
            max_total_tokens: memory.max_total_tokens,
            max_running_requests: memory.max_running_requests,
            context_length: self.model.context_length,
            chunked_prefill: chunked_prefill(memory.chunked_prefill_size)?,
            page_size: memory.page_size,
            swa_full_tokens_ratio: memory.swa_full_tokens_ratio,
            disable_hybrid_swa_memory: memory.disable_hybrid_swa_memory,
            wired_limit_bytes: match self.device.mlx_wired_limit_gb {
                Some(gib) if gib > 0.0 && gib.is_finite() => {
                    Some((gib * (1u64 << 30) as f64) as usize)
                }
                Some(gib) => bail!("--mlx-wired-limit-gb must be positive, got {gib}"),
                None => None,
            },
        })
    }
}

impl ModelArgs {
    /// The model that was named, or the default one.
    ///
    /// # Errors
    /// None was named, and the default one was never fetched.
    pub(crate) fn resolved_path(&self) -> Result<String> {
        match &self.model_path {
            Some(path) => Ok(path.clone()),
            None => Ok(default_model_path()?.to_string_lossy().into_owned()),
        }
    }

    /// A pool that is not packed is held in the type that is computed in, so bf16 is that of
    /// `--dtype bfloat16`; under another, or `auto`, which may turn out as another, it is
    /// refused.
    fn kv_cache_dtype(&self) -> Result<KvCacheDtype> {
        let name = &self.kv_cache_dtype;
        let kv_cache_dtype: KvCacheDtype = match name.parse() {
            Ok(kv_cache_dtype) => kv_cache_dtype,
            Err(error) => bail!("--kv-cache-dtype: {error}; see {DOCUMENT}"),
        };
        ensure!(
            !name.starts_with('b') || self.dtype.to_string() == "bfloat16",
            "--kv-cache-dtype {name} needs --dtype bfloat16, got --dtype {}",
            self.dtype
        );
        Ok(kv_cache_dtype)
    }

    fn load_config(&self) -> Result<LoadConfig> {
        let quantization = self.quantization.as_deref().map(str::parse);
        Ok(LoadConfig {
            format: self
                .load_format
                .parse()
                .with_context(|| format!("--load-format {}", self.load_format))?,
            revision: self.revision.clone(),
            download_dir: self.download_dir.clone(),
            config_overrides: json_object(&self.json_model_override_args)
                .context("--json-model-override-args")?,
            quantization: quantization.transpose().context("--quantization")?,
            is_embedding: self.is_embedding,
        })
    }
}

impl ScheduleArgs {
    fn resolve(&self, memory: &MemoryArgs) -> Result<ScheduleConfig> {
        let conservativeness = self.schedule_conservativeness;
        ensure!(
            conservativeness > 0.0 && conservativeness.is_finite(),
            "--schedule-conservativeness must be positive, got {conservativeness}"
        );
        ensure!(self.max_prefill_tokens >= 1, "--max-prefill-tokens must be at least 1");
        Ok(ScheduleConfig {
            queue: self.queue_rules()?,
            conservativeness,
            max_prefill_tokens: self.max_prefill_tokens,
            disable_radix_cache: memory.disable_radix_cache,
            eviction_policy: memory.eviction_policy()?,
            mixed_chunk: self.enable_mixed_chunk,
            overlap: if self.disable_overlap_schedule { Overlap::Off } else { Overlap::Auto },
        })
    }
}

fn chunked_prefill(given: Option<i64>) -> Result<ChunkedPrefill> {
    match given {
        None => Ok(ChunkedPrefill::Auto),
        Some(-1) => Ok(ChunkedPrefill::Off),
        Some(tokens) if tokens >= 1 => Ok(ChunkedPrefill::Tokens(tokens as usize)),
        Some(other) => bail!("--chunked-prefill-size must be -1 or at least 1, got {other}"),
    }
}

pub(crate) fn json_object(text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text)? {
        Value::Object(object) => Ok(object),
        other => bail!("expected a JSON object, got {other}"),
    }
}

/// Different on each start, as upstream's default is.
fn seed_of_this_start() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64) ^ u64::from(std::process::id())
}

#[cfg(test)]
mod tests;
