//! Upstream's figures from what the clients saw.
//!
//! Upstream: `calculate_metrics` in `sglang/benchmark/serving.py`.

use std::time::Duration;

use crate::{Recording, RequestOutput};

/// How a latency is spread over requests or tokens, in ms; zero of nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    /// Arithmetic.
    pub mean: f64,
    /// 50th percentile.
    pub median: f64,
    /// Standard deviation of the whole population.
    pub std: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Spread {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut ms: Vec<_> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        ms.sort_unstable_by(f64::total_cmp);
        let Some(&max) = ms.last() else { return Self::default() };
        let count = ms.len() as f64;
        let mean = ms.iter().sum::<f64>() / count;
        let variance = ms.iter().map(|ms| (ms - mean).powi(2)).sum::<f64>() / count;
        Self {
            mean,
            median: percentile(&ms, 50.0),
            std: variance.sqrt(),
            p90: percentile(&ms, 90.0),
            p95: percentile(&ms, 95.0),
            p99: percentile(&ms, 99.0),
            max,
        }
    }
}

/// Between the two nearest of `sorted`, as numpy does.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let place = percent / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// The figures of a run. Requests that failed count nowhere but in `failed`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Seconds.
    pub duration: f64,
    /// Requests.
    pub completed: usize,
    /// Requests.
    pub failed: usize,
    /// Prompt tokens, cached ones too.
    pub total_input_tokens: usize,
    /// Of these, found in the server's prefix cache.
    pub total_cached_tokens: usize,
    /// Generated.
    pub total_output_tokens: usize,
    /// Requests a second.
    pub request_throughput: f64,
    /// Tokens a second.
    pub input_throughput: f64,
    /// Tokens a second.
    pub output_throughput: f64,
    /// Both.
    pub total_throughput: f64,
    /// Requests under way, averaged over time.
    pub concurrency: f64,
    /// Generated in the best whole second.
    pub max_output_tokens_per_s: usize,
    /// Requests under way at the busiest moment.
    pub max_concurrent_requests: usize,
    /// Time to the first token.
    pub ttft: Spread,
    /// Time per token after the first, a request's mean.
    pub tpot: Spread,
    /// Gaps between tokens.
    pub itl: Spread,
    /// Whole requests.
    pub e2e_latency: Spread,
}

impl Metrics {
    /// Of a recording.
    pub fn of(recording: &Recording) -> Self {
        let good: Vec<&RequestOutput> =
            recording.outputs.iter().filter(|output| output.error.is_none()).collect();
        let sum = |count: fn(&RequestOutput) -> usize| good.iter().map(|one| count(one)).sum();
        let duration = recording.duration.as_secs_f64();
        let rate = |count: usize| if duration > 0.0 { count as f64 / duration } else { 0.0 };
        let total_input_tokens: usize = sum(|output| output.prompt_len);
        let total_output_tokens: usize = sum(|output| output.output_len);
        let busy: f64 = good.iter().map(|output| output.latency.as_secs_f64()).sum();
        Self {
            duration,
            completed: good.len(),
            failed: recording.outputs.len() - good.len(),
            total_input_tokens,
            total_cached_tokens: sum(|output| output.cached_tokens),
            total_output_tokens,
            request_throughput: rate(good.len()),
            input_throughput: rate(total_input_tokens),
            output_throughput: rate(total_output_tokens),
            total_throughput: rate(total_input_tokens + total_output_tokens),
            concurrency: if duration > 0.0 { busy / duration } else { 0.0 },
            max_output_tokens_per_s: tokens_over_time(recording, 1.0)
                .into_iter()
                .max()
                .unwrap_or(0),
            max_concurrent_requests: most_at_once(&good),
            ttft: Spread::of(good.iter().map(|output| output.ttft())),
            tpot: Spread::of(good.iter().filter_map(|output| output.tpot())),
            itl: Spread::of(good.iter().flat_map(|output| output.itls())),
            e2e_latency: Spread::of(good.iter().map(|output| output.latency)),
        }
    }
}

/// Tokens generated in each `step` of seconds of the run.
pub(crate) fn tokens_over_time(recording: &Recording, step: f64) -> Vec<usize> {
    let steps = (recording.duration.as_secs_f64() / step).ceil() as usize;
    let mut tokens = vec![0; steps.max(1)];
    let last = tokens.len() - 1;
    for output in recording.outputs.iter().filter(|output| output.error.is_none()) {
        for arrival in &output.arrivals {
            let at = (output.start + arrival.at).as_secs_f64();
            tokens[((at / step) as usize).min(last)] += arrival.tokens;
        }
    }
    tokens
}

fn most_at_once(outputs: &[&RequestOutput]) -> usize {
    let mut changes: Vec<(Duration, i32)> = outputs
        .iter()
        .flat_map(|output| [(output.start, 1), (output.start + output.latency, -1)])
        .collect();
    changes.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arrival;

    const MS: Duration = Duration::from_millis(1);

    fn output(start: u32, arrivals: &[(u32, usize)]) -> RequestOutput {
        let arrivals: Vec<_> =
            arrivals.iter().map(|&(at, tokens)| Arrival { at: at * MS, tokens }).collect();
        RequestOutput {
            start: start * MS,
            latency: arrivals.last().unwrap().at,
            output_len: arrivals.iter().map(|arrival| arrival.tokens).sum(),
            arrivals,
            prompt_len: 10,
            cached_tokens: 4,
            ..RequestOutput::default()
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn percentiles_lie_between_their_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        let at = |percent| percentile(&sorted, percent);
        assert_eq!((at(0.0), at(50.0), at(100.0)), (1.0, 3.0, 8.0));
        assert!(close(at(90.0), 6.8) && close(at(99.0), 7.88));
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }

    #[test]
    fn figures_of_a_known_run() {
        let recording = Recording {
            duration: 2000 * MS,
            outputs: vec![
                output(0, &[(100, 1), (110, 1), (130, 2)]),
                output(1500, &[(300, 1), (500, 1)]),
                RequestOutput::failed("no"),
            ],
        };
        let metrics = Metrics::of(&recording);
        assert_eq!((metrics.completed, metrics.failed), (2, 1));
        assert_eq!((metrics.total_input_tokens, metrics.total_cached_tokens), (20, 8));
        assert_eq!(metrics.total_output_tokens, 6);
        assert!(close(metrics.request_throughput, 1.0) && close(metrics.input_throughput, 10.0));
        assert!(close(metrics.output_throughput, 3.0) && close(metrics.total_throughput, 13.0));
        assert!(close(metrics.concurrency, 0.63 / 2.0));
        assert_eq!((metrics.max_output_tokens_per_s, metrics.max_concurrent_requests), (4, 1));
        assert!(close(metrics.ttft.mean, 200.0) && close(metrics.ttft.std, 100.0));
        assert!(close(metrics.tpot.mean, 105.0) && close(metrics.tpot.p90, 181.0));
        assert!(close(metrics.itl.mean, 57.5) && close(metrics.itl.median, 10.0));
        assert!(close(metrics.itl.max, 200.0) && close(metrics.e2e_latency.median, 315.0));
    }
}
