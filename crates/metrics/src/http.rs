//! Counters of the HTTP layer.
//!
//! Upstream: `sglang/srt/observability/http_request_metrics.py`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    endpoint: String,
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    endpoint: String,
    status_code: u16,
    method: String,
}

/// Requests by route, responses by route and status.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: Family<RouteLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    active: Family<RouteLabels, Gauge>,
}

/// An HTTP request that has not been answered. Dropped without
/// [`ActiveRequest::answered`] (the client left), it counts no response.
#[derive(Debug)]
pub struct ActiveRequest<'a> {
    metrics: &'a HttpMetrics,
    labels: RouteLabels,
}

impl HttpMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            responses: Family::default(),
            active: Family::default(),
        };
        registry.register(
            "sglang:http_requests",
            "Total number of HTTP requests by endpoint and method",
            metrics.requests.clone(),
        );
        registry.register(
            "sglang:http_responses",
            "Total number of HTTP responses by endpoint and status code",
            metrics.responses.clone(),
        );
        registry.register(
            "sglang:http_requests_active",
            "Number of currently active HTTP requests",
            metrics.active.clone(),
        );
        metrics
    }

    /// Counts a request. `endpoint` is the route's pattern, not the raw path:
    /// anyone can invent paths, and each would be a time series.
    pub fn begin(&self, endpoint: &str, method: &str) -> ActiveRequest<'_> {
        let labels = RouteLabels { endpoint: endpoint.to_owned(), method: method.to_owned() };
        self.requests.get_or_create(&labels).inc();
        self.active.get_or_create(&labels).inc();
        ActiveRequest { metrics: self, labels }
    }
}

impl ActiveRequest<'_> {
    /// Counts the response.
    pub fn answered(self, status_code: u16) {
        let RouteLabels { endpoint, method } = self.labels.clone();
        let labels = ResponseLabels { endpoint, status_code, method };
        self.metrics.responses.get_or_create(&labels).inc();
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        self.metrics.active.get_or_create(&self.labels).dec();
    }
}
