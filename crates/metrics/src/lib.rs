//! SGLang's metric names, typed.
//!
//! Dashboards and gateways read these names, so they are SGLang's to the
//! letter: prefix `sglang:`, labels and buckets included. Only what this
//! server knows is exported; a name is better absent than always zero.
//!
//! Upstream: `sglang/srt/observability/metrics_collector.py`.

mod buckets;
mod export;
mod grammar;
mod http;
mod request;
mod scheduler;

use std::{borrow::Cow, collections::BTreeMap};

use prometheus_client::registry::Registry;

pub use buckets::LatencyBuckets;
pub use export::Format;
pub use grammar::{GrammarMetrics, WaitingForGrammar};
pub use http::HttpMetrics;
pub use request::{FinishedRequest, RequestMetrics};
pub use scheduler::{SchedulerMetrics, StaticFacts};

/// All metrics of one server. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Gauges of the scheduler.
    pub scheduler: SchedulerMetrics,
    /// Histograms and counters over requests.
    pub request: RequestMetrics,
    /// Counters of grammars.
    pub grammar: GrammarMetrics,
    /// Counters of the HTTP layer.
    pub http: HttpMetrics,
}

/// What operators decide about metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsOptions {
    /// On every sample of scheduler and requests.
    pub extra_labels: BTreeMap<String, String>,
    /// Upper bounds of the latencies' histograms.
    pub buckets: LatencyBuckets,
}

impl MetricsOptions {
    /// Labels that samples have of themselves: no extra label may be called so.
    pub const OWN_LABELS: &[&str] = &[
        "cache_source",
        "engine_type",
        "is_streaming",
        "le",
        "mode",
        "model_name",
        "moe_ep_rank",
        "pp_rank",
        "tp_rank",
    ];
}

impl Metrics {
    /// Metrics of a server that answers as `model_name`.
    pub fn new(model_name: &str) -> Self {
        Self::with_options(model_name, &MetricsOptions::default())
    }

    /// [`Self::new`], as an operator wants them.
    pub fn with_options(model_name: &str, options: &MetricsOptions) -> Self {
        let mut registry = Registry::default();
        let http = HttpMetrics::register(&mut registry);
        let labels = [
            ("model_name", model_name.to_owned()),
            ("engine_type", "unified".to_owned()),
            ("tp_rank", "0".to_owned()),
            ("pp_rank", "0".to_owned()),
            ("moe_ep_rank", "0".to_owned()),
        ];
        let with_extra = |labels: &[(&'static str, String)]| {
            let labels =
                labels.iter().map(|(key, value)| (Cow::Borrowed(*key), value.clone().into()));
            let extra = options.extra_labels.iter();
            let extra = extra.map(|(key, value)| (key.clone().into(), value.clone().into()));
            labels.chain(extra).collect::<Vec<_>>().into_iter()
        };
        let of_scheduler = registry.sub_registry_with_labels(with_extra(&labels));
        let scheduler = SchedulerMetrics::register(of_scheduler);
        let grammar = GrammarMetrics::register(of_scheduler);
        let of_requests = registry.sub_registry_with_labels(with_extra(&labels[..1]));
        let request = RequestMetrics::register(of_requests, &options.buckets);
        Self { registry, scheduler, request, grammar, http }
    }

    /// The exposition in the format that a scraper's `Accept` header asks for.
    pub fn export(&self, format: Format) -> String {
        export::export(&self.registry, format)
    }
}

#[cfg(test)]
mod tests;
