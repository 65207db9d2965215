//! The whole engine over a tiny random Llama: the same tokens whatever else
//! happens in the pool, the batch or the schedule.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mlx::{Array, Dtype};
use scheduler::{EvictionPolicy, Progress, QueueRules, SchedulerEvent, SchedulerMsg};
use types::{
    EngineMsg, EngineStatus, FinishReason, GenerateReq, ReqLogprobs, Rid, SamplingParams, TokenId,
};

use crate::{
    ChunkedPrefill, DeviceChoice, DtypeChoice, EngineConfig, EngineError, KvCacheDtype, LoadConfig,
    MemoryOptions, Overlap, Quiet, ScheduleConfig, StartedEngine, loading,
};

mod broken_checkpoints;
mod grammars;
mod logprobs;
mod packed_kv;
mod pooling;
mod reload;

const VOCAB: usize = 300;

const HIDDEN: usize = 64;
const INNER: usize = 96;
const LAYERS: usize = 2;
const KV_DIM: usize = 32;

/// One test at a time: they share MLX's memory figures and two cores.
fn alone() -> MutexGuard<'static, ()> {
    static DEVICE: Mutex<()> = Mutex::new(());
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn llama_config() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": false,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    })
}

/// A folder with a tiny random Llama. Its weights are large enough for its
/// tokens to depend on every token before them.
fn tiny_llama() -> tempfile::TempDir {
    tiny_llama_of(0)
}

/// Another seed, other weights.
fn tiny_llama_of(seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), llama_config().to_string()).unwrap();
    let mut weights = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let key = mlx::random::key(seed * 1000 + weights.len() as u64).unwrap();
        let values = match shape {
            [_] => Array::ones(shape, Dtype::Float32),
            _ => mlx::random::normal(shape, Dtype::Float32, Some(&key))
                .and_then(|normal| normal.mul_scalar(0.2)),
        };
        weights.insert(name, values.unwrap());
    };
    add("model.embed_tokens.weight".to_owned(), &[VOCAB, HIDDEN]);
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", &[HIDDEN][..]),
            ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.k_proj", &[KV_DIM, HIDDEN]),
            ("self_attn.v_proj", &[KV_DIM, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("mlp.gate_proj", &[INNER, HIDDEN]),
            ("mlp.up_proj", &[INNER, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, INNER]),
        ] {
            add(format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    add("model.norm.weight".to_owned(), &[HIDDEN]);
    add("lm_head.weight".to_owned(), &[VOCAB, HIDDEN]);
    let file = folder.path().join("model.safetensors");
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    mlx::io::save_safetensors(&file, &weights, &BTreeMap::new()).unwrap();
    folder
}

fn config(folder: &Path) -> EngineConfig {
    EngineConfig {
        model_path: folder.to_str().unwrap().to_owned(),
        load: LoadConfig::default(),
        device: DeviceChoice::Cpu,
        dtype: DtypeChoice::Auto,
        kv_cache_dtype: KvCacheDtype::Auto,
        prefill_attention_backend: "mlx".to_owned(),
        decode_attention_backend: "mlx".to_owned(),
        graph_runner: "auto".to_owned(),
        cuda_graph_max_bs_decode: None,
        memory: MemoryOptions {
            max_total_tokens: Some(2048),
            max_running_requests: Some(16),
            page_size: 16,
            ..MemoryOptions::default()
        },
        schedule: ScheduleConfig {
            queue: QueueRules::default(),
            conservativeness: 1.0,
            max_prefill_tokens: 4096,
            disable_radix_cache: false,
            eviction_policy: EvictionPolicy::Lru,
            mixed_chunk: false,
            overlap: Overlap::On,
        },
        random_seed: 1,
        decode_log_interval: 1000,
        profile: false,
        audits: true,
        warm_up: false,
    }
}

fn start(config: EngineConfig) -> Result<StartedEngine, EngineError> {
    crate::start(config, Box::new(Quiet))
}

/// Prompts of 3 to 100 tokens, two of which share a prefix; greedy and sampled.
fn requests() -> Vec<GenerateReq> {
    let greedy = SamplingParams { temperature: 0.0, ..Default::default() };
    let kinds = [
        greedy,
        SamplingParams { temperature: 0.8, ..Default::default() },
        SamplingParams { top_k: 20, top_p: 0.9, ..Default::default() },
        SamplingParams { min_p: 0.02, temperature: 1.5, ..Default::default() },
    ];
    [3, 40, 100, 17, 64, 33, 100, 5]
        .iter()
        .enumerate()
        .map(|(index, &len)| {
            // Numbers 2 and 6 begin alike for 80 tokens.
            let salt = |place: usize| if len == 100 && place < 80 { 2 } else { index };
            let token = |place: usize| (place * 37 + salt(place) * 101 + 11) % VOCAB;
            GenerateReq {
                rid: Rid::new(format!("r{index}")),
                input_ids: (0..len).map(|place| token(place) as TokenId).collect(),
                sampling_params: SamplingParams {
                    max_new_tokens: Some(24 + index),
                    sampling_seed: Some(index as u64),
                    ignore_eos: true,
                    ..kinds[index % kinds.len()].clone()
                },
                eos_token_ids: vec![2],
                logprobs: None,
                grammar: None,
                pooling: None,
                second_text: None,
                priority: None,
            }
        })
        .collect()
}

struct Outcome {
    /// By request, in the order given.
    tokens: Vec<Vec<TokenId>>,
    /// Likewise.
    logprobs: Vec<ReqLogprobs>,
    stats: types::SchedulerStats,
    /// Prefills that ran as decode steps.
    num_flat: usize,
    /// Prefills on which running requests rode.
    num_mixed: usize,
}

/// Runs requests to their end, all at once or one after the other.
fn run(config: &EngineConfig, requests: &[GenerateReq], together: bool) -> Outcome {
    run_flat(config, 0, requests, together)
}

/// The same with prefills of up to `flat_rows` tokens as decode steps.
fn run_flat(
    config: &EngineConfig,
    flat_rows: usize,
    requests: &[GenerateReq],
    together: bool,
) -> Outcome {
    let mut scheduler = loading::load(config, &Quiet).unwrap().scheduler;
    scheduler.executor_mut().kv_mut().set_flat_rows(flat_rows);
    let mut tokens = vec![Vec::new(); requests.len()];
    let mut logprobs = vec![ReqLogprobs::default(); requests.len()];
    let mut events = Vec::new();
    let size = if together { requests.len() } else { 1 };
    for group in requests.chunks(size) {
        let inbox = group.iter().map(|req| SchedulerMsg::Generate(Box::new(req.clone())));
        let mut inbox: Vec<_> = inbox.collect();
        while scheduler.step(inbox.drain(..), &mut events).unwrap() == Progress::Busy {}
    }
    for event in events {
        let SchedulerEvent::Req { rid, event } = event else { panic!("unexpected: {event:?}") };
        let index = requests.iter().position(|req| req.rid == rid).unwrap();
        tokens[index].extend(event.token_ids);
        let news = event.logprobs.unwrap_or_default();
        logprobs[index].input.extend(news.input);
        logprobs[index].output.extend(news.output);
        if let Some(FinishReason::Abort { message, .. }) = event.finish_reason {
            panic!("request {index} was aborted: {message}");
        }
    }
    let num_flat = scheduler.executor_mut().kv_mut().num_flat();
    let num_mixed = scheduler.executor_mut().kv_mut().num_mixed();
    Outcome { tokens, logprobs, stats: scheduler.stats(), num_flat, num_mixed }
}

#[test]
fn tokens_do_not_depend_on_batch_pool_or_schedule() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    let requests = requests();
    let alone = run(&base, &requests, false);
    for (req, tokens) in requests.iter().zip(&alone.tokens) {
        assert_eq!(Some(tokens.len()), req.sampling_params.max_new_tokens);
        assert!(tokens.iter().all(|&token| (token as usize) < VOCAB));
    }
    assert!(alone.stats.cached_tokens >= 80, "the shared prefix is found: {:?}", alone.stats);
    let different = |a: usize, b: usize| alone.tokens[a][..8] != alone.tokens[b][..8];
    assert!(different(0, 4) && different(2, 6), "the model must tell prompts apart");

    let together = run(&base, &requests, true);
    assert_eq!(together.tokens, alone.tokens, "in a batch");

    let schedule = ScheduleConfig { overlap: Overlap::Off, ..base.schedule.clone() };
    let no_overlap = EngineConfig { schedule, ..base.clone() };
    assert_eq!(run(&no_overlap, &requests, true).tokens, alone.tokens, "without overlap");

    let schedule = ScheduleConfig { disable_radix_cache: true, ..base.schedule.clone() };
    let no_radix = EngineConfig { schedule, ..base.clone() };
    let outcome = run(&no_radix, &requests, true);
    assert_eq!(outcome.tokens, alone.tokens, "without radix cache");
    assert_eq!(outcome.stats.cached_tokens, 0);

    let chunked_prefill = ChunkedPrefill::Tokens(16);
    let memory = MemoryOptions { chunked_prefill, ..base.memory.clone() };
    let chunked = EngineConfig { memory, ..base.clone() };
    assert_eq!(run(&chunked, &requests, true).tokens, alone.tokens, "in chunks of 16");

    // Where running requests ride on chunks, the prefill backend attends for them, too.
    let schedule = ScheduleConfig { mixed_chunk: true, ..base.schedule.clone() };
    let mixed = EngineConfig { schedule, ..chunked };
    for (prefill, decode) in
        [("paged", "paged"), ("sdpa", "paged"), ("paged", "sdpa"), ("sdpa", "sdpa")]
    {
        for base in [&base, &mixed] {
            let config = EngineConfig {
                prefill_attention_backend: prefill.to_owned(),
                decode_attention_backend: decode.to_owned(),
                ..base.clone()
            };
            let outcome = run(&config, &requests, true);
            let which = format!("prefill by {prefill}, decode by {decode}");
            assert_eq!(outcome.tokens, alone.tokens, "{which}");
            let is_mixed = config.schedule.mixed_chunk;
            assert_eq!(outcome.num_mixed > 0, is_mixed, "{which}");
        }
    }

    let memory = MemoryOptions { page_size: 1, ..base.memory.clone() };
    let token_pages = EngineConfig { memory, ..base };
    assert_eq!(run(&token_pages, &requests, true).tokens, alone.tokens, "in pages of 1");
}

#[test]
fn a_short_prefill_may_run_as_a_decode_step() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    let requests = requests();
    let expected = run(&base, &requests, false);
    assert_eq!(expected.num_flat, 0);
    // Of the prompts of 3 to 100 tokens, one at a time, one of 100 is too long; the
    // other has a cached prefix.
    let alone = run_flat(&base, 64, &requests, false);
    assert_eq!((alone.tokens, alone.num_flat), (expected.tokens.clone(), 7));
    // All of them in pieces of 16, several requests in one step.
    let memory = MemoryOptions {
        chunked_prefill: ChunkedPrefill::Tokens(16),
        page_size: 1,
        ..base.memory.clone()
    };
    let chunked = run_flat(&EngineConfig { memory, ..base }, 64, &requests, true);
    assert_eq!(chunked.tokens, expected.tokens);
    assert!(chunked.num_flat > 10, "{}", chunked.num_flat);
}

#[test]
fn tokens_survive_retraction() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    let mut requests = requests();
    for req in &mut requests {
        req.input_ids.truncate(16);
        req.sampling_params.max_new_tokens = Some(60);
    }
    let expected = run(&base, &requests, false).tokens;
    // Room for three of the eight to the end; admitted one a step, on the
    // assumption that hardly any of the 60 tokens will come.
    let memory = MemoryOptions { max_total_tokens: Some(256), ..base.memory.clone() };
    let schedule =
        ScheduleConfig { conservativeness: 0.1, max_prefill_tokens: 16, ..base.schedule.clone() };
    let outcome = run(&EngineConfig { memory, schedule, ..base }, &requests, true);
    assert_eq!(outcome.tokens, expected);
    assert!(outcome.stats.num_retractions > 0, "{:?}", outcome.stats);
}

#[test]
fn prompt_logits_agree_with_the_first_token() {
    let _alone = alone();
    let folder = tiny_llama();
    let config = config(folder.path());
    let req = requests().remove(4);
    let first = run(&config, std::slice::from_ref(&req), true).tokens;
    assert_eq!(first.len(), 1);

    let file = folder.path().join("logits.safetensors");
    crate::dump_prompt_logits(&config, &req.input_ids, &file, &Quiet).unwrap();
    let (arrays, _) = mlx::io::load_safetensors(&file).unwrap();
    let logits = &arrays["logits"];
    assert_eq!(logits.shape(), [req.input_ids.len(), VOCAB]);
    let ids = arrays["input_ids"].to_vec::<i32>().unwrap();
    assert!(ids.iter().zip(&req.input_ids).all(|(&id, &token)| id as TokenId == token));
    assert_eq!(ids.len(), req.input_ids.len());
    let last = &logits.to_vec::<f32>().unwrap()[(req.input_ids.len() - 1) * VOCAB..];
    let best = (0..VOCAB).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
    assert_eq!(first[0][0], best as TokenId, "request 4 is greedy");
}

#[test]
fn a_started_engine_answers_reports_itself_and_drains() {
    let _alone = alone();
    let folder = tiny_llama();
    let engine = start(EngineConfig { warm_up: true, ..config(folder.path()) }).unwrap();
    assert_eq!(engine.handle.status(), EngineStatus::Running);
    let model = engine.handle.model();
    assert_eq!((model.vocab_size, model.context_length), (VOCAB, 512));
    assert_eq!((model.max_total_num_tokens, model.max_running_requests), (2048, 16));
    assert_eq!(model.architectures, ["LlamaForCausalLM"]);
    assert_eq!(model.eos_token_ids, [2]);
    assert_eq!(engine.plan.max_total_num_tokens(), 2048);

    let (events, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let req = Box::new(requests().remove(0));
    let expected = req.sampling_params.max_new_tokens.unwrap();
    engine.handle.submit(EngineMsg::Generate { req, events }).unwrap();
    let mut tokens = Vec::new();
    while let Some(event) = receiver.blocking_recv() {
        tokens.extend(event.token_ids);
    }
    assert_eq!(tokens.len(), expected);

    let (reply, state) = tokio::sync::oneshot::channel();
    engine.handle.submit(EngineMsg::GetState(reply)).unwrap();
    let state = state.blocking_recv().unwrap();
    assert_eq!(state.kv_pool_bytes, 2048 * 2 * LAYERS * KV_DIM * 4);
    assert!(state.active_memory_bytes >= state.kv_pool_bytes, "{state:?}");

    engine.handle.submit(EngineMsg::Drain).unwrap();
    engine.join().unwrap();
}

#[test]
fn an_engine_that_cannot_start_says_why() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    let missing = EngineConfig { model_path: "/no/such/model".to_owned(), ..base.clone() };
    let Err(error) = start(missing) else { panic!("there is no such model") };
    assert!(error.to_string().contains("/no/such/model"), "{error}");

    let memory = MemoryOptions { context_length: Some(513), ..base.memory.clone() };
    let Err(error) = start(EngineConfig { memory, ..base }) else {
        panic!("longer than the model's context")
    };
    assert!(error.to_string().starts_with("--context-length must be"), "{error}");
}

#[test]
fn a_bench_case_gives_every_figure() {
    let _alone = alone();
    let folder = tiny_llama();
    let mut bench = crate::OneBatch::load(&config(folder.path()), &Quiet).unwrap();
    let case = crate::BenchCase { batch_size: 3, input_len: 20, output_len: 6 };
    let result = bench.run(case).unwrap();
    assert_eq!(result.case, case);
    assert!(result.prefill_tps > 0.0 && result.decode_tps > 0.0 && result.ttft_ms > 0.0);
    assert!(result.step_ms_median >= result.host_ms_median && result.host_ms_median > 0.0);
    assert!(result.peak_memory_bytes > 0);
    let too_many = crate::BenchCase { batch_size: 17, ..case };
    let error = bench.run(too_many).unwrap_err().to_string();
    assert!(error.contains("--max-running-requests is 16"), "{error}");
}
