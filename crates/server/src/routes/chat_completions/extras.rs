//! What a chat answer carries for those who train, route or bill: tokens and `meta_info`.

use axum::http::HeaderMap;
use protocol::openai::{CachedTokensDetails, ChatRequest, SglExt};

use crate::{error::ApiError, generation::Sequence};

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extras {
    /// In each choice.
    pub(super) prompt_token_ids: bool,
    pub(super) token_ids: bool,
    pub(super) meta_info: bool,
    /// In `sglext`.
    input_ids: bool,
    output_ids: bool,
    cache_details: bool,
    /// The tokens of a stream's `sglext` are an event with a name.
    is_framed: bool,
}

/// Proxies that do not touch bodies ask in headers.
const INPUT_IDS_HEADER: &str = "x-sglext-return-input-ids";
const OUTPUT_IDS_HEADER: &str = "x-sglext-return-output-ids";
const FRAMED_HEADER: &str = "x-sglext-ids-framed";

impl Extras {
    /// # Errors
    /// A stream that is asked for what only a whole answer has.
    pub(super) fn new(request: &ChatRequest, headers: &HeaderMap) -> Result<Self, ApiError> {
        let is_set = |field: Option<bool>| field.unwrap_or(false);
        let has = |name: &str| headers.get(name).is_some_and(|value| value == "1");
        let (token_ids, meta_info) =
            (is_set(request.return_token_ids), is_set(request.return_meta_info));
        let prompt_token_ids = is_set(request.return_prompt_token_ids);
        let of_answers = [
            ("return_prompt_token_ids", prompt_token_ids),
            ("return_token_ids", token_ids),
            ("return_meta_info", meta_info),
        ];
        let refused = of_answers.iter().find(|(_, is_set)| *is_set);
        if let Some((name, _)) = refused.filter(|_| is_set(request.stream)) {
            return Err(ApiError::value(format!(
                "{name} is not supported with streaming. Please set stream=false when using \
                 {name}=true."
            )));
        }
        Ok(Self {
            prompt_token_ids: prompt_token_ids || token_ids,
            token_ids,
            meta_info,
            input_ids: is_set(request.return_input_ids_in_sglext) || has(INPUT_IDS_HEADER),
            output_ids: is_set(request.return_output_ids_in_sglext) || has(OUTPUT_IDS_HEADER),
            cache_details: is_set(request.return_cached_tokens_details),
            is_framed: has(FRAMED_HEADER),
        })
    }

    /// Of a whole answer: `sequences` in their order.
    pub(super) fn sglext<'a>(&self, sequences: &[&'a Sequence]) -> Option<SglExt<'a>> {
        let first = *sequences.first()?;
        let details = CachedTokensDetails::new(first.counts().cached_tokens);
        let output_ids = || sequences.iter().map(|sequence| sequence.output_ids()).collect();
        let sglext = SglExt {
            cached_tokens_details: details.filter(|_| self.cache_details),
            input_ids: self.input_ids.then(|| first.prompt_ids()),
            output_ids: self.output_ids.then(output_ids),
        };
        sglext.if_any()
    }

    /// Of a stream, at its end: what comes in a chunk, and what in an event with a name.
    /// An answer that was given up has no tokens.
    pub(super) fn at_end<'a>(
        &self,
        sequences: &'a [Sequence],
    ) -> (Option<SglExt<'a>>, Option<SglExt<'a>>) {
        let mut in_order: Vec<&Sequence> = sequences.iter().collect();
        in_order.sort_by_key(|sequence| sequence.index());
        let Some(mut sglext) = self.sglext(&in_order) else { return (None, None) };
        let reasons = in_order.iter().filter_map(|sequence| sequence.finish_reason());
        if reasons.filter_map(ApiError::from_abort).next().is_some() {
            (sglext.input_ids, sglext.output_ids) = (None, None);
        }
        if !self.is_framed {
            return (sglext.if_any(), None);
        }
        let ids = SglExt {
            input_ids: sglext.input_ids.take(),
            output_ids: sglext.output_ids.take(),
            ..SglExt::default()
        };
        (sglext.if_any(), ids.if_any())
    }
}
