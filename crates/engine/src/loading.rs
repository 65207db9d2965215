//! From a configuration to an engine that can run: device, model, memory plan,
//! pool, scheduler. Everything here happens on the thread that will own MLX.
//!
//! Upstream: `sglang/srt/model_executor/model_runner.py` (`initialize`).

use std::{path::Path, time::Instant};

use attention::{AttentionShape, CacheKind, KvDtype, KvPoolConfig, MAX_LATENT_SCORES};
use mlx::{Array, Dtype};
use model_loader::{HubOptions, LoadedModel, LoaderOptions, ModelSource, Progress as LoadProgress};
use models::CausalLm;
use nn::{HfConfig, LoadOptions, QuantSpec, Unpack, Weights};
use scheduler::{
    PrefillSharing, Progress, QueueRules, Scheduler, SchedulerEvent, SchedulerLimits, SchedulerMsg,
};
use types::{GenerateReq, ModelInfo, Pooling, Rid, SamplingParams};

use crate::{
    Bytes, EngineConfig, EngineError, LoadConfig, MemoryOptions, MemoryPlan, ModelShape, PlanError,
    Platform, TextSource, UnknownName, graph_runner,
    kv::{Kv, StatePool},
    memory_guard::MemoryGuard,
    model_runner::ModelRunner,
    platform::PlatformEntry,
    pooling,
    quantization::Quantization,
    reload::Reloader,
};

/// An engine before its first request.
pub(crate) struct Loaded {
    pub(crate) scheduler: Scheduler<ModelRunner>,
    pub(crate) plan: MemoryPlan,
    pub(crate) info: ModelInfo,
    pub(crate) text: TextSource,
}

/// A model on its device, before any memory is planned.
struct OnDevice {
    platform: Platform,
    model: Box<dyn CausalLm>,
    /// What it computes in.
    dtype: Dtype,
    /// What the pool's rows are made of.
    kv_dtype: KvDtype,
    shape: ModelShape,
    info: ModelInfo,
    text: TextSource,
    is_encoder: bool,
}

/// Checks the value of an option that names an attention backend.
///
/// # Errors
/// There is none of this name.
pub fn check_attention_backend(option: &'static str, name: &str) -> Result<(), EngineError> {
    let names = attention::BACKENDS.iter().map(|entry| entry.name);
    known(option, name, ["mlx"].into_iter().chain(names).collect())
}

/// Checks the value of `--graph-runner`.
///
/// # Errors
/// There is none of this name.
pub fn check_graph_runner(name: &str) -> Result<(), EngineError> {
    let names = graph_runner::RUNNERS.iter().map(|entry| entry.name);
    known("--graph-runner", name, ["auto"].into_iter().chain(names).collect())
}

fn known(option: &'static str, given: &str, names: Vec<&'static str>) -> Result<(), EngineError> {
    match names.contains(&given) {
        true => Ok(()),
        false => Err(EngineError::Unknown { option, source: UnknownName::new(given, names) }),
    }
}

/// Loads everything. Blocks for as long as that takes.
pub(crate) fn load(
    config: &EngineConfig,
    progress: &dyn LoadProgress,
) -> Result<Loaded, EngineError> {
    let start = Instant::now();
    let OnDevice { platform, model, dtype, kv_dtype, shape, mut info, text, is_encoder } =
        load_model(config, progress)?;
    let config = &match is_encoder {
        true => pooling::encoder_config(config, platform.entry, shape.context_length),
        false => config.clone(),
    };
    let plan =
        MemoryPlan::new(&platform, &shape, &config.memory, config.schedule.max_prefill_tokens)?;
    apply_limits(&plan, &config.memory)?;
    let mut limits = SchedulerLimits {
        max_running_requests: plan.max_running_requests,
        max_prefill_tokens: config.schedule.max_prefill_tokens,
        chunked_prefill_size: plan.chunked_prefill_size,
        // Whoever turns splitting off wants prompts whole.
        prefill_sharing: plan.chunked_prefill_size.map(|_| PrefillSharing {
            chunk: platform.entry.prefill_sharing.chunk.max(plan.page_size),
            ..platform.entry.prefill_sharing
        }),
        page_size: plan.page_size,
        num_pages: plan.num_pages,
        context_length: plan.context_length,
        queue: QueueRules { random_seed: config.random_seed, ..config.schedule.queue.clone() },
        schedule_conservativeness: config.schedule.conservativeness,
        disable_radix_cache: config.schedule.disable_radix_cache,
        eviction_policy: config.schedule.eviction_policy,
        // Without chunks a prompt would hold up whoever rides on it.
        mixed_chunk: config.schedule.mixed_chunk && plan.chunked_prefill_size.is_some(),
        overlap: platform.overlap(config.schedule.overlap),
        states: plan.states,
        windows: plan.windows,
    };
    limits.validate()?;
    info.prefill_sharing = limits.prefill_sharing;

    let pool = KvPoolConfig {
        num_window_pages: plan.windows.map(|windows| windows.num_pages),
        ..pool_config(&platform, plan.num_pages, plan.page_size, kv_dtype)
    };
    let states = (plan.states.map_or(0, |states| states.num_states), dtype);
    let reloader = reloader(config, &platform, (dtype, kv_dtype), &shape, &info)?;
    let runner = runner(reloader, model, (pool, states))?;
    let pooling = info.pooled.as_ref().map(|pooled| pooled.pooling);
    let runner = if pooling.is_some() { runner.pooled() } else { runner };
    // The warm-up is nobody's queue.
    let queue = std::mem::take(&mut limits.queue);
    let mut scheduler = Scheduler::new(runner, limits)?;
    if config.warm_up {
        warm_up(&mut scheduler, platform.entry, pooling)?;
    }
    scheduler.set_queue_rules(queue);
    info.context_length = plan.context_length;
    info.max_total_num_tokens = plan.max_total_num_tokens();
    info.page_size = plan.page_size;
    info.max_running_requests = plan.max_running_requests;
    info.max_req_input_len = plan.max_req_input_len;
    tracing::info!("engine ready after {:.1} s", start.elapsed().as_secs_f64());
    Ok(Loaded { scheduler, plan, info, text })
}

/// The model's text side alone: no weights are read, no device is touched.
///
/// # Errors
/// The model cannot be opened.
pub fn inspect(
    config: &EngineConfig,
    progress: &dyn LoadProgress,
) -> Result<TextSource, EngineError> {
    let options = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::Never };
    Ok(text_source(&open(&config.model_path, &config.load, options, 0, progress)?))
}

/// Runs a prompt in one step and writes its logits, `[tokens, vocab]` f32, as
/// `logits` to a safetensors file, and the prompt, `[tokens]` int32, as `input_ids`.
///
/// # Errors
/// As loading; ids outside the vocabulary; the file cannot be written.
pub fn dump_prompt_logits(
    config: &EngineConfig,
    prompt: &[types::TokenId],
    file: &Path,
    progress: &dyn LoadProgress,
) -> Result<(), EngineError> {
    let OnDevice { platform, model, dtype, kv_dtype, shape, info, .. } =
        load_model(config, progress)?;
    pooling::check_gives_tokens(&info)?;
    if let Some(&id) = prompt.iter().find(|&&id| id as usize >= shape.vocab_size) {
        return Err(EngineError::TokenId { id, vocab_size: shape.vocab_size });
    }
    let page_size = config.memory.page_size.max(1);
    let pool = pool_config(&platform, prompt.len().div_ceil(page_size), page_size, kv_dtype);
    let reloader = reloader(config, &platform, (dtype, kv_dtype), &shape, &info)?;
    let mut runner = runner(reloader, model, (pool, (1, dtype)))?;
    let logits = runner.prompt_logits(prompt)?;
    let ids: Vec<i32> = prompt.iter().map(|&id| id as i32).collect();
    let ids = Array::from_slice(&ids, &[ids.len()])?;
    Ok(mlx::io::save_safetensors(
        file,
        &[("logits".to_owned(), logits), ("input_ids".to_owned(), ids)].into_iter().collect(),
        &std::collections::BTreeMap::new(),
    )?)
}

fn reloader(
    config: &EngineConfig,
    platform: &Platform,
    (dtype, kv_dtype): (Dtype, KvDtype),
    shape: &ModelShape,
    info: &ModelInfo,
) -> Result<Reloader, EngineError> {
    let graph = match config.graph_runner.as_str() {
        "auto" => platform.entry.graph_runner,
        name => name,
    };
    check_graph_runner(graph)?;
    Ok(Reloader {
        config: config.clone(),
        platform: platform.clone(),
        dtype,
        kv_dtype,
        shape: shape.clone(),
        architectures: info.architectures.clone(),
        graph_runner: graph_runner::find(graph).expect("checked just now"),
    })
}

fn runner(
    reloader: Reloader,
    model: Box<dyn CausalLm>,
    (pool, (num_states, dtype)): (KvPoolConfig, (usize, Dtype)),
) -> Result<ModelRunner, EngineError> {
    let Reloader { config, platform, .. } = &reloader;
    let layers = model.kv_layout();
    let states = StatePool { layers: model.state_layout(), num_states, dtype };
    let backend = |name| match name {
        // The GPU kernels shift by the size of a page.
        "mlx" if !pool.page_size.is_power_of_two() => "sdpa",
        "mlx" => {
            let best = platform.entry.attention_backend;
            attention::find(best, &layers).map_or("sdpa", |entry| entry.name)
        }
        name => name,
    };
    let prefill = backend(config.prefill_attention_backend.as_str());
    let decode = backend(config.decode_attention_backend.as_str());
    let graph = (reloader.graph_runner.new)(config.cuda_graph_max_bs_decode);
    let max_graph_rows = graph.max_graph_rows();
    if let Some(text) =
        graph_runner::describe_limit(config.cuda_graph_max_bs_decode, max_graph_rows)
    {
        tracing::info!("{text}");
    }
    let buckets = graph_runner::row_buckets(platform.entry.row_buckets, max_graph_rows);
    let layouts = (layers.clone(), states);
    let kv = Kv::new(layouts, (prefill, decode), pool, (buckets, max_graph_rows))?;
    let guard = MemoryGuard::new(platform.memory_bytes).map_err(EngineError::Thread)?;
    Ok(ModelRunner::new(model, graph, kv, reloader, guard))
}

fn pool_config(
    platform: &Platform,
    num_pages: usize,
    page_size: usize,
    dtype: KvDtype,
) -> KvPoolConfig {
    KvPoolConfig {
        num_pages,
        num_window_pages: None,
        page_size,
        dtype,
        max_buffer_bytes: platform.max_buffer_bytes,
    }
}

fn load_model(config: &EngineConfig, progress: &dyn LoadProgress) -> Result<OnDevice, EngineError> {
    mlx::check_version()?;
    check_attention_backend("--prefill-attention-backend", &config.prefill_attention_backend)?;
    check_attention_backend("--decode-attention-backend", &config.decode_attention_backend)?;
    check_graph_runner(&config.graph_runner)?;
    let platform = Platform::select(config.device)?;
    if let Some(fault) = kernels::Kernels::fault() {
        tracing::warn!("this GPU does not run our kernels, using MLX's own operations: {fault}");
    }
    let before = mlx::memory::active_bytes();
    let opened = open_for(config, &platform, progress)?;
    let text = text_source(&opened);
    let eos_token_ids = opened.eos_token_ids().to_vec();
    check_room(&platform, config, &opened.config, &opened.weights)?;
    let pooling::Loaded { model, pooled, is_encoder } =
        pooling::load(&opened, config.load.is_embedding)?;
    let LoadedModel { config: hf_config, .. } = opened;
    let weight_bytes = mlx::memory::active_bytes().saturating_sub(before);
    tracing::info!("weights loaded: {}", Bytes(weight_bytes));
    let dtype = platform.dtype(config.dtype, hf_config.dtype());
    let kv_dtype = config.kv_cache_dtype.of_model(dtype);
    let shape = model_shape(model.as_ref(), weight_bytes, dtype.size_in_bytes(), kv_dtype);
    let info = ModelInfo {
        model_path: config.model_path.clone(),
        model_type: hf_config.model_type().unwrap_or_default().to_owned(),
        architectures: hf_config.architectures().to_vec(),
        vocab_size: model.vocab_size(),
        eos_token_ids,
        pooled,
        device: platform.device_name.clone(),
        ..ModelInfo::default()
    };
    Ok(OnDevice { platform, model, dtype, kv_dtype, shape, info, text, is_encoder })
}

/// Opens the model in the dtype to compute in. That may depend on the model's
/// config, so the model is opened a second time where the first guess was wrong.
pub(crate) fn open_for(
    config: &EngineConfig,
    platform: &Platform,
    progress: &dyn LoadProgress,
) -> Result<LoadedModel, EngineError> {
    let open_in = |compute_dtype| {
        let options = LoadOptions { compute_dtype, unpack: platform.entry.unpack };
        open(&config.model_path, &config.load, options, config.random_seed, progress)
    };
    let guess = platform.dtype(config.dtype, None);
    let mut opened = open_in(guess)?;
    let dtype = platform.dtype(config.dtype, opened.config.dtype());
    tracing::info!("computing in {dtype:?}");
    if dtype != guess {
        opened = open_in(dtype)?;
    }
    if let Some(method) = opened.imported_from {
        match opened.config.quant().default_spec() {
            Some(spec) => tracing::info!("weights quantized by {method}, imported as {spec}"),
            None => tracing::info!("weights quantized by {method}, imported as bf16"),
        }
    }
    if let Some(quantization) = config.load.quantization
        && let Some(how) = quantization.on_load(&opened)?
    {
        tracing::info!("packing the weights while they are loaded: {}", how.spec);
        opened.weights.quantize_on_load(how);
    }
    Ok(opened)
}

/// Opens a model; `dummy_seed` for weights that are made up.
pub(crate) fn open(
    model_path: &str,
    load: &LoadConfig,
    weights: LoadOptions,
    dummy_seed: u64,
    progress: &dyn LoadProgress,
) -> Result<LoadedModel, EngineError> {
    let source = ModelSource::resolve(model_path, load.revision.as_deref())?;
    let mut hub = HubOptions::from_env();
    if let Some(folder) = &load.download_dir {
        hub.cache_dir.clone_from(folder);
    }
    let options = LoaderOptions {
        format: load.format,
        override_args: serde_json::Value::Object(load.config_overrides.clone()).to_string(),
        hub,
        dummy_seed,
        check_config: models::check,
        ..LoaderOptions::new(weights)
    };
    Ok(model_loader::load(&source, &options, progress)?)
}

fn text_source(opened: &LoadedModel) -> TextSource {
    TextSource {
        tokenizer: opened.tokenizer.clone(),
        generation_config: opened.generation_config.clone(),
        eos_token_ids: opened.eos_token_ids().to_vec(),
    }
}

/// Refuses weights that cannot fit, before they fill the memory. An estimate
/// from the size of the tensors; the plan has the exact figure later.
fn check_room(
    platform: &Platform,
    config: &EngineConfig,
    hf_config: &HfConfig,
    weights: &Weights,
) -> Result<(), EngineError> {
    let weight_bytes = estimated_bytes(platform, config, hf_config, weights);
    if weight_bytes > platform.memory_bytes {
        let memory_bytes = platform.memory_bytes;
        return Err(PlanError::WeightsTooLarge { weight_bytes, memory_bytes }.into());
    }
    Ok(())
}

/// Bytes that a checkpoint's weights take on the device; 0 for weights that are made up, of
/// which nobody knows.
pub(crate) fn estimated_bytes(
    platform: &Platform,
    config: &EngineConfig,
    hf_config: &HfConfig,
    weights: &Weights,
) -> usize {
    if config.load.format == model_loader::LoadFormat::Dummy {
        return 0;
    }
    let dtype = platform.dtype(config.dtype, hf_config.dtype());
    let compute_bits = match config.load.quantization.and_then(Quantization::spec) {
        Some(spec) if !is_unpacked(platform, spec) => spec.bits + 1,
        _ => dtype.size_in_bytes() * 8,
    };
    let stored_bits = match hf_config.quant().default_spec() {
        // Scales and biases add about one bit to each weight.
        Some(spec) if is_unpacked(platform, spec) => spec.bits + 1,
        Some(_) => compute_bits,
        None => hf_config.dtype().map_or(compute_bits, |dtype| dtype.size_in_bytes() * 8),
    };
    weights.stored_bytes() / stored_bits * compute_bits
}

fn is_unpacked(platform: &Platform, spec: QuantSpec) -> bool {
    match platform.entry.unpack {
        Unpack::Never => false,
        Unpack::WithoutKernel => !spec.has_cpu_kernel(),
        Unpack::Always => true,
    }
}

/// Sizes for the plan.
pub(crate) fn model_shape(
    model: &dyn CausalLm,
    weight_bytes: usize,
    itemsize: usize,
    kv_dtype: KvDtype,
) -> ModelShape {
    let layers = model.kv_layout();
    let bytes = |layer: &AttentionShape| layer.cache_bytes_per_token(kv_dtype);
    let has_window = |layer: &&AttentionShape| layer.kept_tokens().is_some();
    let widest = |width: fn(&AttentionShape) -> usize| layers.iter().map(width).max().unwrap_or(0);
    ModelShape {
        weight_bytes,
        kv_bytes_per_token: layers.iter().map(bytes).sum(),
        window: layers.iter().filter_map(AttentionShape::kept_tokens).max(),
        window_bytes_per_token: layers.iter().filter(has_window).map(bytes).sum(),
        state_bytes: model.state_layout().iter().map(|layer| layer.nbytes(itemsize)).sum(),
        itemsize,
        hidden_size: model.hidden_size(),
        intermediate_size: model.intermediate_size(),
        num_heads: widest(|layer| layer.num_heads),
        expanded_kv_dim: widest(|layer| match layer.cache {
            CacheKind::Latent { .. } => layer.head_dim,
            _ => layer.num_heads * layer.head_dim,
        }),
        latent_scores: match layers.iter().any(|layer| layer.cache != CacheKind::Full) {
            true => MAX_LATENT_SCORES,
            false => 0,
        },
        vocab_size: model.vocab_size(),
        context_length: model.context_length(),
    }
}

fn apply_limits(plan: &MemoryPlan, options: &MemoryOptions) -> Result<(), EngineError> {
    mlx::memory::set_memory_limit(plan.memory_limit_bytes())?;
    mlx::memory::set_cache_limit(plan.cache_limit_bytes())?;
    if let Some(bytes) = options.wired_limit_bytes {
        mlx::memory::set_wired_limit(bytes)?;
    }
    Ok(())
}

/// Runs a few short requests, so that the first clients do not pay for kernels
/// that are compiled on first use and for steps that are made into graphs, and
/// forgets them.
fn warm_up(
    scheduler: &mut Scheduler<ModelRunner>,
    platform: &PlatformEntry,
    pooling: Option<Pooling>,
) -> Result<(), EngineError> {
    let start = Instant::now();
    tracing::info!("warming up ({}); new kernels may take a while to compile", platform.name);
    let mut events = Vec::new();
    let limits = scheduler.limits().clone();
    // Each request takes a page or two.
    let most = limits.max_running_requests.min(limits.num_pages / 4);
    let buckets = scheduler.executor().row_buckets().to_vec();
    // The largest first: the others run in its memory.
    let is_wanted = |&rows: &usize| rows > 1 && rows <= most && pooling.is_none();
    for num_reqs in buckets.into_iter().rev().filter(is_wanted) {
        run_together(scheduler, num_reqs, (0.0, pooling), &mut events)?;
        tracing::info!("decode steps of {num_reqs} rows are ready");
    }
    for temperature in [0.0, 1.0] {
        run_together(scheduler, 1, (temperature, pooling), &mut events)?;
    }
    scheduler.step([SchedulerMsg::FlushCache], &mut events)?;
    tracing::info!("warm-up done after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs as many requests to their end, which takes enough decode steps of one
/// shape for a graph.
fn run_together(
    scheduler: &mut Scheduler<ModelRunner>,
    num_reqs: usize,
    (temperature, pooling): (f32, Option<Pooling>),
    events: &mut Vec<SchedulerEvent>,
) -> Result<(), EngineError> {
    let sampling_params = SamplingParams {
        max_new_tokens: Some(6),
        temperature,
        top_p: 0.9,
        ignore_eos: true,
        sampling_seed: Some(0),
        ..SamplingParams::default()
    };
    let room = scheduler.limits().context_length.saturating_sub(7).min(8);
    let mut inbox: Vec<SchedulerMsg> = (0..num_reqs)
        .map(|index| {
            SchedulerMsg::Generate(Box::new(GenerateReq {
                rid: Rid::new(format!("warm-up-{num_reqs}-{index}")),
                input_ids: vec![0; room.max(1)],
                sampling_params: sampling_params.clone(),
                eos_token_ids: Vec::new(),
                logprobs: None,
                grammar: None,
                pooling,
                second_text: None,
                priority: None,
            }))
        })
        .collect();
    while scheduler.step(inbox.drain(..), events)? == Progress::Busy {}
    events.clear();
    Ok(())
}
