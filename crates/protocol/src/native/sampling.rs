//! `sampling_params` of `/generate`.
//!
//! Unknown keys are refused here (by [`SAMPLING_TABLE`]), unlike anywhere else:
//! a misspelt `temprature` would otherwise go unnoticed.
//!
//! Upstream: `sglang/srt/sampling/sampling_params.py`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use crate::{
    OneOrMany, StopStrings,
    integer::integer,
    unsupported::{Field, Table},
};

/// The parameters as sent. `null` means the default, except for
/// `max_new_tokens`, where it means "to the end of the context".
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "sampling parameters as an object")]
pub struct SamplingJson {
    /// Tokens to generate at most.
    pub max_new_tokens: MaxNewTokens,
    /// Tokens to generate at least.
    #[serde(deserialize_with = "integer")]
    pub min_new_tokens: Option<i64>,
    /// Text that ends the request.
    pub stop: Option<StopStrings>,
    /// Patterns whose match ends the request; it stays in the text.
    pub stop_regex: Option<StopStrings>,
    /// Tokens that end the request.
    pub stop_token_ids: Option<Vec<Option<i64>>>,
    /// Divides the logits; 0 is greedy.
    pub temperature: Option<f64>,
    /// Nucleus size.
    pub top_p: Option<f64>,
    /// -1 for every token.
    #[serde(deserialize_with = "integer")]
    pub top_k: Option<i64>,
    /// Relative probability floor.
    pub min_p: Option<f64>,
    /// Samples of each prompt.
    #[serde(deserialize_with = "integer")]
    pub n: Option<i64>,
    /// EOS does not end the request.
    pub ignore_eos: Option<bool>,
    /// Leaves special tokens out of the text.
    pub skip_special_tokens: Option<bool>,
    /// Keeps the stop string or stop token in the text.
    pub no_stop_trim: Option<bool>,
    /// Tokens between two chunks of a stream.
    #[serde(deserialize_with = "integer")]
    pub stream_interval: Option<i64>,
    /// Any 64-bit integer.
    #[serde(deserialize_with = "integer")]
    pub sampling_seed: Option<i64>,
    /// Taken off a token's logit for each time that the completion has it.
    pub frequency_penalty: Option<f64>,
    /// Taken off a token's logit if the completion has it.
    pub presence_penalty: Option<f64>,
    /// Shrinks a token's logit if the completion has it.
    pub repetition_penalty: Option<f64>,
    /// Added to the logits of tokens, by id.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// A JSON schema, as text, that the completion follows.
    pub json_schema: Option<String>,
    /// A regular expression for the whole completion.
    pub regex: Option<String>,
    /// A grammar that the completion follows.
    pub ebnf: Option<String>,
    /// Tags, as JSON text, whose contents follow grammars.
    pub structural_tag: Option<String>,
    /// More of them.
    pub custom_params: Option<CustomParams>,
}

/// `custom_params`. Upstream takes any for the sake of logit processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CustomParams {
    /// Tokens after which reasoning has to end; negative: it never has to.
    #[serde(deserialize_with = "integer")]
    pub thinking_budget: Option<i64>,
}

/// What `custom_params` may set.
pub static CUSTOM_PARAMS_TABLE: Table =
    Table { unsupported: &[], supported: Some(&["thinking_budget"]), nested: &[] };

/// `max_new_tokens`: absent, `null` and a number are three different things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MaxNewTokens {
    /// Absent: 128, or less where the context ends before.
    #[default]
    Default,
    /// `null`: to the end of the context.
    Unlimited,
    /// So many, and they must fit into the context.
    Exactly(i64),
}

impl<'de> Deserialize<'de> for MaxNewTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(integer(deserializer)?.map_or(Self::Unlimited, Self::Exactly))
    }
}

/// What `sampling_params` may not set, and all that it may.
pub static SAMPLING_TABLE: Table = Table {
    unsupported: &[Field::empty("beam_width"), Field::empty("choice"), Field::empty("watermark")],
    supported: Some(&[
        "max_new_tokens",
        "min_new_tokens",
        "stop",
        "stop_regex",
        "stop_token_ids",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "ignore_eos",
        "skip_special_tokens",
        // Of no effect, as upstream with every fast tokenizer.
        "spaces_between_special_tokens",
        "no_stop_trim",
        "stream_interval",
        "sampling_seed",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "json_schema",
        "regex",
        "ebnf",
        "structural_tag",
        "custom_params",
    ]),
    nested: &[("custom_params", &CUSTOM_PARAMS_TABLE)],
};

/// One object for all prompts, or a list with one for each.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<OneOrMany<SamplingJson>>, D::Error> {
    struct Params;
    impl<'de> de::Visitor<'de> for Params {
        type Value = Option<OneOrMany<SamplingJson>>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("sampling parameters as an object or a list of objects")
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            let params = SamplingJson::deserialize(de::value::MapAccessDeserializer::new(map))?;
            Ok(Some(OneOrMany::One(params)))
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(params) = seq.next_element::<Option<SamplingJson>>()? {
                crate::lists::push_limited(&mut list, params.unwrap_or_default())?;
            }
            Ok(Some(OneOrMany::Many(list)))
        }
    }
    deserializer.deserialize_any(Params)
}
