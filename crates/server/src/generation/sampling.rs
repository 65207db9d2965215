//! Sampling parameters as sent, to those the engine takes.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    MAX_BATCH_SIZE, StopStrings,
    native::{MaxNewTokens, SamplingJson},
};
use types::{Penalties, Pooling, SamplingParams, TOP_K_ALL, TokenId};

use super::{
    LogprobSpec,
    grammar::{self, Constraint},
    stop_regex::StopPatterns,
};
use crate::error::ApiError;

/// Stop tokens are compared with every token made, so there is a limit.
const MAX_STOP_TOKEN_IDS: usize = 1024;

/// What one prompt is sampled with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SamplingSpec {
    pub(crate) params: SamplingParams,
    /// Samples of the prompt.
    pub(crate) n: usize,
    pub(crate) text: TextOptions,
    /// `max_new_tokens` was named, so it must fit into the context.
    pub(crate) checks_total: bool,
    pub(crate) logprobs: Option<LogprobSpec>,
    /// What the completion follows.
    pub(crate) grammar: Option<Constraint>,
    /// Tokens after which reasoning has to end.
    pub(crate) thinking_budget: Option<usize>,
    /// Whether the completion begins inside of reasoning; `None`: the prompt shows it.
    pub(crate) begins_inside: Option<bool>,
    /// Set: a vector and no tokens.
    pub(crate) pooling: Option<Pooling>,
    /// Where the second of the prompt's two texts begins.
    pub(crate) second_text: Option<usize>,
    pub(crate) priority: Option<i64>,
}

/// What happens to the text after sampling.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TextOptions {
    pub(crate) stop: Vec<String>,
    pub(crate) stop_regex: StopPatterns,
    pub(crate) skip_special_tokens: bool,
    pub(crate) no_stop_trim: bool,
    pub(crate) stream_interval: usize,
}

impl SamplingSpec {
    /// # Errors
    /// A value outside its range, by name.
    pub(crate) fn new(
        mut json: SamplingJson,
        vocab_size: usize,
        stream_interval: usize,
    ) -> Result<Self, ApiError> {
        let grammar = grammar::constraint_of(&mut json)?;
        let refuse = |message: String| Err(ApiError::value(message));
        let defaults = SamplingParams::default();
        let max_new_tokens = match json.max_new_tokens {
            MaxNewTokens::Default => defaults.max_new_tokens,
            MaxNewTokens::Unlimited => None,
            MaxNewTokens::Exactly(max) => match usize::try_from(max) {
                Ok(max) => Some(max),
                Err(_) => return refuse(format!("max_new_tokens must be at least 0, got {max}.")),
            },
        };
        let min = json.min_new_tokens.unwrap_or(0);
        let Ok(min_new_tokens) = usize::try_from(min) else {
            return refuse(format!("min_new_tokens must be in [0, max_new_tokens], got {min}."));
        };
        let n = json.n.unwrap_or(1);
        if !(1..=MAX_BATCH_SIZE as i64).contains(&n) {
            return refuse(format!("n must be in [1, {MAX_BATCH_SIZE}], got {n}."));
        }
        let none = Penalties::default();
        let params = SamplingParams {
            max_new_tokens,
            min_new_tokens,
            stop_token_ids: stop_token_ids(json.stop_token_ids, vocab_size)?,
            ignore_eos: json.ignore_eos.unwrap_or(false),
            temperature: json.temperature.map_or(defaults.temperature, |value| value as f32),
            top_p: json.top_p.map_or(defaults.top_p, |value| value as f32),
            top_k: top_k(json.top_k)?,
            min_p: json.min_p.map_or(defaults.min_p, |value| value as f32),
            // The engine draws one for a request that brings none.
            sampling_seed: json.sampling_seed.map(|seed| seed as u64),
            penalties: Penalties {
                frequency: json.frequency_penalty.map_or(none.frequency, |value| value as f32),
                presence: json.presence_penalty.map_or(none.presence, |value| value as f32),
                repetition: json.repetition_penalty.map_or(none.repetition, |value| value as f32),
            },
            logit_bias: logit_bias(json.logit_bias, vocab_size)?,
        };
        let params =
            params.normalized(vocab_size).map_err(|error| ApiError::value(error.to_string()))?;
        let interval = json.stream_interval.unwrap_or(stream_interval as i64);
        if interval < 1 {
            return refuse(format!("stream_interval must be at least 1, got {interval}."));
        }
        let text = TextOptions {
            stop: stop_strings(json.stop)?,
            stop_regex: StopPatterns::new(json.stop_regex)?,
            skip_special_tokens: json.skip_special_tokens.unwrap_or(true),
            no_stop_trim: json.no_stop_trim.unwrap_or(false),
            stream_interval: interval as usize,
        };
        let checks_total = matches!(json.max_new_tokens, MaxNewTokens::Exactly(_));
        Ok(Self {
            params,
            n: n as usize,
            text,
            checks_total,
            logprobs: None,
            grammar,
            thinking_budget: json.custom_params.and_then(|params| budget(params.thinking_budget)),
            begins_inside: None,
            priority: None,
            pooling: None,
            second_text: None,
        })
    }

    /// The parameters of sample `sample`: with a seed, the request's or `default_seed`, each has
    /// its own.
    pub(crate) fn params_of(&self, sample: usize, default_seed: Option<u64>) -> SamplingParams {
        let mut params = self.params.clone();
        let seed = params.sampling_seed.or(default_seed);
        params.sampling_seed = seed.map(|seed| seed.wrapping_add(sample as u64));
        params
    }

    /// # Errors
    /// Prompt and completion do not fit into the context together.
    pub(crate) fn check_length(
        &self,
        num_tokens: usize,
        context_length: usize,
    ) -> Result<(), ApiError> {
        let Some(max) = self.params.max_new_tokens.filter(|_| self.checks_total) else {
            return Ok(());
        };
        let total = num_tokens.saturating_add(max);
        if total <= context_length {
            return Ok(());
        }
        Err(ApiError::value(format!(
            "The requested token count exceeds the model's maximum context length of \
             {context_length} tokens: {total} tokens, {num_tokens} of the input and {max} for \
             the completion. Shorten the input or the completion."
        )))
    }
}

/// The limit to reasoning, if it is one.
pub(crate) fn budget(num_tokens: Option<i64>) -> Option<usize> {
    num_tokens.and_then(|num_tokens| usize::try_from(num_tokens).ok())
}

fn top_k(top_k: Option<i64>) -> Result<u32, ApiError> {
    match top_k {
        None | Some(-1) => Ok(TOP_K_ALL),
        Some(k) if k >= 1 => Ok(u32::try_from(k).unwrap_or(TOP_K_ALL)),
        Some(k) => {
            Err(ApiError::value(format!("top_k must be -1 (disable) or at least 1, got {k}.")))
        }
    }
}

/// # Errors
/// A key that is no token of the model. Values are checked with the other parameters.
fn logit_bias(
    bias: Option<BTreeMap<String, f64>>,
    vocab_size: usize,
) -> Result<Arc<[(TokenId, f32)]>, ApiError> {
    let entry = |(key, bias): (String, f64)| match key.parse::<TokenId>() {
        Ok(id) if (id as usize) < vocab_size => Ok((id, bias as f32)),
        _ => Err(ApiError::value(format!(
            "logit_bias must have keys in [0, {vocab_size}), got {key}."
        ))),
    };
    let entries: BTreeMap<_, _> =
        bias.unwrap_or_default().into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(entries.into_iter().collect())
}

fn stop_strings(stop: Option<StopStrings>) -> Result<Vec<String>, ApiError> {
    let stop = stop.unwrap_or_default();
    if stop.count > StopStrings::MAX {
        let (max, count) = (StopStrings::MAX, stop.count);
        let message = format!("at most {max} stop strings are allowed, got {count}");
        return Err(ApiError::value(message));
    }
    Ok(stop.strings.into_iter().filter(|text| !text.is_empty()).collect())
}

/// An id that the vocabulary does not have stops nothing, as upstream: clients send one list to all
/// their models.
fn stop_token_ids(
    ids: Option<Vec<Option<i64>>>,
    vocab_size: usize,
) -> Result<Vec<TokenId>, ApiError> {
    let ids = ids.into_iter().flatten().flatten();
    let mut tokens: Vec<_> = ids
        .filter_map(|id| TokenId::try_from(id).ok())
        .filter(|&token| (token as usize) < vocab_size)
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    if tokens.len() > MAX_STOP_TOKEN_IDS {
        let count = tokens.len();
        return Err(ApiError::value(format!(
            "at most {MAX_STOP_TOKEN_IDS} stop_token_ids are allowed, got {count}"
        )));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Result<SamplingSpec, String> {
        let json = serde_json::from_str(json).map_err(|error| error.to_string())?;
        SamplingSpec::new(json, 100, 1).map_err(|error| error.message)
    }

    #[test]
    fn defaults_are_sglangs() {
        let spec = spec("{}").unwrap();
        assert_eq!(spec.params, SamplingParams::default());
        assert_eq!((spec.n, spec.checks_total), (1, false));
        assert!(spec.text.skip_special_tokens && !spec.text.no_stop_trim);
    }

    #[test]
    fn null_means_default_except_for_max_new_tokens() {
        let all = r#"{"max_new_tokens":null,"temperature":null,"top_k":null,"stop":null,"n":null}"#;
        let spec = spec(all).unwrap();
        assert_eq!(spec.params.max_new_tokens, None);
        assert_eq!((spec.params.temperature, spec.params.top_k), (1.0, TOP_K_ALL));
    }

    #[test]
    fn ranges_are_checked_by_name() {
        for (json, name) in [
            (r#"{"temperature":-1}"#, "temperature"),
            (r#"{"temperature":1e300}"#, "temperature"),
            (r#"{"top_p":0}"#, "top_p"),
            (r#"{"top_p":1.5}"#, "top_p"),
            (r#"{"top_k":0}"#, "top_k"),
            (r#"{"top_k":-2}"#, "top_k"),
            (r#"{"min_p":2}"#, "min_p"),
            (r#"{"max_new_tokens":-1}"#, "max_new_tokens"),
            (r#"{"min_new_tokens":-1}"#, "min_new_tokens"),
            (r#"{"min_new_tokens":9,"max_new_tokens":8}"#, "min_new_tokens"),
            (r#"{"n":0}"#, "n must"),
            (r#"{"n":1000000000}"#, "n must"),
            (r#"{"frequency_penalty":2.5}"#, "frequency_penalty"),
            (r#"{"presence_penalty":-3}"#, "presence_penalty"),
            (r#"{"repetition_penalty":0}"#, "repetition_penalty"),
            (r#"{"logit_bias":{"100":1}}"#, "logit_bias"),
            (r#"{"logit_bias":{"x":1}}"#, "logit_bias"),
            (r#"{"logit_bias":{"1":1e300}}"#, "logit_bias"),
            (r#"{"stream_interval":0}"#, "stream_interval"),
            (r#"{"stop_regex":"("}"#, "stop_regex"),
        ] {
            let error = spec(json).unwrap_err();
            assert!(error.contains(name), "{json}: {error}");
        }
    }

    #[test]
    fn stop_tokens_are_those_of_the_vocabulary() {
        let ids = r#"{"stop_token_ids":[100,7,-1,99,null,7]}"#;
        assert_eq!(spec(ids).unwrap().params.stop_token_ids, [7, 99]);
        let many: Vec<_> = (0..2000).collect();
        let json = serde_json::from_value(serde_json::json!({"stop_token_ids": many})).unwrap();
        let error = SamplingSpec::new(json, 4000, 1).unwrap_err().message;
        assert_eq!(error, "at most 1024 stop_token_ids are allowed, got 2000");
    }

    #[test]
    fn a_completion_follows_one_grammar_at_most() {
        assert_eq!(spec(r#"{"regex":"","ebnf":null}"#).unwrap().grammar, None);
        let grammar = spec(r#"{"regex":"a+","json_schema":""}"#).unwrap().grammar.unwrap().spec;
        assert_eq!((grammar.kind.to_string(), &*grammar.text), ("regex".to_owned(), "a+"));
        let error = spec(r#"{"regex":"a+","structural_tag":"{}"}"#).unwrap_err();
        assert_eq!(error, "Only one of regex, json_schema, ebnf, or structural_tag can be set.");
    }

    #[test]
    fn samples_have_their_own_seeds() {
        let spec = spec(r#"{"sampling_seed":-1,"n":2}"#).unwrap();
        assert_eq!(spec.params_of(0, Some(42)).sampling_seed, Some(u64::MAX));
        assert_eq!(spec.params_of(1, None).sampling_seed, Some(0));
    }

    #[test]
    fn a_default_seed_is_for_requests_without_one() {
        let spec = spec(r#"{"n":2}"#).unwrap();
        assert_eq!(spec.params_of(1, None).sampling_seed, None);
        assert_eq!(spec.params_of(0, Some(42)).sampling_seed, Some(42));
        assert_eq!(spec.params_of(1, Some(42)).sampling_seed, Some(43));
    }
}
