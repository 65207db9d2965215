//! What compiling grammars costs, observed by whoever waits for one.
//!
//! Upstream: `SchedulerMetricsCollector` in
//! `sglang/srt/observability/metrics_collector.py`.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::buckets;

/// Grammars by how they were come by.
#[derive(Debug)]
pub struct GrammarMetrics {
    total: Counter,
    cache_hits: Counter,
    aborted: Counter,
    timeouts: Counter,
    waiting: Gauge,
    compilation: Histogram,
}

/// A request that waits for its grammar.
#[derive(Debug)]
pub struct WaitingForGrammar<'a>(&'a GrammarMetrics);

impl GrammarMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let metric = Counter::default();
            registry.register(format!("sglang:num_grammar{name}"), help, metric.clone());
            metric
        };
        let total = counter("", "Number of the total grammar requests");
        let cache_hits = counter("_cache_hit", "Number of grammar cache hits");
        let aborted = counter("_aborted", "Number of grammar aborted requests");
        let timeouts = counter("_timeout", "Number of grammar timeouts");
        let waiting = Gauge::default();
        let help = "The number of requests in the grammar waiting queue";
        registry.register("sglang:num_grammar_queue_reqs", help, waiting.clone());
        let compilation = Histogram::new(buckets::GRAMMAR_COMPILATION);
        let help = "Histogram of grammar compilation time in seconds";
        registry.register("sglang:grammar_compilation_time_seconds", help, compilation.clone());
        Self { total, cache_hits, aborted, timeouts, waiting, compilation }
    }

    /// A request asks for a grammar.
    pub fn observe_request(&self) {
        self.total.inc();
    }

    /// It was kept from an earlier one.
    pub fn observe_cache_hit(&self) {
        self.cache_hits.inc();
    }

    /// It is to be compiled; over when the result is dropped.
    pub fn wait(&self) -> WaitingForGrammar<'_> {
        self.waiting.inc();
        WaitingForGrammar(self)
    }

    /// It took so long to compile, well or not.
    pub fn observe_compilation(&self, seconds: f64) {
        self.compilation.observe(seconds);
    }

    /// It cannot be followed.
    pub fn observe_aborted(&self) {
        self.aborted.inc();
    }

    /// It was waited for too long.
    pub fn observe_timeout(&self) {
        self.timeouts.inc();
    }
}

impl Drop for WaitingForGrammar<'_> {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}
