//! Token counts of several sequences.

use protocol::openai::{PromptTokensDetails, StreamOptions, Usage};

use crate::{AppState, generation::Sequence};

/// Adds up `sequences`; a prompt counts once for its `n` samples.
pub(super) fn usage_of<'a>(
    sequences: impl IntoIterator<Item = &'a Sequence>,
    n: usize,
    with_cache: bool,
) -> Usage {
    let mut usage = Usage::default();
    let mut cached_tokens = 0;
    for sequence in sequences {
        let counts = sequence.counts();
        usage.completion_tokens += counts.completion_tokens;
        if sequence.index() % n == 0 {
            usage.prompt_tokens += counts.prompt_tokens;
            cached_tokens += counts.cached_tokens;
        }
    }
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
    usage.prompt_tokens_details = with_cache.then_some(PromptTokensDetails { cached_tokens });
    usage
}

/// When a stream reports usage.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsagePolicy {
    pub(super) n: usize,
    pub(super) with_cache: bool,
    pub(super) at_end: bool,
    pub(super) always: bool,
}

impl UsagePolicy {
    pub(super) fn new(state: &AppState, options: Option<&StreamOptions>, n: usize) -> Self {
        let default = state.config.stream_response_default_include_usage;
        let at_end = options.and_then(|options| options.include_usage).unwrap_or(default);
        let always = options.and_then(|options| options.continuous_usage_stats);
        Self {
            n,
            with_cache: state.config.enable_cache_report,
            at_end,
            always: at_end && always.unwrap_or(false),
        }
    }

    /// Of the sequence that a chunk is about.
    pub(super) fn chunk(&self, sequence: &Sequence) -> Option<Usage> {
        self.always.then(|| {
            let counts = sequence.counts();
            Usage {
                prompt_tokens: counts.prompt_tokens,
                completion_tokens: counts.completion_tokens,
                total_tokens: counts.prompt_tokens + counts.completion_tokens,
                ..Usage::default()
            }
        })
    }
}
