//! What one request brought, and when.

use std::time::Duration;

/// Tokens that came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// After the request was sent.
    pub at: Duration,
    /// How many; 1 where the server does not say.
    pub tokens: usize,
}

/// One request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestOutput {
    /// When it was sent, after the start of the benchmark.
    pub start: Duration,
    /// Until the answer was complete.
    pub latency: Duration,
    /// In order.
    pub arrivals: Vec<Arrival>,
    /// As the server counts.
    pub prompt_len: usize,
    /// As the server counts; chunks with text where it does not.
    pub output_len: usize,
    /// Of the prompt, as the server reports them.
    pub cached_tokens: usize,
    /// Generated.
    pub text: String,
    /// Generated, where the interface shows ids.
    pub output_ids: Vec<u32>,
    /// Why it failed; then nothing else counts.
    pub error: Option<String>,
}

impl RequestOutput {
    /// A request that failed.
    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }

    /// Until the first token; the whole latency if nothing came before the end.
    pub fn ttft(&self) -> Duration {
        self.arrivals.first().map_or(self.latency, |first| first.at)
    }

    /// Mean time of the tokens after the first; `None` with fewer than two.
    pub fn tpot(&self) -> Option<Duration> {
        let rest = u32::try_from(self.output_len.checked_sub(1)?).ok()?;
        self.latency.saturating_sub(self.ttft()).checked_div(rest)
    }

    /// Gaps between tokens after the first arrival. Tokens that came together
    /// share the gap before them.
    pub fn itls(&self) -> impl Iterator<Item = Duration> {
        self.arrivals.windows(2).flat_map(|pair| {
            let tokens = pair[1].tokens;
            let gap = pair[1].at.saturating_sub(pair[0].at) / tokens.max(1) as u32;
            std::iter::repeat_n(gap, tokens)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn times_follow_from_arrivals() {
        let arrival = |at: u32, tokens| Arrival { at: at * MS, tokens };
        let output = RequestOutput {
            latency: 100 * MS,
            arrivals: vec![arrival(20, 1), arrival(30, 1), arrival(60, 3)],
            output_len: 5,
            ..RequestOutput::default()
        };
        assert_eq!(output.ttft(), 20 * MS);
        assert_eq!(output.tpot(), Some(20 * MS));
        assert_eq!(output.itls().collect::<Vec<_>>(), [10 * MS; 4]);

        let one = RequestOutput { latency: 7 * MS, output_len: 1, ..RequestOutput::default() };
        assert_eq!((one.ttft(), one.tpot(), one.itls().count()), (7 * MS, None, 0));
    }
}
