//! Log-probabilities: from what a request asks to what its answer says.
//!
//! Upstream: `convert_logprob_style` in `sglang/srt/managers/tokenizer_manager.py`,
//! `to_openai_style_logprobs` in `sglang/srt/entrypoints/openai/utils.py`.

use std::sync::Arc;

use protocol::{
    native::{MetaLogprobs, TokenLogprob, TokensLogprobs},
    openai::{ChatLogprobs, ChatTokenLogprob, ChatTopLogprob, CompletionLogprobs},
};
use tokenizer::Tokenizer;
use types::{LogprobParams, ReqLogprobs, TokenId, TokenLogprobs};

use crate::error::ApiError;

/// Each position of an answer holds so many entries, so there is a limit.
const MAX_TOP_LOGPROBS: i64 = 1024;

/// What the sequences of a prompt are asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogprobSpec {
    params: LogprobParams,
    with_text: bool,
    /// `token_ids_logprob` was given, if only an empty list.
    names_tokens: bool,
}

impl LogprobSpec {
    /// The completion's tokens and so many of the most likely ones.
    ///
    /// # Errors
    /// A number outside its range.
    pub(crate) fn of_output(top_logprobs_num: i64, name: &str) -> Result<Self, ApiError> {
        if !(0..=MAX_TOP_LOGPROBS).contains(&top_logprobs_num) {
            let range = format!("[0, {MAX_TOP_LOGPROBS}]");
            let message = format!("{name} must be in {range}, got {top_logprobs_num}.");
            return Err(ApiError::value(message));
        }
        let params =
            LogprobParams { top_logprobs_num: top_logprobs_num as usize, ..Default::default() };
        Ok(Self { params, with_text: false, names_tokens: false })
    }

    /// The prompt's tokens too, from `start_len` on; -1: none.
    ///
    /// # Errors
    /// A number outside its range.
    pub(crate) fn with_input(mut self, start_len: i64) -> Result<Self, ApiError> {
        self.params.start_len = match start_len {
            -1 => None,
            start_len => Some(usize::try_from(start_len).map_err(|_| {
                ApiError::value(format!("logprob_start_len must be at least -1, got {start_len}."))
            })?),
        };
        Ok(self)
    }

    /// These tokens at each position.
    pub(crate) fn with_token_ids(self, token_ids: &[TokenId]) -> Self {
        let params = LogprobParams { token_ids: token_ids.into(), ..self.params };
        Self { params, names_tokens: true, ..self }
    }

    /// Each token's text.
    pub(crate) fn with_text(self, with_text: bool) -> Self {
        Self { with_text, ..self }
    }

    /// # Errors
    /// The prompt ends before `logprob_start_len`.
    pub(super) fn check(&self, num_tokens: usize) -> Result<(), ApiError> {
        match self.params.start_len.filter(|&start_len| start_len > num_tokens) {
            None => Ok(()),
            Some(start_len) => Err(ApiError::value(format!(
                "logprob_start_len ({start_len}) is higher than the number of input tokens \
                 ({num_tokens}). Please use a smaller logprob_start_len."
            ))),
        }
    }

    /// What the engine has to tell of a prompt of so many tokens.
    pub(super) fn params(&self, num_tokens: usize) -> Arc<LogprobParams> {
        let start_len = self.params.start_len.filter(|&start_len| start_len < num_tokens);
        Arc::new(LogprobParams { start_len, ..self.params.clone() })
    }
}

/// What a sequence has heard so far.
#[derive(Debug)]
pub(crate) struct SequenceLogprobs {
    spec: LogprobSpec,
    input: Vec<TokenLogprobs>,
    output: Vec<TokenLogprobs>,
}

/// The sequence that log-probabilities belong to.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) prompt_ids: &'a [TokenId],
    pub(crate) output_ids: &'a [TokenId],
}

impl Tokens<'_> {
    fn text(&self, id: TokenId) -> String {
        self.tokenizer.decode(&[id], false)
    }

    /// The bytes of a token with this text: a part of a character has no text of its own.
    fn bytes(&self, id: TokenId, text: &str) -> Vec<u8> {
        match self.tokenizer.token_bytes(id) {
            bytes if text.contains(char::REPLACEMENT_CHARACTER) && !bytes.is_empty() => {
                bytes.into()
            }
            _ => text.into(),
        }
    }

    /// The text, or for a part of a character its bytes as Latin-1, so that nothing is lost.
    fn lossless_text(&self, id: TokenId) -> String {
        let text = self.text(id);
        let bytes = self.bytes(id, &text);
        match std::str::from_utf8(&bytes) {
            Ok(_) => text,
            Err(_) => bytes.into_iter().map(char::from).collect(),
        }
    }
}

impl SequenceLogprobs {
    pub(super) fn new(spec: LogprobSpec) -> Self {
        Self { spec, input: Vec::new(), output: Vec::new() }
    }

    pub(super) fn push(&mut self, news: ReqLogprobs) {
        self.input.extend(news.input);
        self.output.extend(news.output);
    }

    /// Of the named tokens, at the completion's first position.
    pub(super) fn of_labels(&self) -> &[f32] {
        self.output.first().map_or(&[], |position| &position.of_ids)
    }

    /// Forgets tokens that are not part of the answer.
    pub(super) fn truncate(&mut self, num_tokens: usize) {
        self.output.truncate(num_tokens);
    }

    /// Index of the first prompt token in an answer: past the prompt if none was asked for.
    fn start(&self, tokens: &Tokens<'_>) -> usize {
        self.spec.params.start_len.unwrap_or(tokens.prompt_ids.len())
    }

    /// For `meta_info`: the completion's from `from` on. With `from` past the beginning, a
    /// stream of new parts, the prompt's were told before.
    pub(crate) fn meta(&self, tokens: &Tokens<'_>, from: usize) -> MetaLogprobs {
        let text = |id| self.spec.with_text.then(|| tokens.text(id));
        let output_ids = &tokens.output_ids[from..];
        let output = &self.output[from.min(self.output.len())..];
        let input_ids = &tokens.prompt_ids[self.start(tokens)..];
        let triple = |(position, &id): (&TokenLogprobs, &TokenId)| {
            TokenLogprob(Some(position.logprob), id, text(id))
        };
        let mut input_token_logprobs = Vec::new();
        if from == 0 {
            input_token_logprobs
                .extend(input_ids.first().map(|&id| TokenLogprob(None, id, text(id))));
            let rest = input_ids.iter().skip(1);
            input_token_logprobs.extend(self.input.iter().zip(rest).map(triple));
        }
        let top = |position: &TokenLogprobs| -> Vec<TokenLogprob> {
            let top = position.top.iter();
            top.map(|&(logprob, id)| TokenLogprob(Some(logprob), id, text(id))).collect()
        };
        let named = |position: &TokenLogprobs| -> Vec<TokenLogprob> {
            let ids = self.spec.params.token_ids.iter();
            let pairs = ids.zip(&position.of_ids);
            pairs.map(|(&id, &logprob)| TokenLogprob(Some(logprob), id, text(id))).collect()
        };
        let has_top = self.spec.params.top_logprobs_num > 0;
        let names = self.spec.names_tokens;
        let of_input = |entry: &dyn Fn(&TokenLogprobs) -> Vec<TokenLogprob>| -> TokensLogprobs {
            let first = (!input_token_logprobs.is_empty()).then_some(None);
            let rest = self.input.iter().filter(|_| from == 0).map(|p| Some(entry(p)));
            first.into_iter().chain(rest).collect()
        };
        let of_output = |entry: &dyn Fn(&TokenLogprobs) -> Vec<TokenLogprob>| -> TokensLogprobs {
            output.iter().map(|position| Some(entry(position))).collect()
        };
        MetaLogprobs {
            input_top_logprobs: has_top.then(|| of_input(&top)),
            output_top_logprobs: has_top.then(|| of_output(&top)),
            input_token_ids_logprobs: names.then(|| of_input(&named)),
            output_token_ids_logprobs: names.then(|| of_output(&named)),
            output_token_logprobs: output.iter().zip(output_ids).map(triple).collect(),
            output_token_logprobs_length: self.output.len(),
            input_token_logprobs,
        }
    }

    /// For `/v1/completions`: the completion's from `from` on, and before them the prompt's
    /// if they were asked for.
    pub(crate) fn completion(&self, tokens: &Tokens<'_>, from: usize) -> CompletionLogprobs {
        let mut answer = CompletionLogprobs::default();
        let mut push = |id: TokenId, position: Option<&TokenLogprobs>| {
            let top = position.map(|position| {
                let top = position.top.iter();
                top.map(|&(logprob, id)| (tokens.lossless_text(id), Some(logprob))).collect()
            });
            answer.text_offset.push(-1);
            answer.tokens.push(tokens.lossless_text(id));
            answer.token_logprobs.push(position.map(|position| position.logprob));
            answer.top_logprobs.push(top);
        };
        if self.spec.params.start_len.is_some() && from == 0 {
            let first = std::iter::once(None).chain(self.input.iter().map(Some));
            let ids = &tokens.prompt_ids[self.start(tokens)..];
            ids.iter().zip(first).for_each(|(&id, position)| push(id, position));
        }
        for (&id, position) in tokens.output_ids.iter().zip(&self.output).skip(from) {
            push(id, Some(position));
        }
        answer
    }

    /// For `/v1/chat/completions`: the answer's from `from` on.
    pub(crate) fn chat(&self, tokens: &Tokens<'_>, from: usize) -> ChatLogprobs {
        let top = |&(logprob, id): &(f32, TokenId)| {
            let token = tokens.text(id);
            ChatTopLogprob { bytes: tokens.bytes(id, &token), token, logprob: Some(logprob) }
        };
        let entry = |(&id, position): (&TokenId, &TokenLogprobs)| {
            let token = tokens.text(id);
            ChatTokenLogprob {
                bytes: tokens.bytes(id, &token),
                token,
                logprob: Some(position.logprob),
                top_logprobs: position.top.iter().map(top).collect(),
            }
        };
        let positions = tokens.output_ids.iter().zip(&self.output).skip(from);
        ChatLogprobs { content: positions.map(entry).collect() }
    }
}
