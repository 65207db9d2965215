//! Sampling parameters in the form the engine takes: validated, no unset field.
//!
//! Upstream: `sglang/srt/sampling/sampling_params.py`.

use std::sync::Arc;

use thiserror::Error;

use crate::TokenId;

/// The stored form of `top_k = -1`: every token of any vocabulary.
pub const TOP_K_ALL: u32 = 1 << 30;

/// Temperatures below this are greedy.
const SAMPLING_EPS: f32 = 1e-6;

/// How a request's tokens are chosen and when it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Tokens to generate at most; `None` runs to the end of the context.
    pub max_new_tokens: Option<usize>,
    /// EOS and stop tokens are not honoured before this many tokens.
    pub min_new_tokens: usize,
    /// Besides the model's EOS tokens.
    pub stop_token_ids: Vec<TokenId>,
    /// EOS does not end the request (stop strings still do).
    pub ignore_eos: bool,
    /// Divides the logits. 0 after [`Self::normalized`] means greedy.
    pub temperature: f32,
    /// Nucleus size, in (0, 1].
    pub top_p: f32,
    /// At least 1; [`TOP_K_ALL`] for no limit.
    pub top_k: u32,
    /// Least probability relative to the most likely token, in [0, 1].
    pub min_p: f32,
    /// Makes the request's tokens a function of prompt and seed alone.
    pub sampling_seed: Option<u64>,
    /// What tokens cost that the completion has already.
    pub penalties: Penalties,
    /// Added to the logits of these tokens, each named once.
    pub logit_bias: Arc<[(TokenId, f32)]>,
}

/// What a token costs for each time, or once, that the completion has it; the prompt
/// does not count. The default costs nothing.
///
/// Upstream: `sglang/srt/sampling/penaltylib`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Taken off the logit for each time, in [-2, 2].
    pub frequency: f32,
    /// Taken off the logit once, in [-2, 2].
    pub presence: f32,
    /// Divides a positive logit and multiplies a negative one, in (0, 2]; 1 is none.
    pub repetition: f32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { frequency: 0.0, presence: 0.0, repetition: 1.0 }
    }
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            max_new_tokens: Some(128),
            min_new_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            temperature: 1.0,
            top_p: 1.0,
            top_k: TOP_K_ALL,
            min_p: 0.0,
            sampling_seed: None,
            penalties: Penalties::default(),
            logit_bias: Arc::default(),
        }
    }
}

/// A value outside its range. The texts are what clients of SGLang see.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SamplingError {
    /// Negative or not a number.
    #[error("temperature must be non-negative, got {0}.")]
    Temperature(f32),
    /// Outside (0, 1].
    #[error("top_p must be in (0, 1], got {0}.")]
    TopP(f32),
    /// Zero.
    #[error("top_k must be -1 (disable) or at least 1, got {0}.")]
    TopK(u32),
    /// Outside [0, 1].
    #[error("min_p must be in [0, 1], got {0}.")]
    MinP(f32),
    /// Outside [-2, 2].
    #[error("frequency_penalty must be in [-2, 2], got {0}.")]
    FrequencyPenalty(f32),
    /// Outside [-2, 2].
    #[error("presence_penalty must be in [-2, 2], got {0}.")]
    PresencePenalty(f32),
    /// Outside (0, 2].
    #[error("repetition_penalty must be in (0, 2], got {0}.")]
    RepetitionPenalty(f32),
    /// A bias that is no number, or for a token that the model does not have.
    #[error("logit_bias must have finite values and keys in [0, {vocab_size}), got {id}: {bias}.")]
    LogitBias {
        /// The offending key.
        id: TokenId,
        /// Its value.
        bias: f32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// More than `max_new_tokens`.
    #[error("min_new_tokens must be in [0, max_new_tokens({max})], got {min}.")]
    MinNewTokens {
        /// `min_new_tokens`.
        min: usize,
        /// `max_new_tokens`.
        max: usize,
    },
    /// A stop token that the model does not have.
    #[error("stop_token_ids must be in [0, {vocab_size}), got {id}.")]
    StopTokenId {
        /// The offending id.
        id: TokenId,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
}

impl SamplingParams {
    /// True if every token is the most likely one.
    pub fn is_greedy(&self) -> bool {
        self.temperature < SAMPLING_EPS || self.top_k == 1
    }

    /// Checks every range and turns the many spellings of greedy into one
    /// (temperature 0, filters off).
    pub fn normalized(mut self, vocab_size: usize) -> Result<Self, SamplingError> {
        // Written so that NaN fails: every comparison with it is false.
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(SamplingError::Temperature(self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(SamplingError::TopP(self.top_p));
        }
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            return Err(SamplingError::MinP(self.min_p));
        }
        if self.top_k == 0 {
            return Err(SamplingError::TopK(self.top_k));
        }
        self.penalties.check()?;
        let is_bad =
            |&&(id, bias): &&(TokenId, f32)| id as usize >= vocab_size || !bias.is_finite();
        if let Some(&(id, bias)) = self.logit_bias.iter().find(is_bad) {
            return Err(SamplingError::LogitBias { id, bias, vocab_size });
        }
        if let Some(max) = self.max_new_tokens
            && self.min_new_tokens > max
        {
            return Err(SamplingError::MinNewTokens { min: self.min_new_tokens, max });
        }
        if let Some(&id) = self.stop_token_ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(SamplingError::StopTokenId { id, vocab_size });
        }
        if self.is_greedy() {
            (self.temperature, self.top_k, self.top_p, self.min_p) = (0.0, TOP_K_ALL, 1.0, 0.0);
        }
        self.top_k = self.top_k.min(TOP_K_ALL);
        Ok(self)
    }
}

impl Penalties {
    /// Whether they change anything.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    fn check(&self) -> Result<(), SamplingError> {
        let additive = -2.0..=2.0;
        if !additive.contains(&self.frequency) {
            return Err(SamplingError::FrequencyPenalty(self.frequency));
        }
        if !additive.contains(&self.presence) {
            return Err(SamplingError::PresencePenalty(self.presence));
        }
        if !(self.repetition > 0.0 && self.repetition <= 2.0) {
            return Err(SamplingError::RepetitionPenalty(self.repetition));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(params: SamplingParams) -> Result<SamplingParams, SamplingError> {
        params.normalized(100)
    }

    #[test]
    fn every_range_is_checked() {
        let base = SamplingParams::default;
        assert!(check(base()).is_ok());
        for temperature in [-0.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(
                check(SamplingParams { temperature, ..base() }),
                Err(SamplingError::Temperature(_))
            ));
        }
        for top_p in [0.0, 1.1, f32::NAN] {
            assert!(matches!(
                check(SamplingParams { top_p, ..base() }),
                Err(SamplingError::TopP(_))
            ));
        }
        for min_p in [-0.1, 1.1, f32::NAN] {
            assert!(matches!(
                check(SamplingParams { min_p, ..base() }),
                Err(SamplingError::MinP(_))
            ));
        }
        assert_eq!(check(SamplingParams { top_k: 0, ..base() }), Err(SamplingError::TopK(0)));
        for (penalties, name) in [
            (Penalties { frequency: 2.1, ..Penalties::default() }, "frequency_penalty"),
            (Penalties { presence: -2.1, ..Penalties::default() }, "presence_penalty"),
            (Penalties { repetition: 0.0, ..Penalties::default() }, "repetition_penalty"),
            (Penalties { repetition: f32::NAN, ..Penalties::default() }, "repetition_penalty"),
        ] {
            let error = check(SamplingParams { penalties, ..base() }).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
        for (id, bias) in [(100, 1.0), (3, f32::INFINITY)] {
            let logit_bias = Arc::from([(id, bias)]);
            let error = check(SamplingParams { logit_bias, ..base() }).unwrap_err();
            assert_eq!(error, SamplingError::LogitBias { id, bias, vocab_size: 100 });
        }
        assert_eq!(
            check(SamplingParams { min_new_tokens: 129, ..base() }),
            Err(SamplingError::MinNewTokens { min: 129, max: 128 })
        );
        assert_eq!(
            check(SamplingParams { stop_token_ids: vec![3, 100], ..base() }),
            Err(SamplingError::StopTokenId { id: 100, vocab_size: 100 })
        );
    }

    #[test]
    fn greedy_has_one_spelling() {
        for params in [
            SamplingParams { temperature: 0.0, top_p: 0.5, ..Default::default() },
            SamplingParams { temperature: 1e-7, ..Default::default() },
            SamplingParams { top_k: 1, temperature: 2.0, min_p: 0.1, ..Default::default() },
        ] {
            let normal = check(params).unwrap();
            assert!(normal.is_greedy());
            assert_eq!(
                (normal.temperature, normal.top_k, normal.top_p, normal.min_p),
                (0.0, TOP_K_ALL, 1.0, 0.0)
            );
        }
    }
}
