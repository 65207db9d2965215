//! Log-probabilities: what a request asks for, and what it gets.
//!
//! Upstream: `sglang/srt/layers/logits_processor.py`.

use std::sync::Arc;

use crate::TokenId;

/// Which log-probabilities a request wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogprobParams {
    /// Index of the prompt's token from whose successor on the prompt's tokens are
    /// reported too; `None`: only those of the completion.
    pub start_len: Option<usize>,
    /// The most likely tokens to report at each position.
    pub top_logprobs_num: usize,
    /// Tokens to report at each position, likely or not; all inside the vocabulary.
    pub token_ids: Arc<[TokenId]>,
}

/// Natural logarithms of the probabilities at one position: of a softmax over the whole
/// vocabulary. For the completion the logits are those that are sampled from, with
/// penalties, bias and temperature, before top-k, top-p and min-p; for the prompt those of
/// the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token that stands there.
    pub logprob: f32,
    /// The most likely tokens, most likely first.
    pub top: Vec<(f32, TokenId)>,
    /// Of [`LogprobParams::token_ids`], in their order.
    pub of_ids: Vec<f32>,
}

/// The log-probabilities that come with one event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReqLogprobs {
    /// Of the prompt's tokens after `start_len`, all at once with the first event.
    pub input: Vec<TokenLogprobs>,
    /// One for each token of the event.
    pub output: Vec<TokenLogprobs>,
}
