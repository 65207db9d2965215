//! Plans for machines of several sizes, and those that cannot hold.

use super::*;
use crate::platform::PLATFORMS;

const GIB: usize = 1 << 30;

fn platform(name: &str, memory_bytes: usize) -> Platform {
    let entry = PLATFORMS.iter().find(|entry| entry.name == name).unwrap();
    Platform { entry, device_name: name.to_owned(), memory_bytes, max_buffer_bytes: None }
}

/// Llama-3.2-3B, 4-bit, bf16 activations.
fn llama_3b() -> ModelShape {
    ModelShape {
        weight_bytes: 1_810_000_000,
        kv_bytes_per_token: 28 * 2 * 8 * 128 * 2,
        window: None,
        window_bytes_per_token: 0,
        state_bytes: 0,
        itemsize: 2,
        hidden_size: 3072,
        intermediate_size: 8192,
        num_heads: 24,
        expanded_kv_dim: 24 * 128,
        latent_scores: 0,
        vocab_size: 128_256,
        context_length: 131_072,
    }
}

/// SmolLM2-135M in f32.
fn smol() -> ModelShape {
    ModelShape {
        weight_bytes: 540_000_000,
        kv_bytes_per_token: 30 * 2 * 3 * 64 * 4,
        window: None,
        window_bytes_per_token: 0,
        state_bytes: 0,
        itemsize: 4,
        hidden_size: 576,
        intermediate_size: 1536,
        num_heads: 9,
        expanded_kv_dim: 9 * 64,
        latent_scores: 0,
        vocab_size: 49_152,
        context_length: 8192,
    }
}

fn options() -> MemoryOptions {
    MemoryOptions { page_size: 16, ..Default::default() }
}

fn plan(
    name: &str,
    gib: usize,
    model: &ModelShape,
    options: &MemoryOptions,
) -> Result<MemoryPlan, PlanError> {
    MemoryPlan::new(&platform(name, gib * GIB), model, options, 16384)
}

#[test]
fn defaults_by_platform() {
    let cpu = plan("cpu", 16, &smol(), &options()).unwrap();
    assert_eq!(cpu.max_total_num_tokens(), 8 * 8192);
    assert_eq!(cpu.kv_pool_bytes, 8 * 8192 * 46_080);
    assert_eq!(cpu.chunked_prefill_size, Some(512));
    assert_eq!((cpu.max_running_requests, cpu.context_length), (64, 8192));
    assert_eq!(cpu.max_req_input_len, 8191);

    let cuda = plan("cuda", 80, &llama_3b(), &options()).unwrap();
    assert_eq!(cuda.chunked_prefill_size, Some(8192));
    assert_eq!(cuda.max_running_requests, 256);
    assert!(cuda.weight_bytes + cuda.kv_pool_bytes + cuda.activation_bytes <= 80 * GIB);
    assert!(cuda.weight_bytes + cuda.kv_pool_bytes <= (80.0 * 0.85 * GIB as f64) as usize);
}

#[test]
fn options_are_obeyed() {
    let asked = MemoryOptions {
        max_total_tokens: Some(1000),
        max_running_requests: Some(7),
        context_length: Some(4096),
        chunked_prefill: ChunkedPrefill::Tokens(16),
        ..options()
    };
    let plan16 = plan("cpu", 16, &smol(), &asked).unwrap();
    assert_eq!((plan16.num_pages, plan16.max_total_num_tokens()), (62, 992));
    assert_eq!(plan16.max_running_requests, 7);
    assert_eq!(plan16.context_length, 4096);
    assert_eq!(plan16.chunked_prefill_size, Some(16));
    assert_eq!(plan16.max_req_input_len, 991);

    let off = MemoryOptions { chunked_prefill: ChunkedPrefill::Off, ..options() };
    assert_eq!(plan("cpu", 32, &smol(), &off).unwrap().chunked_prefill_size, None);

    let half = MemoryOptions { mem_fraction_static: Some(0.5), ..options() };
    let half = plan("cpu", 16, &smol(), &half).unwrap();
    let bytes = half.weight_bytes + half.kv_pool_bytes;
    assert!(bytes <= 8 * GIB && bytes + 16 * 46_080 > 8 * GIB, "an explicit share is used up");
}

#[test]
fn activations_of_a_step_do_not_depend_on_the_prompt() {
    let model = llama_3b();
    let stream = 2048 * (8 * 3072 + 3 * 8192) * 2;
    let gathered = 4 * 8192 * 3072 * 2;
    let logits = 8 * 64 * 128_256 * 4;
    let mask = 2048 * 8192 * 2;
    let fused = activation_bytes(&model, 2048, 64, 8192, false);
    assert_eq!(fused, stream + gathered + mask + logits);
    let scores = 2 * 24 * 2048 * 8192 * 4;
    let plain = activation_bytes(&model, 2048, 64, 8192, true);
    assert_eq!(plain, stream + gathered + scores + logits);

    // Scores over latents are bounded, and by what there is if that is less.
    let latent = ModelShape { latent_scores: 1 << 26, ..model };
    let bounded = activation_bytes(&latent, 2048, 64, 8192, false);
    assert_eq!(bounded - fused, 4 * 4 * (1 << 26));
    let few = |model: &ModelShape| activation_bytes(model, 1, 64, 64, false);
    assert_eq!(
        few(&latent) - few(&ModelShape { latent_scores: 0, ..latent.clone() }),
        16 * 24 * 64
    );
}

#[test]
fn automatic_chunk_shrinks_to_fit() {
    let asked = MemoryOptions { context_length: Some(32_768), ..options() };
    let wide = ModelShape { intermediate_size: 131_072, ..llama_3b() };
    let small = plan("cpu", 5, &wide, &asked).unwrap();
    let chunk = small.chunked_prefill_size.unwrap();
    assert!((64..512).contains(&chunk) && small.activation_bytes <= 5 * GIB / 4, "{small}");
}

#[test]
fn what_cannot_fit_is_refused() {
    let error = plan("cpu", 1, &llama_3b(), &options()).unwrap_err();
    assert!(matches!(error, PlanError::TooSmall { .. }));
    assert!(error.to_string().starts_with("the model does not fit: weights take 1.69 GiB"));

    let huge = MemoryOptions { max_total_tokens: Some(10_000_000), ..options() };
    let PlanError::PoolTooLarge { asked, fits, .. } = plan("cpu", 16, &smol(), &huge).unwrap_err()
    else {
        panic!("a pool that cannot fit must be refused");
    };
    assert_eq!(asked, 10_000_000);
    let most = MemoryOptions { max_total_tokens: Some(fits), ..options() };
    assert_eq!(plan("cpu", 16, &smol(), &most).unwrap().max_total_num_tokens(), fits);
}

#[test]
fn ranges_are_checked() {
    let bad: [(MemoryOptions, &str); 7] = [
        (MemoryOptions { mem_fraction_static: Some(1.0), ..options() }, "--mem-fraction-static"),
        (MemoryOptions { mem_fraction_static: Some(f64::NAN), ..options() }, "--mem-fraction"),
        (MemoryOptions { max_running_requests: Some(0), ..options() }, "--max-running-requests"),
        (MemoryOptions { page_size: 0, ..options() }, "--page-size"),
        (MemoryOptions { context_length: Some(8193), ..options() }, "--context-length"),
        (MemoryOptions { max_total_tokens: Some(31), ..options() }, "--max-total-tokens"),
        (
            MemoryOptions { chunked_prefill: ChunkedPrefill::Tokens(100), ..options() },
            "--chunked-prefill-size must be -1 or a multiple of --page-size 16, got 100",
        ),
    ];
    for (options, text) in bad {
        let error = plan("cpu", 16, &smol(), &options).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[test]
fn plan_prints_every_figure() {
    let text = plan("cpu", 16, &smol(), &options()).unwrap().to_string();
    for part in ["weights 515.0 MiB", "K/V pool 2.81 GiB (65536 tokens in 4096 pages of 16)"] {
        assert!(text.contains(part), "{text}");
    }
}

/// Qwen3-Next-80B-A3B, 4-bit: 36 recurrent layers, 12 with attention.
fn qwen3_next() -> ModelShape {
    ModelShape {
        weight_bytes: 45_000_000_000,
        kv_bytes_per_token: 12 * 2 * 2 * 256 * 2,
        window: None,
        window_bytes_per_token: 0,
        state_bytes: 36 * (32 * 128 * 128 * 4 + 3 * 8192 * 2),
        itemsize: 2,
        hidden_size: 2048,
        intermediate_size: 5120,
        num_heads: 16,
        expanded_kv_dim: 16 * 256,
        latent_scores: 0,
        vocab_size: 151_936,
        context_length: 262_144,
    }
}

#[test]
fn states_get_their_share() {
    let plan_of = |gib, options: &MemoryOptions| plan("cuda", gib, &qwen3_next(), options);
    let large = plan_of(141, &options()).unwrap();
    let states = large.states.unwrap();
    assert!(states.num_states >= 2 * large.max_running_requests);
    assert_eq!(states.snapshot_interval, 1024);
    assert_eq!(large.state_pool_bytes, states.num_states * qwen3_next().state_bytes);
    let used = large.weight_bytes + large.kv_pool_bytes + large.state_pool_bytes;
    assert!(used <= large.memory_bytes, "{large}");
    assert!(large.to_string().contains("recurrent states"), "{large}");
    // Less memory: fewer requests, and never more than a third of what is left.
    let small = plan_of(64, &options()).unwrap();
    assert!(small.max_running_requests < large.max_running_requests);
    assert!(small.states.unwrap().num_states > small.max_running_requests);
    let asked = MemoryOptions { max_running_requests: Some(500), ..options() };
    let error = plan_of(64, &asked).unwrap_err().to_string();
    assert!(error.starts_with("--max-running-requests must be at most "), "{error}");
    assert_eq!(plan("cuda", 64, &llama_3b(), &options()).unwrap().states, None);
}

/// Gemma-3-4B, bf16: 29 of 34 layers see 1024 tokens.
fn gemma3_4b() -> ModelShape {
    ModelShape {
        weight_bytes: 8_600_000_000,
        kv_bytes_per_token: 34 * 4096,
        window: Some(1024),
        window_bytes_per_token: 29 * 4096,
        state_bytes: 0,
        itemsize: 2,
        hidden_size: 2560,
        intermediate_size: 10_240,
        num_heads: 8,
        expanded_kv_dim: 8 * 256,
        latent_scores: 0,
        vocab_size: 262_208,
        context_length: 131_072,
    }
}

#[test]
fn layers_with_a_window_keep_a_share_of_the_tokens() {
    let plan_of = |options: &MemoryOptions| plan("metal", 24, &gemma3_4b(), options).unwrap();
    let base = MemoryOptions { mem_fraction_static: Some(0.6), ..options() };
    let whole = MemoryOptions { disable_hybrid_swa_memory: true, ..base.clone() };
    let whole = plan_of(&whole);
    assert_eq!(whole.windows, None);
    let (default, less) = (
        plan_of(&base),
        plan_of(&MemoryOptions { swa_full_tokens_ratio: Some(0.1), ..base.clone() }),
    );
    for (plan, ratio) in [(&default, 0.8), (&less, 0.1)] {
        let windows = plan.windows.unwrap();
        assert_eq!(windows.window, 1024);
        assert_eq!(windows.num_pages, (plan.num_pages as f64 * ratio).ceil() as usize);
        let bytes = 16 * 4096 * (5 * plan.num_pages + 29 * windows.num_pages);
        assert_eq!(plan.kv_pool_bytes, bytes);
        // All of the same bytes, but for a page.
        assert!(whole.kv_pool_bytes.abs_diff(bytes) < 16 * 34 * 4096, "{plan}");
    }
    // 34 / (5 + 0.8 * 29) and 34 / (5 + 0.1 * 29) times as many tokens.
    let gain = |plan: &MemoryPlan| plan.num_pages as f64 / whole.num_pages as f64;
    assert!((gain(&default) - 1.206).abs() < 0.01, "{}", gain(&default));
    assert!((gain(&less) - 4.304).abs() < 0.01, "{}", gain(&less));
    assert!(default.to_string().contains("layers with a window of 1024 keep "), "{default}");
}

#[test]
fn a_window_has_room_for_one_request() {
    let few = MemoryOptions {
        max_total_tokens: Some(8192),
        chunked_prefill: ChunkedPrefill::Tokens(512),
        swa_full_tokens_ratio: Some(0.01),
        ..options()
    };
    // 64 pages before a boundary, two more, and a chunk.
    let plan_of = |options: &MemoryOptions| plan("cpu", 24, &gemma3_4b(), options).unwrap();
    assert_eq!(plan_of(&few).windows, Some(WindowConfig { window: 1024, num_pages: 66 + 32 }));
    // No more than there are tokens in all; a context within the window.
    let tiny = MemoryOptions { max_total_tokens: Some(1024), ..few.clone() };
    assert_eq!(plan_of(&tiny).windows, None);
    let short = MemoryOptions { context_length: Some(1024), ..few.clone() };
    assert_eq!(plan_of(&short).windows, None);
    let bad = MemoryOptions { swa_full_tokens_ratio: Some(1.5), ..few };
    let error = plan("cpu", 24, &gemma3_4b(), &bad).unwrap_err();
    assert_eq!(error.to_string(), "--swa-full-tokens-ratio must be above 0 and at most 1, got 1.5");
}

#[test]
fn without_layers_that_keep_all_there_are_pages_for_whole_contexts() {
    let model = ModelShape { kv_bytes_per_token: 29 * 4096, ..gemma3_4b() };
    let asked =
        MemoryOptions { mem_fraction_static: Some(0.6), context_length: Some(16_384), ..options() };
    let plan = plan("metal", 24, &model, &asked).unwrap();
    let windows = plan.windows.unwrap();
    // 66 of the 1024 pages of a context.
    assert_eq!(windows.num_pages, (plan.num_pages as f64 * 66.0 / 1024.0).ceil() as usize);
    assert_eq!(plan.kv_pool_bytes, 16 * 29 * 4096 * windows.num_pages);
}
