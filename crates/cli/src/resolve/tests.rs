//! Options as typed, against the configuration they become.

use clap::Parser;
use engine::{DeviceChoice, DtypeChoice, EvictionPolicy, KvCacheDtype, KvDtype};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: EngineArgs,
}

fn resolve(words: &str) -> Result<EngineConfig> {
    let words = ["test", "--model-path", "m"].into_iter().chain(words.split_whitespace());
    Line::try_parse_from(words)?.args.resolve()
}

#[test]
fn defaults() {
    let config = resolve("--random-seed 5").unwrap();
    assert_eq!(config.model_path, "m");
    assert_eq!((config.device, config.dtype), (DeviceChoice::Mlx, DtypeChoice::Auto));
    assert_eq!(config.prefill_attention_backend, "mlx");
    assert_eq!(config.decode_attention_backend, "mlx");
    assert_eq!(config.graph_runner, "auto");
    assert_eq!(config.memory, MemoryOptions { page_size: 16, ..Default::default() });
    assert_eq!(config.schedule.queue, engine::QueueRules::default());
    assert_eq!(config.schedule.max_prefill_tokens, 16384);
    assert_eq!(config.schedule.overlap, Overlap::Auto);
    assert!(!config.schedule.disable_radix_cache && !config.schedule.mixed_chunk);
    assert_eq!((config.random_seed, config.decode_log_interval), (5, 40));
}

#[test]
fn deterministic_inference_is_for_the_cpu() {
    let config = resolve("--enable-deterministic-inference --device cpu").unwrap();
    assert_eq!(config.random_seed, 42);
    let words = "--enable-deterministic-inference --device cpu --random-seed 5";
    assert_eq!(resolve(words).unwrap().random_seed, 5);
    for device in ["mlx", "metal", "cuda"] {
        let words = format!("--enable-deterministic-inference --device {device}");
        let error = resolve(&words).unwrap_err().to_string();
        assert!(error.contains("--enable-deterministic-inference needs --device cpu"), "{error}");
    }
}

#[test]
fn options_arrive() {
    let config = resolve(
        "--device cpu --dtype half --chunked-prefill-size -1 --max-total-tokens 0.512k --page-size 4 \
         --max-running-requests 3 --context-length 99 --mem-fraction-static 0.5 \
         --swa-full-tokens-ratio 0.25 --disable-hybrid-swa-memory \
         --schedule-policy lpm --disable-radix-cache --disable-overlap-schedule \
         --enable-mixed-chunk \
         --mlx-wired-limit-gb 0.5 --json-model-override-args {\"rope_theta\":5}",
    )
    .unwrap();
    assert_eq!(config.device, DeviceChoice::Cpu);
    assert_eq!(
        config.memory,
        MemoryOptions {
            mem_fraction_static: Some(0.5),
            max_total_tokens: Some(512),
            max_running_requests: Some(3),
            context_length: Some(99),
            chunked_prefill: ChunkedPrefill::Off,
            page_size: 4,
            swa_full_tokens_ratio: Some(0.25),
            disable_hybrid_swa_memory: true,
            wired_limit_bytes: Some(1 << 29),
        }
    );
    assert_eq!(config.schedule.queue.policy, engine::SchedulePolicy::Lpm);
    assert_eq!(config.schedule.overlap, Overlap::Off);
    assert!(config.schedule.disable_radix_cache && config.schedule.mixed_chunk);
    assert_eq!(config.load.config_overrides["rope_theta"], 5);
}

#[test]
fn the_rules_of_the_queue_arrive() {
    let words = "--schedule-policy dfs-weight --max-queued-requests 7 --prefill-max-requests 2 \
                 --abort-on-priority-when-disabled";
    let expected = engine::QueueRules {
        policy: engine::SchedulePolicy::DfsWeight,
        max_queued_requests: Some(7),
        prefill_max_requests: Some(2),
        refuses_priority: true,
        ..Default::default()
    };
    assert_eq!(resolve(words).unwrap().schedule.queue, expected);

    for (words, expected) in [
        ("", EvictionPolicy::Lru),
        ("--radix-eviction-policy lfu", EvictionPolicy::Lfu),
        ("--radix-eviction-policy priority", EvictionPolicy::Priority),
        ("--radix-eviction-policy slru", EvictionPolicy::Slru { protected_threshold: 2 }),
        (
            "--radix-eviction-policy slru --radix-eviction-policy-config {\"protected_threshold\":4}",
            EvictionPolicy::Slru { protected_threshold: 4 },
        ),
    ] {
        assert_eq!(resolve(words).unwrap().schedule.eviction_policy, expected, "{words}");
    }
    let error = resolve(
        "--radix-eviction-policy slru --radix-eviction-policy-config {\"protected_threshold\":0}",
    );
    let text =
        "--radix-eviction-policy-config: protected_threshold must be a positive integer, got 0";
    assert_eq!(error.unwrap_err().to_string(), text);

    let rules = |words: &str| {
        let words = format!("--enable-priority-scheduling {words}");
        resolve(&words).unwrap().schedule.queue.priority.unwrap()
    };
    let expected = engine::PriorityRules { preemption_threshold: Some(10), ..Default::default() };
    assert_eq!(rules("--schedule-policy priority"), expected);
    let words = "--schedule-low-priority-values-first --default-priority-value -3 \
                 --priority-scheduling-preemption-threshold 0 --retraction-policy priority";
    let expected = engine::PriorityRules {
        low_values_first: true,
        default_value: Some(-3),
        preemption_threshold: Some(0),
        retraction: engine::RetractionPolicy::Priority,
    };
    assert_eq!(rules(words), expected);
    assert_eq!(rules("--disable-priority-preemption").preemption_threshold, None);
}

#[test]
fn a_backend_of_its_own_wins_over_the_general_one() {
    let config = resolve("--attention-backend sdpa --decode-attention-backend paged").unwrap();
    assert_eq!(config.prefill_attention_backend, "sdpa");
    assert_eq!(config.decode_attention_backend, "paged");
    assert_eq!(config.cuda_graph_max_bs_decode, None);
    for words in ["--cuda-graph-max-bs-decode 20", "--cuda-graph-max-bs 20 --disable-cuda-graph"] {
        assert_eq!(resolve(words).unwrap().cuda_graph_max_bs_decode, Some(20));
    }
    for words in ["--disable-cuda-graph", "--disable-graph", "--graph-runner eager"] {
        assert_eq!(resolve(words).unwrap().graph_runner, "eager");
    }
}

#[test]
fn a_bf16_pool_is_that_of_bf16_activations() {
    for name in ["auto", "bf16", "bfloat16"] {
        let config = resolve(&format!("--dtype bfloat16 --kv-cache-dtype {name}")).unwrap();
        assert_eq!(config.dtype, "bfloat16".parse().unwrap(), "{name}");
    }
    for dtype in ["auto", "float16", "float32"] {
        let error = resolve(&format!("--dtype {dtype} --kv-cache-dtype bf16")).unwrap_err();
        let text = format!("--kv-cache-dtype bf16 needs --dtype bfloat16, got --dtype {dtype}");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_packed_pool_goes_with_every_dtype() {
    for kv_dtype in KvDtype::PACKED {
        for dtype in ["auto", "float16", "float32"] {
            let config = resolve(&format!("--dtype {dtype} --kv-cache-dtype {kv_dtype}")).unwrap();
            assert_eq!(config.kv_cache_dtype, KvCacheDtype::Fixed(kv_dtype));
        }
    }
    assert_eq!(resolve("").unwrap().kv_cache_dtype, KvCacheDtype::Auto);
}

#[test]
fn what_cannot_be_honoured_is_named() {
    for (words, text) in [
        ("--quantization bitnet", "--quantization: `bitnet` is not one of mlx_2bit"),
        (
            "--kv-cache-dtype fp8_e5m2",
            "--kv-cache-dtype: `fp8_e5m2` is not one of auto, bf16, bfloat16, fp8_e4m3, int4, int8;",
        ),
        ("--kv-cache-dtype fp4_e2m1", "--kv-cache-dtype: `fp4_e2m1` is not one of auto"),
        ("--schedule-policy routing-key", "--schedule-policy: `routing-key` is not one of dfs-"),
        ("--radix-eviction-policy tlru", "--radix-eviction-policy: `tlru` is not one of lfu, lru"),
        ("--radix-eviction-policy-config {\"threshold\":1}", "lru takes no parameter `threshold`"),
        ("--radix-eviction-policy-config 3", "policy-config: expected a JSON object, got 3"),
        ("--max-queued-requests 0", "--max-queued-requests must be at least 1"),
        ("--prefill-max-requests 0", "--prefill-max-requests must be at least 1"),
        ("--schedule-policy priority", "priority needs --enable-priority-scheduling"),
        ("--retraction-policy priority", "priority needs --enable-priority-scheduling"),
        ("--retraction-policy newest", "--retraction-policy: `newest` is not one of length"),
        ("--default-priority-value 3", "--default-priority-value needs --enable-priority-sched"),
        ("--disable-priority-preemption", "--disable-priority-preemption needs --enable-prior"),
        ("--schedule-low-priority-values-first", "needs --enable-priority-scheduling"),
        (
            "--priority-scheduling-preemption-threshold 3",
            "--priority-scheduling-preemption-threshold needs --enable-priority-scheduling",
        ),
        (
            "--enable-priority-scheduling --disable-priority-preemption \
             --priority-scheduling-preemption-threshold 3",
            "threshold contradicts --disable-priority-preemption",
        ),
        ("--schedule-conservativeness 0", "--schedule-conservativeness must be positive"),
        ("--attention-backend flashinfer", "--attention-backend: `flashinfer` is not one of"),
        ("--decode-attention-backend fa3", "--decode-attention-backend: `fa3` is not one of"),
        ("--prefill-attention-backend fa3", "--prefill-attention-backend: `fa3` is not one of"),
        ("--graph-runner traced", "--graph-runner: `traced` is not one of auto, compiled, eager"),
        (
            "--graph-runner compiled --disable-cuda-graph",
            "--disable-cuda-graph contradicts --graph-runner compiled",
        ),
        ("--chunked-prefill-size 0", "--chunked-prefill-size must be -1 or at least 1, got 0"),
        ("--load-format pt", "--load-format pt"),
        ("--json-model-override-args []", "--json-model-override-args: expected a JSON object"),
        ("--device npu", "error: invalid value 'npu' for '--device"),
        ("--decode-log-interval 0", "--decode-log-interval must be at least 1"),
        ("--cuda-graph-max-bs 0", "--cuda-graph-max-bs-decode must be at least 1"),
        ("--mlx-wired-limit-gb 0", "--mlx-wired-limit-gb"),
    ] {
        let error = format!("{:#}", resolve(words).expect_err(words));
        assert!(error.contains(text), "{words}: {error}");
    }
}
