//! Histograms and counters over requests, observed by the request's own task.
//!
//! Upstream: `TokenizerMetricsCollector` in
//! `sglang/srt/observability/metrics_collector.py`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::{
    LatencyBuckets,
    buckets::{self, Bounds},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    is_streaming: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    cache_source: &'static str,
}

type ByStream = Family<StreamLabels, Histogram, Bounds>;

/// A request that ran to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FinishedRequest {
    /// Answered in server-sent events.
    pub is_streaming: bool,
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// Length of the completion.
    pub generation_tokens: usize,
    /// Prompt tokens found in the radix cache.
    pub cached_tokens: usize,
    /// Seconds from arrival to the last token.
    pub e2e_latency: f64,
    /// Seconds a token after the first, if there were at least two.
    pub time_per_output_token: Option<f64>,
}

/// Observations per request; one lock each, so never taken per token.
#[derive(Debug)]
pub struct RequestMetrics {
    prompt_tokens: Family<StreamLabels, Counter>,
    generation_tokens: Family<StreamLabels, Counter>,
    cached_tokens: Family<CacheLabels, Counter>,
    num_requests: Family<StreamLabels, Counter>,
    num_aborted_requests: Counter,
    prompt_tokens_histogram: Histogram,
    uncached_prompt_tokens_histogram: Histogram,
    generation_tokens_histogram: Histogram,
    time_to_first_token: ByStream,
    inter_token_latency: Histogram,
    time_per_output_token: ByStream,
    e2e_latency: ByStream,
}

fn stream_labels(is_streaming: bool) -> StreamLabels {
    StreamLabels { is_streaming: if is_streaming { "true" } else { "false" } }
}

impl RequestMetrics {
    pub(crate) fn register(registry: &mut Registry, latencies: &LatencyBuckets) -> Self {
        let bounds = |bounds: &Vec<f64>| Bounds(bounds.clone());
        let metrics = Self {
            prompt_tokens: Family::default(),
            generation_tokens: Family::default(),
            cached_tokens: Family::default(),
            num_requests: Family::default(),
            num_aborted_requests: Counter::default(),
            prompt_tokens_histogram: Histogram::new(buckets::TOKENS),
            uncached_prompt_tokens_histogram: Histogram::new(buckets::TOKENS),
            generation_tokens_histogram: Histogram::new(buckets::TOKENS),
            time_to_first_token: Family::new_with_constructor(bounds(
                &latencies.time_to_first_token,
            )),
            inter_token_latency: bounds(&latencies.inter_token_latency).new_metric(),
            time_per_output_token: Family::new_with_constructor(bounds(
                &latencies.inter_token_latency,
            )),
            e2e_latency: Family::new_with_constructor(bounds(&latencies.e2e_request_latency)),
        };
        metrics.register_counters(registry);
        metrics.register_histograms(registry);
        metrics
    }

    fn register_counters(&self, registry: &mut Registry) {
        registry.register(
            "sglang:prompt_tokens",
            "Number of prefill tokens processed",
            self.prompt_tokens.clone(),
        );
        registry.register(
            "sglang:generation_tokens",
            "Number of generation tokens processed",
            self.generation_tokens.clone(),
        );
        registry.register(
            "sglang:cached_tokens",
            "Number of cached prompt tokens by source",
            self.cached_tokens.clone(),
        );
        registry.register(
            "sglang:num_requests",
            "Number of requests processed",
            self.num_requests.clone(),
        );
        registry.register(
            "sglang:num_aborted_requests",
            "Number of requests aborted",
            self.num_aborted_requests.clone(),
        );
    }

    fn register_histograms(&self, registry: &mut Registry) {
        registry.register(
            "sglang:prompt_tokens_histogram",
            "Histogram of prompt token length",
            self.prompt_tokens_histogram.clone(),
        );
        registry.register(
            "sglang:uncached_prompt_tokens_histogram",
            "Histogram of uncached (compute) prompt token length",
            self.uncached_prompt_tokens_histogram.clone(),
        );
        registry.register(
            "sglang:generation_tokens_histogram",
            "Histogram of generation token length",
            self.generation_tokens_histogram.clone(),
        );
        registry.register(
            "sglang:time_to_first_token_seconds",
            "Histogram of time to first token in seconds",
            self.time_to_first_token.clone(),
        );
        registry.register(
            "sglang:inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds",
            self.inter_token_latency.clone(),
        );
        registry.register(
            "sglang:request_time_per_output_token_seconds",
            "Seconds per output token after the first, one observation a request",
            self.time_per_output_token.clone(),
        );
        registry.register(
            "sglang:e2e_request_latency_seconds",
            "Histogram of end-to-end request latency in seconds",
            self.e2e_latency.clone(),
        );
    }

    /// The first token of a request came after `seconds`.
    pub fn observe_first_token(&self, seconds: f64, is_streaming: bool) {
        self.time_to_first_token.get_or_create(&stream_labels(is_streaming)).observe(seconds);
    }

    /// `num_tokens` tokens came `seconds` after the one before them.
    pub fn observe_inter_token(&self, seconds: f64, num_tokens: usize) {
        for _ in 0..num_tokens {
            self.inter_token_latency.observe(seconds / num_tokens as f64);
        }
    }

    /// A request ended by itself.
    pub fn observe_finished(&self, request: &FinishedRequest) {
        let labels = stream_labels(request.is_streaming);
        self.prompt_tokens.get_or_create(&labels).inc_by(request.prompt_tokens as u64);
        self.generation_tokens.get_or_create(&labels).inc_by(request.generation_tokens as u64);
        if request.cached_tokens > 0 {
            let source = CacheLabels { cache_source: "device" };
            self.cached_tokens.get_or_create(&source).inc_by(request.cached_tokens as u64);
        }
        self.num_requests.get_or_create(&labels).inc();
        self.e2e_latency.get_or_create(&labels).observe(request.e2e_latency);
        if let Some(seconds) = request.time_per_output_token {
            self.time_per_output_token.get_or_create(&labels).observe(seconds);
        }
        let uncached = request.prompt_tokens.saturating_sub(request.cached_tokens);
        self.prompt_tokens_histogram.observe(request.prompt_tokens as f64);
        self.uncached_prompt_tokens_histogram.observe(uncached as f64);
        self.generation_tokens_histogram.observe(request.generation_tokens as f64);
    }

    /// A request was given up.
    pub fn observe_aborted(&self) {
        self.num_aborted_requests.inc();
    }
}
