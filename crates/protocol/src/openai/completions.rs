//! `/v1/completions`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};
use types::{MatchedStop, TokenId};

use super::{Metadata, ResponseFormat, SglExt, StreamOptions, Usage};
use crate::{
    OneOrMany, PromptIds, StopStrings,
    integer::integer,
    native::{CUSTOM_PARAMS_TABLE, CustomParams, SESSION_TABLE, SessionParams},
    unsupported::{Field, Table},
};

/// Text, texts, token ids or lists of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// To be tokenized.
    Text(OneOrMany<String>),
    /// Already tokens.
    Ids(PromptIds),
}

/// The request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct CompletionRequest {
    /// Echoed; one model is served, so it is not checked.
    #[serde(default)]
    pub model: Option<String>,
    /// What to complete.
    pub prompt: Prompt,
    /// 16 unless set.
    #[serde(default, deserialize_with = "integer")]
    pub max_tokens: Option<i64>,
    /// What comes after the completion.
    #[serde(default)]
    pub suffix: Option<String>,
    /// At least so many.
    #[serde(default, deserialize_with = "integer")]
    pub min_tokens: Option<i64>,
    /// Samples of each prompt.
    #[serde(default, deserialize_with = "integer")]
    pub n: Option<i64>,
    /// Same as `n` at most: more would need ranking by logprob.
    #[serde(default, deserialize_with = "integer")]
    pub best_of: Option<i64>,
    /// Puts the prompt before the completion.
    #[serde(default)]
    pub echo: Option<bool>,
    /// Any 64-bit integer.
    #[serde(default, deserialize_with = "integer")]
    pub seed: Option<i64>,
    /// Text that ends it.
    #[serde(default)]
    pub stop: Option<StopStrings>,
    /// Patterns whose match ends it; it stays in the text.
    #[serde(default)]
    pub stop_regex: Option<StopStrings>,
    /// Tokens that end it.
    #[serde(default)]
    pub stop_token_ids: Option<Vec<Option<i64>>>,
    /// Server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// What the stream reports.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// 1 unless set.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// 1 unless set.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// -1 unless set.
    #[serde(default, deserialize_with = "integer")]
    pub top_k: Option<i64>,
    /// 0 unless set.
    #[serde(default)]
    pub min_p: Option<f64>,
    /// 0 unless set.
    #[serde(default)]
    pub frequency_penalty: Option<f64>,
    /// 0 unless set.
    #[serde(default)]
    pub presence_penalty: Option<f64>,
    /// 1 unless set.
    #[serde(default)]
    pub repetition_penalty: Option<f64>,
    /// Added to the logits of tokens, by id.
    #[serde(default)]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// More sampling parameters.
    #[serde(default)]
    pub custom_params: Option<CustomParams>,
    /// What the completion has to look like.
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
    /// A JSON schema, as text, that the completion follows.
    #[serde(default)]
    pub json_schema: Option<String>,
    /// A regular expression for the whole completion.
    #[serde(default)]
    pub regex: Option<String>,
    /// A grammar that the completion follows.
    #[serde(default)]
    pub ebnf: Option<String>,
    /// Log-probabilities of each token, and of so many of the most likely ones.
    #[serde(default, deserialize_with = "integer")]
    pub logprobs: Option<i64>,
    /// EOS does not end it.
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    /// On by default.
    #[serde(default)]
    pub skip_special_tokens: Option<bool>,
    /// Keeps the stop string in the text.
    #[serde(default)]
    pub no_stop_trim: Option<bool>,
    /// Names for the sequences.
    #[serde(default)]
    pub rid: Option<OneOrMany<String>>,
    /// Counts if the server schedules by priority.
    #[serde(default, deserialize_with = "integer")]
    pub priority: Option<i64>,
    /// What the prompt goes on from.
    #[serde(default)]
    pub session_params: Option<SessionParams>,
    /// Adds the tokens of prompt and completion to each choice.
    #[serde(default)]
    pub return_token_ids: Option<bool>,
    /// Adds where cached tokens came from to `sglext`.
    #[serde(default)]
    pub return_cached_tokens_details: Option<bool>,
}

/// What a completion body may not set.
pub static COMPLETION_TABLE: Table = Table {
    unsupported: &[
        Field::empty("bootstrap_host"),
        Field::empty("bootstrap_port"),
        Field::empty("bootstrap_room"),
        Field::empty("cache_salt"),
        Field::empty("custom_labels"),
        Field::empty("custom_logit_processor"),
        Field::number("data_parallel_rank", 0.0),
        Field::empty("disagg_prefill_dp_rank"),
        Field::empty("extra_key"),
        Field::empty("images_config"),
        Field::empty("lora_path"),
        Field::empty("mm_processor_kwargs"),
        Field::off("return_hidden_states"),
        Field::off("return_routed_experts"),
        Field::off("return_spec_tokens_details"),
        Field::number("routed_dp_rank", 0.0),
        Field::empty("session_id"),
        Field::empty("watermark"),
    ],
    supported: None,
    nested: &[("custom_params", &CUSTOM_PARAMS_TABLE), ("session_params", &SESSION_TABLE)],
};

/// Log-probabilities of a completion, with `echo` those of the prompt before them.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct CompletionLogprobs {
    /// -1 each, as upstream.
    pub text_offset: Vec<i64>,
    /// `null` for the first token of a prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// Text of each token.
    pub tokens: Vec<String>,
    /// The most likely tokens at each position, by their text.
    pub top_logprobs: Vec<Option<BTreeMap<String, Option<f32>>>>,
}

/// One completion.
#[derive(Debug, Serialize)]
pub struct CompletionChoice<'a> {
    /// Prompt by prompt, its samples in a row.
    pub index: usize,
    /// All of it, or the new part in a stream.
    pub text: &'a str,
    /// With `logprobs`.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop`, `length` or `abort`.
    pub finish_reason: Option<&'static str>,
    /// The stop string or token that ended it.
    pub matched_stop: Option<&'a MatchedStop>,
    /// With `return_token_ids`: the completion's, or the new ones in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<&'a [TokenId]>,
    /// With `return_token_ids`: in a stream only in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<&'a [TokenId]>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct CompletionResponse<'a> {
    /// The first sequence's `rid`.
    pub id: &'a str,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Unix time.
    pub created: u64,
    /// As requested.
    pub model: &'a str,
    /// All sequences.
    pub choices: Vec<CompletionChoice<'a>>,
    /// Token counts.
    pub usage: Usage,
    /// Version of the weights.
    pub metadata: Metadata,
    /// What else was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sglext: Option<SglExt<'a>>,
}

/// A piece of a stream.
#[derive(Debug, Serialize)]
pub struct CompletionChunk<'a> {
    /// The sequence's `rid`.
    pub id: &'a str,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Unix time.
    pub created: u64,
    /// As requested.
    pub model: &'a str,
    /// One, or none in the usage chunk.
    pub choices: Vec<CompletionChoice<'a>>,
    /// In the usage chunk, and in all with `continuous_usage_stats`.
    pub usage: Option<Usage>,
    /// In a chunk of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sglext: Option<SglExt<'a>>,
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

struct PromptVisitor;

impl<'de> de::Visitor<'de> for PromptVisitor {
    type Value = Prompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a list of strings, a list of token ids or a list of such lists")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompt, E> {
        Ok(Prompt::Text(OneOrMany::One(text.to_owned())))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
        let mut prompt: Option<Prompt> = None;
        while let Some(item) = seq.next_element::<PromptItem>()? {
            match (&mut prompt, item) {
                (None, PromptItem::Text(text)) => {
                    prompt = Some(Prompt::Text(OneOrMany::Many(vec![text])));
                }
                (None, PromptItem::Id(id)) => prompt = Some(Prompt::Ids(PromptIds::One(vec![id]))),
                (None, PromptItem::Ids(ids)) => {
                    prompt = Some(Prompt::Ids(PromptIds::Many(vec![ids])));
                }
                (Some(Prompt::Text(OneOrMany::Many(texts))), PromptItem::Text(text)) => {
                    crate::lists::push_limited(texts, text)?;
                }
                (Some(Prompt::Ids(PromptIds::One(ids))), PromptItem::Id(id)) => ids.push(id),
                (Some(Prompt::Ids(PromptIds::Many(lists))), PromptItem::Ids(ids)) => {
                    crate::lists::push_limited(lists, ids)?;
                }
                _ => return Err(de::Error::custom("prompt: a list must be of one kind")),
            }
        }
        Ok(prompt.unwrap_or(Prompt::Text(OneOrMany::Many(Vec::new()))))
    }
}

enum PromptItem {
    Text(String),
    Id(i64),
    Ids(Vec<i64>),
}

impl<'de> Deserialize<'de> for PromptItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> de::Visitor<'de> for ItemVisitor {
            type Value = PromptItem;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or a list of token ids")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PromptItem, E> {
                Ok(PromptItem::Text(text.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, id: i64) -> Result<PromptItem, E> {
                Ok(PromptItem::Id(id))
            }
            fn visit_u64<E: de::Error>(self, id: u64) -> Result<PromptItem, E> {
                let id = i64::try_from(id);
                id.map(PromptItem::Id).map_err(|_| E::custom("a token id is too large"))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<PromptItem, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = seq.next_element()? {
                    ids.push(id);
                }
                Ok(PromptItem::Ids(ids))
            }
        }
        deserializer.deserialize_any(ItemVisitor)
    }
}
