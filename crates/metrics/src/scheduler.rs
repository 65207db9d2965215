//! Gauges of the scheduler, set from its stats when someone scrapes.
//!
//! Upstream: `SchedulerMetricsCollector` in
//! `sglang/srt/observability/metrics_collector.py`.

use std::sync::{Mutex, PoisonError, atomic::AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use types::{EngineState, SchedulerStats};

use crate::buckets;

type Float = Gauge<f64, AtomicU64>;

/// What does not change after start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StaticFacts {
    /// Tokens in the K/V pool.
    pub max_total_num_tokens: usize,
    /// Tokens in a page of it.
    pub page_size: usize,
    /// Prompt and completion together.
    pub context_len: usize,
    /// Requests in one decode batch.
    pub max_running_requests: usize,
}

/// The scheduler's gauges.
#[derive(Debug)]
pub struct SchedulerMetrics {
    num_running_reqs: Gauge,
    num_queue_reqs: Gauge,
    num_used_tokens: Gauge,
    kv_available_tokens: Gauge,
    kv_evictable_tokens: Gauge,
    kv_used_tokens: Gauge,
    max_total_num_tokens: Gauge,
    page_size: Gauge,
    num_pages: Gauge,
    windows: WindowMetrics,
    context_len: Gauge,
    token_usage: Float,
    cache_hit_rate: Float,
    gen_throughput: Float,
    utilization: Float,
    new_token_ratio: Float,
    weight_memory_usage_gb: Float,
    kv_cache_memory_usage_gb: Float,
    retractions: RetractionMetrics,
    tokens: TokenMetrics,
    num_paused_reqs: Gauge,
    queue_time: Histogram,
    /// Two scrapes at once must not both advance the counters.
    observing: Mutex<()>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeLabels {
    mode: &'static str,
}

/// Tokens that were processed, and those that were forgotten.
#[derive(Debug)]
struct TokenMetrics {
    realtime_tokens: Family<ModeLabels, Counter>,
    evicted_tokens: Counter,
}

impl TokenMetrics {
    fn register(registry: &mut Registry) -> Self {
        let realtime_tokens = Family::default();
        let help = "Tokens processed by mode: prefill_compute, prefill_cache, decode";
        registry.register("sglang:realtime_tokens", help, realtime_tokens.clone());
        let help = "Total number of tokens evicted from the radix cache";
        Self { realtime_tokens, evicted_tokens: counter(registry, "evicted_tokens", help) }
    }

    fn observe(&self, stats: &SchedulerStats) {
        advance(&self.evicted_tokens, stats.evicted_tokens);
        for (mode, total) in [
            ("prefill_compute", stats.prefilled_tokens),
            ("prefill_cache", stats.cached_tokens),
            ("decode", stats.generation_tokens),
        ] {
            advance(&self.realtime_tokens.get_or_create(&ModeLabels { mode }), total);
        }
    }
}

/// Requests that were sent back to the queue, for want of memory or for a higher priority.
#[derive(Debug)]
struct RetractionMetrics {
    num_retracted_reqs: Gauge,
    num_retracted_requests: Counter,
    num_retracted_input_tokens: Counter,
    num_retracted_output_tokens: Counter,
}

impl RetractionMetrics {
    fn register(registry: &mut Registry) -> Self {
        Self {
            num_retracted_reqs: gauge(
                registry,
                "num_retracted_reqs",
                "Retractions since the last scrape",
            ),
            num_retracted_requests: counter(
                registry,
                "num_retracted_requests",
                "Total number of retracted requests",
            ),
            num_retracted_input_tokens: counter(
                registry,
                "num_retracted_input_tokens",
                "Total number of input tokens of retracted requests",
            ),
            num_retracted_output_tokens: counter(
                registry,
                "num_retracted_output_tokens",
                "Total number of output tokens of retracted requests",
            ),
        }
    }

    fn observe(&self, stats: &SchedulerStats) {
        let retracted = advance(&self.num_retracted_requests, stats.num_retractions);
        self.num_retracted_reqs.set(retracted as i64);
        advance(&self.num_retracted_input_tokens, stats.retracted_input_tokens);
        advance(&self.num_retracted_output_tokens, stats.retracted_output_tokens);
    }
}

/// Gauges of the layers with a sliding window, and of the others beside them.
#[derive(Debug)]
struct WindowMetrics {
    max_total_num_tokens_swa: Gauge,
    swa_available_tokens: Gauge,
    swa_evictable_tokens: Gauge,
    swa_used_tokens: Gauge,
    full_token_usage: Float,
    swa_token_usage: Float,
}

impl WindowMetrics {
    fn register(registry: &mut Registry) -> Self {
        Self {
            max_total_num_tokens_swa: gauge(
                registry,
                "max_total_num_tokens_swa",
                "Maximum total number of tokens in the KV cache pool of sliding window layers",
            ),
            swa_available_tokens: gauge(
                registry,
                "swa_available_tokens",
                "Number of free token slots for sliding window layers",
            ),
            swa_evictable_tokens: gauge(
                registry,
                "swa_evictable_tokens",
                "Number of evictable (radix-cached) token slots for sliding window layers",
            ),
            swa_used_tokens: gauge(
                registry,
                "swa_used_tokens",
                "Number of actively used token slots for sliding window layers",
            ),
            full_token_usage: float(
                registry,
                "full_token_usage",
                "The token usage for full attention layers",
            ),
            swa_token_usage: float(
                registry,
                "swa_token_usage",
                "The token usage for sliding window layers",
            ),
        }
    }

    fn observe(&self, stats: &SchedulerStats) {
        self.max_total_num_tokens_swa.set(stats.max_total_num_tokens_swa as i64);
        self.swa_available_tokens.set(stats.num_free_tokens_swa as i64);
        self.swa_evictable_tokens.set(stats.num_evictable_tokens_swa as i64);
        self.swa_used_tokens.set(stats.num_used_tokens_swa() as i64);
        self.full_token_usage.set(stats.token_usage());
        self.swa_token_usage.set(stats.token_usage_swa());
    }
}

impl SchedulerMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self {
            num_running_reqs: gauge(registry, "num_running_reqs", "The number of running requests"),
            num_queue_reqs: gauge(
                registry,
                "num_queue_reqs",
                "The number of requests in the waiting queue",
            ),
            num_used_tokens: gauge(registry, "num_used_tokens", "The number of used tokens"),
            kv_available_tokens: gauge(
                registry,
                "kv_available_tokens",
                "Number of free token slots in the KV cache pool",
            ),
            kv_evictable_tokens: gauge(
                registry,
                "kv_evictable_tokens",
                "Number of evictable (radix-cached) token slots in the KV cache pool",
            ),
            kv_used_tokens: gauge(
                registry,
                "kv_used_tokens",
                "Number of actively used token slots in the KV cache pool",
            ),
            max_total_num_tokens: gauge(
                registry,
                "max_total_num_tokens",
                "Maximum total number of tokens in the KV cache pool",
            ),
            page_size: gauge(registry, "page_size", "Page size of the KV cache pool"),
            num_pages: gauge(registry, "num_pages", "Number of pages in the KV cache pool"),
            windows: WindowMetrics::register(registry),
            context_len: gauge(registry, "context_len", "Maximum context length"),
            token_usage: float(registry, "token_usage", "The token usage"),
            cache_hit_rate: float(registry, "cache_hit_rate", "The prefix cache hit rate"),
            gen_throughput: float(
                registry,
                "gen_throughput",
                "The generation throughput (token/s)",
            ),
            utilization: float(registry, "utilization", "Running over most running requests"),
            new_token_ratio: float(registry, "new_token_ratio", "The new token ratio"),
            weight_memory_usage_gb: float(
                registry,
                "weight_memory_usage_gb",
                "Memory used by model weights in GB",
            ),
            kv_cache_memory_usage_gb: float(
                registry,
                "kv_cache_memory_usage_gb",
                "Memory used by the KV cache pools in GB",
            ),
            retractions: RetractionMetrics::register(registry),
            tokens: TokenMetrics::register(registry),
            num_paused_reqs: gauge(
                registry,
                "num_paused_reqs",
                "The number of requests that a pause holds",
            ),
            queue_time: queue_time(registry),
            observing: Mutex::new(()),
        }
    }

    /// Sets every gauge. `facts` supplies what stats do not know.
    pub fn observe(&self, stats: &SchedulerStats, gen_throughput: f64, facts: &StaticFacts) {
        let _alone = self.observing.lock().unwrap_or_else(PoisonError::into_inner);
        let used = stats.num_used_tokens() as i64;
        self.num_running_reqs.set(stats.num_running_reqs as i64);
        self.num_queue_reqs.set(stats.num_waiting_reqs as i64);
        self.num_used_tokens.set(used);
        self.kv_used_tokens.set(used);
        self.kv_available_tokens.set(stats.num_free_tokens as i64);
        self.kv_evictable_tokens.set(stats.num_evictable_tokens as i64);
        self.max_total_num_tokens.set(facts.max_total_num_tokens as i64);
        self.page_size.set(facts.page_size as i64);
        self.num_pages.set((facts.max_total_num_tokens / facts.page_size.max(1)) as i64);
        self.windows.observe(stats);
        self.context_len.set(facts.context_len as i64);
        self.token_usage.set(stats.token_usage());
        self.cache_hit_rate.set(stats.cache_hit_rate());
        self.gen_throughput.set(gen_throughput);
        self.new_token_ratio.set(stats.new_token_ratio);
        self.utilization.set(if facts.max_running_requests == 0 {
            0.0
        } else {
            stats.num_running_reqs as f64 / facts.max_running_requests as f64
        });
        self.retractions.observe(stats);
        self.tokens.observe(stats);
    }

    /// A request began to run after waiting for `seconds`.
    pub fn observe_queue_time(&self, seconds: f64) {
        self.queue_time.observe(seconds);
    }

    /// Sets how many requests an operator's pause holds.
    pub fn observe_paused(&self, num_reqs: usize) {
        self.num_paused_reqs.set(num_reqs as i64);
    }

    /// Sets what only the engine knows: memory.
    pub fn observe_memory(&self, state: &EngineState) {
        const GIB: f64 = (1u64 << 30) as f64;
        self.weight_memory_usage_gb.set(state.weight_bytes as f64 / GIB);
        self.kv_cache_memory_usage_gb.set(state.kv_pool_bytes as f64 / GIB);
    }
}

/// Brings a counter up to a total counted elsewhere; what was added.
fn advance(counter: &Counter, total: u64) -> u64 {
    let added = total.saturating_sub(counter.get());
    counter.inc_by(added);
    added
}

fn queue_time(registry: &mut Registry) -> Histogram {
    let metric = Histogram::new(buckets::QUEUE_TIME);
    let help = "Histogram of queueing time in seconds";
    registry.register("sglang:queue_time_seconds", help, metric.clone());
    metric
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let metric = Gauge::default();
    registry.register(format!("sglang:{name}"), help, metric.clone());
    metric
}

fn float(registry: &mut Registry, name: &str, help: &str) -> Float {
    let metric = Float::default();
    registry.register(format!("sglang:{name}"), help, metric.clone());
    metric
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let metric = Counter::default();
    registry.register(format!("sglang:{name}"), help, metric.clone());
    metric
}
