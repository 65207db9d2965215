//! Models that give a vector for each prompt: which those are, and the end of their steps.
//!
//! Upstream: `is_generation_model` in `sglang/srt/configs/model_config.py`,
//! `sglang/srt/layers/pooler.py`.

use mlx::{Array, Dtype, Result};
use model_loader::LoadedModel;
use models::{CausalLm, HfConfig, Pooled, PooledRows};
use scheduler::{BatchRow, ScheduleBatch};
use serde_json::Value;
use types::{Matryoshka, ModelInfo, PooledModel, PooledOutput, Pooling};

use crate::{
    ChunkedPrefill, EngineConfig, EngineError, MemoryOptions, ScheduleConfig,
    platform::PlatformEntry,
};

/// A model, and what its vectors are if it gives those.
pub(crate) struct Loaded {
    pub(crate) model: Box<dyn CausalLm>,
    pub(crate) pooled: Option<PooledModel>,
    /// A prompt has to come in one step, with nothing cached.
    pub(crate) is_encoder: bool,
}

/// Loads the model. It gives vectors because of its architecture, of its folder's
/// `modules.json`, or because `--is-embedding` asks for it.
pub(crate) fn load(
    opened: &LoadedModel,
    is_embedding: bool,
) -> std::result::Result<Loaded, EngineError> {
    let config = &opened.config;
    let is_pooled = is_embedding || models::is_pooled(config);
    if !is_pooled && opened.pooling.is_none() {
        let model = models::load(config, &opened.weights)?;
        return Ok(Loaded { model, pooled: None, is_encoder: false });
    }
    if !is_pooled {
        tracing::info!("modules.json says that this is an embedding model: it gives no tokens");
    }
    let Pooled { model, rows, is_encoder } = models::load_pooled(config, &opened.weights)?;
    let has_labels = matches!(rows, PooledRows::Scores { .. });
    let output = match rows {
        PooledRows::Scores { labels } => PooledOutput::Scores { labels },
        PooledRows::Hidden => {
            PooledOutput::Embedding { size: model.hidden_size(), shorter: matryoshka(config)? }
        }
    };
    let pooling = match (is_encoder, opened.pooling) {
        (true, _) if has_labels => Pooling::First,
        (_, Some(pooling)) => pooling,
        (true, None) => Pooling::First,
        (false, None) => Pooling::Last,
    };
    Ok(Loaded { model, pooled: Some(PooledModel { pooling, output, is_encoder }), is_encoder })
}

/// The configuration that an encoder can run with: prompts come whole, nothing is kept of
/// them, and the pool is no larger than its requests.
pub(crate) fn encoder_config(
    config: &EngineConfig,
    platform: &PlatformEntry,
    context_length: usize,
) -> EngineConfig {
    let memory = &config.memory;
    let num_reqs = memory.max_running_requests.unwrap_or(platform.max_running_requests).max(1);
    let context_length = memory.context_length.unwrap_or(context_length);
    let all = num_reqs * context_length.next_multiple_of(memory.page_size.max(1)).max(2);
    EngineConfig {
        memory: MemoryOptions {
            chunked_prefill: ChunkedPrefill::Off,
            max_total_tokens: memory.max_total_tokens.or(Some(all)),
            ..memory.clone()
        },
        schedule: ScheduleConfig { disable_radix_cache: true, ..config.schedule.clone() },
        ..config.clone()
    }
}

/// For commands that generate.
///
/// # Errors
/// The model gives vectors.
pub fn check_gives_tokens(model: &ModelInfo) -> std::result::Result<(), EngineError> {
    match model.pooled {
        None => Ok(()),
        Some(_) => Err(EngineError::GivesVectors { model: model.model_path.clone() }),
    }
}

/// What config.json says of shorter embeddings.
fn matryoshka(config: &HfConfig) -> std::result::Result<Matryoshka, nn::LoadError> {
    let wrong = |field: &str, reason: &str| nn::LoadError::Config {
        file: "config.json",
        field: field.to_owned(),
        reason: reason.to_owned(),
    };
    if let Some(sizes) = config.get("matryoshka_dimensions") {
        let sizes = sizes.as_array().and_then(|sizes| {
            sizes.iter().map(|size| usize::try_from(size.as_u64()?).ok()).collect()
        });
        let reason = "expected a list of sizes";
        return sizes.map(Matryoshka::Sizes).ok_or_else(|| wrong("matryoshka_dimensions", reason));
    }
    match config.get("is_matryoshka") {
        None | Some(Value::Bool(false)) => Ok(Matryoshka::No),
        Some(Value::Bool(true)) => Ok(Matryoshka::Any),
        Some(_) => Err(wrong("is_matryoshka", "expected true or false")),
    }
}

/// Sums of a step's rows on their way, one for each part of a prompt that is pooled.
pub(crate) struct PooledSums {
    /// `[num_sums, width]` f32; one that nobody wants if there is none. Depends on every
    /// write of the batch.
    sums: Array,
    num_sums: usize,
}

impl PooledSums {
    /// Of the model's `outputs` `[num_pooled_tokens, width]` for a batch. Builds the graph
    /// only.
    ///
    /// # Errors
    /// Those of MLX.
    pub(crate) fn new(batch: &ScheduleBatch, outputs: &Array) -> Result<Self> {
        let lens = |row: &BatchRow| row.pooled.as_ref().map(ExactSizeIterator::len);
        let lens: Vec<usize> = batch.rows.iter().filter_map(lens).collect();
        let outputs = outputs.astype(Dtype::Float32)?;
        if lens.iter().all(|&len| len == 1) {
            return Ok(Self { sums: outputs, num_sums: lens.len() });
        }
        let (width, mut start) = (outputs.dim(1) as i32, 0);
        let sums = lens.iter().map(|&len| {
            let end = start + len as i32;
            let part = outputs.slice(&[start, 0], &[end, width], &[1, 1])?;
            start = end;
            part.sum(&[0], true)
        });
        let sums: Vec<Array> = sums.collect::<Result<_>>()?;
        let sums = Array::concatenate(&sums.iter().collect::<Vec<_>>(), 0)?;
        Ok(Self { sums, num_sums: lens.len() })
    }

    /// What must be evaluated for the step to be done.
    pub(crate) fn array(&self) -> &Array {
        &self.sums
    }

    /// `[1]` int32 that comes after all of it; its value means nothing.
    ///
    /// # Errors
    /// Those of MLX.
    pub(crate) fn end(&self) -> Result<Array> {
        self.sums.slice(&[0, 0], &[1, 1], &[1, 1])?.reshape(&[1])?.astype(Dtype::Int32)
    }

    /// Waits for the device.
    ///
    /// # Errors
    /// Those of MLX.
    pub(crate) fn read(&self) -> Result<Vec<Vec<f32>>> {
        let values: Vec<f32> = self.sums.to_vec()?;
        let rows = values.chunks_exact(self.sums.dim(1)).take(self.num_sums);
        Ok(rows.map(<[f32]>::to_vec).collect())
    }
}
