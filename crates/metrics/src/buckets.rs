//! Upper bounds of the histograms, in seconds or tokens.

use prometheus_client::metrics::{family::MetricConstructor, histogram::Histogram};

/// Of the histograms of seconds; upstream's unless an operator says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyBuckets {
    /// `--bucket-time-to-first-token`.
    pub time_to_first_token: Vec<f64>,
    /// `--bucket-inter-token-latency`.
    pub inter_token_latency: Vec<f64>,
    /// `--bucket-e2e-request-latency`.
    pub e2e_request_latency: Vec<f64>,
}

impl Default for LatencyBuckets {
    fn default() -> Self {
        Self {
            time_to_first_token: TIME_TO_FIRST_TOKEN.to_vec(),
            inter_token_latency: INTER_TOKEN_LATENCY.to_vec(),
            e2e_request_latency: E2E_LATENCY.to_vec(),
        }
    }
}

/// Makes the histograms of a family.
#[derive(Debug, Clone)]
pub(crate) struct Bounds(pub(crate) Vec<f64>);

impl MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

const TIME_TO_FIRST_TOKEN: [f64; 18] = [
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0,
    400.0,
];

const E2E_LATENCY: [f64; 22] = [
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0,
    400.0, 600.0, 1200.0, 1800.0, 2400.0,
];

const INTER_TOKEN_LATENCY: [f64; 23] = [
    0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.025, 0.030, 0.035, 0.040, 0.060, 0.080,
    0.100, 0.200, 0.400, 0.600, 0.800, 1.0, 2.0, 4.0, 6.0, 8.0,
];

pub(crate) const QUEUE_TIME: [f64; 40] = [
    0.0, 0.001, 0.005, 0.010, 0.050, 0.100, 0.200, 0.500, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0,
    20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0,
    700.0, 800.0, 900.0, 1000.0, 1200.0, 1400.0, 1600.0, 1800.0, 2000.0, 2500.0, 3000.0,
];

pub(crate) const GRAMMAR_COMPILATION: [f64; 17] = [
    0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0, 120.0, 240.0,
];

pub(crate) const TOKENS: [f64; 35] = [
    100.0, 300.0, 500.0, 700.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 7000.0,
    8000.0, 9000.0, 10000.0, 12500.0, 15000.0, 17500.0, 20000.0, 22500.0, 25000.0, 27500.0,
    30000.0, 35000.0, 40000.0, 60000.0, 80000.0, 100000.0, 200000.0, 300000.0, 400000.0, 600000.0,
    800000.0, 1000000.0, 1100000.0,
];
