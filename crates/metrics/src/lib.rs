//! SGLang's metric names, typed.
//!
//! Dashboards and gateways read these names, so they are SGLang's to the
//! letter: prefix `sglang:`, labels and buckets included. Only what this
//! server knows is exported; a name is better absent than always zero.
//!
//! Upstream: `sglang/srt/observability/metrics_collector.py`.

mod buckets;
mod export;
mod http;
mod request;
mod scheduler;

use std::borrow::Cow;

use prometheus_client::registry::Registry;

pub use export::Format;
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
    /// Counters of the HTTP layer.
    pub http: HttpMetrics,
}

impl Metrics {
    /// Metrics of a server that answers as `model_name`.
    pub fn new(model_name: &str) -> Self {
        let mut registry = Registry::default();
        let http = HttpMetrics::register(&mut registry);
        let labels = [
            ("model_name", model_name.to_owned()),
            ("engine_type", "unified".to_owned()),
            ("tp_rank", "0".to_owned()),
            ("pp_rank", "0".to_owned()),
            ("moe_ep_rank", "0".to_owned()),
        ];
        let labels = labels.map(|(key, value)| (Cow::Borrowed(key), Cow::Owned(value)));
        let scheduler =
            SchedulerMetrics::register(registry.sub_registry_with_labels(labels.into_iter()));
        let label = (Cow::Borrowed("model_name"), Cow::Owned(model_name.to_owned()));
        let request = RequestMetrics::register(registry.sub_registry_with_label(label));
        Self { registry, scheduler, request, http }
    }

    /// The exposition in the format that a scraper's `Accept` header asks for.
    pub fn export(&self, format: Format) -> String {
        export::export(&self.registry, format)
    }
}

#[cfg(test)]
mod tests;
