//! `sglext`: what SGLang's answers carry beside OpenAI's fields.

use serde::Serialize;
use types::TokenId;

/// Of a whole answer, or in a stream a chunk without choices before the usage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SglExt<'a> {
    /// With `return_cached_tokens_details`, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_tokens_details: Option<CachedTokensDetails>,
    /// With `return_input_ids_in_sglext`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_ids: Option<&'a [TokenId]>,
    /// With `return_output_ids_in_sglext`, one list for each sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_ids: Option<Vec<&'a [TokenId]>>,
}

/// Where prompt tokens that were not computed came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CachedTokensDetails {
    /// The K/V pool.
    pub device: usize,
    /// Memory below it: there is none.
    pub host: usize,
}

impl CachedTokensDetails {
    /// `None` if no token was.
    pub fn new(cached_tokens: usize) -> Option<Self> {
        (cached_tokens > 0).then_some(Self { device: cached_tokens, host: 0 })
    }
}

impl<'a> SglExt<'a> {
    /// `None` if it says nothing.
    pub fn if_any(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}
