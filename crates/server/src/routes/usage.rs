//! Token counts of several sequences.

use std::sync::Arc;

use protocol::openai::{CompletionTokensDetails, PromptTokensDetails, StreamOptions, Usage};
use types::TokenId;

use crate::{AppState, generation::Sequence};

/// When a stream reports usage, and what is counted.
#[derive(Debug, Clone)]
pub(crate) struct UsagePolicy {
    pub(super) n: usize,
    pub(super) with_cache: bool,
    pub(super) at_end: bool,
    pub(super) always: bool,
    /// What ends reasoning; `None`: there is none.
    reasoning_end: Option<Arc<[TokenId]>>,
}

impl UsagePolicy {
    pub(super) fn new(state: &AppState, options: Option<&StreamOptions>, n: usize) -> Self {
        let default = state.config.stream_response_default_include_usage;
        let is_set = |set: Option<bool>| set.unwrap_or(false);
        let at_end = default || options.is_some_and(|options| is_set(options.include_usage));
        Self {
            n,
            with_cache: state.config.enable_cache_report,
            at_end,
            always: options.is_some_and(|options| is_set(options.continuous_usage_stats)),
            reasoning_end: None,
        }
    }

    /// Counts reasoning tokens, if the answers begin with reasoning.
    pub(super) fn with_reasoning(self, state: &AppState, is_asked: bool) -> Self {
        let marks = state.reasoning_marks.as_ref().filter(|_| is_asked);
        let reasoning_end = marks.map(|marks| Arc::clone(&marks.end));
        Self { reasoning_end, ..self }
    }

    /// Adds up `sequences`; a prompt counts once for its `n` samples.
    pub(super) fn total<'a>(&self, sequences: impl IntoIterator<Item = &'a Sequence>) -> Usage {
        let (mut usage, mut cached_tokens) = (Usage::default(), 0);
        for sequence in sequences {
            let counts = sequence.counts();
            usage.completion_tokens += counts.completion_tokens;
            usage.reasoning_tokens += self.reasoning_tokens(sequence);
            if sequence.index() % self.n == 0 {
                usage.prompt_tokens += counts.prompt_tokens;
                cached_tokens += counts.cached_tokens;
            }
        }
        self.complete(usage, cached_tokens)
    }

    fn complete(&self, usage: Usage, cached_tokens: usize) -> Usage {
        let reasoning_tokens = usage.reasoning_tokens;
        Usage {
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: self.with_cache.then_some(PromptTokensDetails { cached_tokens }),
            completion_tokens_details: (reasoning_tokens > 0)
                .then_some(CompletionTokensDetails { reasoning_tokens }),
            ..usage
        }
    }

    /// Of the sequence that a chunk is about.
    pub(super) fn chunk(&self, sequence: &Sequence) -> Option<Usage> {
        self.always.then(|| {
            let counts = sequence.counts();
            let usage = Usage {
                prompt_tokens: counts.prompt_tokens,
                completion_tokens: counts.completion_tokens,
                reasoning_tokens: self.reasoning_tokens(sequence),
                ..Usage::default()
            };
            self.complete(usage, counts.cached_tokens)
        })
    }

    /// Tokens up to the end of reasoning, which counts too.
    pub(super) fn reasoning_tokens(&self, sequence: &Sequence) -> usize {
        let Some(end) = &self.reasoning_end else { return 0 };
        let ids = sequence.output_ids();
        let ends_at = ids.windows(end.len()).position(|window| window == &**end);
        ends_at.map_or(ids.len(), |at| at + end.len())
    }
}
