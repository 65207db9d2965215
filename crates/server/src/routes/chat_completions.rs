//! `/v1/chat/completions`.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_chat.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::{
    PromptIds,
    native::{MaxNewTokens, SamplingJson},
    openai::{
        CHAT_TABLE, ChatChoice, ChatChunk, ChatChunkChoice, ChatDelta, ChatLogprobs, ChatRequest,
        ChatResponse, ChatResponseMessage, Metadata,
    },
};
use serde_json::json;
use types::{FinishReason, TokenId};

use super::{
    generate::check_ids,
    usage::{UsagePolicy, usage_of},
};
use crate::{
    AppState, SamplingDefaults,
    body::{read_json, require_json_content_type},
    error::ApiError,
    generation::{
        ChatPrompt, GenerationPlan, LogprobSpec, Prompts, SamplingSpec, Sequence, SequenceFlags,
        Update, tokenize_chat,
    },
    sse::{self, Frames, StreamFormat},
    state::unix_seconds,
};

pub(crate) async fn chat_completions(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    require_json_content_type(request.headers())?;
    let mut request: ChatRequest = read_json(&state, request, &CHAT_TABLE).await?;
    let is_streaming = request.stream.unwrap_or(false);
    let mut spec = SamplingSpec::new(
        sampling(&request, &state.config.sampling_defaults),
        state.engine.model().vocab_size,
        state.config.stream_interval,
    )?;
    spec.logprobs = match (request.logprobs.unwrap_or(false), request.top_logprobs.unwrap_or(0)) {
        (true, num_top) => Some(LogprobSpec::of_output(num_top, "top_logprobs")?),
        (false, 0) => None,
        (false, _) => return Err(ApiError::value("top_logprobs needs logprobs to be true.")),
    };
    let n = spec.n;
    let ids = prompt(&state, &mut request).await?;
    let plan = GenerationPlan {
        prompts: Prompts::Ids(vec![ids]),
        specs: vec![spec],
        rid: request.rid,
        flags: SequenceFlags { arrived, is_streaming, log_metrics: true },
    };
    let set = plan.start(&state).await?;
    let words = Words {
        usage: UsagePolicy::new(&state, request.stream_options.as_ref(), n),
        model: request.model.unwrap_or_else(|| "default".to_owned()),
        created: unix_seconds() as u64,
    };
    if is_streaming {
        return Ok(sse::respond(set, words));
    }
    let sequences = set.collect().await?;
    Ok(words.response(&state, &sequences))
}

async fn prompt(state: &AppState, request: &mut ChatRequest) -> Result<Vec<TokenId>, ApiError> {
    let messages = std::mem::take(&mut request.messages);
    if let Some(ids) = request.input_ids.take() {
        return Ok(check_ids(state, PromptIds::One(ids))?.into_vec().swap_remove(0));
    }
    let prompt = ChatPrompt {
        messages,
        add_generation_prompt: true,
        continue_final_message: request.continue_final_message.unwrap_or(false),
        kwargs: request.chat_template_kwargs.take(),
    };
    tokenize_chat(state, prompt).await
}

fn sampling(request: &ChatRequest, defaults: &SamplingDefaults) -> SamplingJson {
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    SamplingJson {
        max_new_tokens: max_tokens.map_or(MaxNewTokens::Unlimited, MaxNewTokens::Exactly),
        min_new_tokens: request.min_tokens,
        stop: request.stop.clone(),
        stop_token_ids: request.stop_token_ids.clone(),
        temperature: request.temperature.or(defaults.temperature),
        top_p: request.top_p.or(defaults.top_p),
        top_k: request.top_k.or(defaults.top_k),
        min_p: request.min_p.or(defaults.min_p),
        n: request.n,
        ignore_eos: request.ignore_eos,
        skip_special_tokens: request.skip_special_tokens,
        no_stop_trim: request.no_stop_trim,
        stream_interval: None,
        sampling_seed: request.seed,
        frequency_penalty: request.frequency_penalty,
        presence_penalty: request.presence_penalty,
        repetition_penalty: request.repetition_penalty.or(defaults.repetition_penalty),
        logit_bias: request.logit_bias.clone(),
    }
}

/// How answers and chunks are worded.
struct Words {
    usage: UsagePolicy,
    model: String,
    created: u64,
}

impl Words {
    fn response(&self, state: &AppState, sequences: &[Sequence]) -> Response {
        let choice = |sequence| ChatChoice {
            index: Sequence::index(sequence),
            message: ChatResponseMessage {
                role: "assistant",
                content: sequence.text(),
                reasoning_content: None,
                tool_calls: None,
            },
            logprobs: sequence.logprobs().map(|(said, tokens)| said.chat(&tokens, 0)),
            finish_reason: sequence.finish_reason().map(FinishReason::openai_name),
            matched_stop: sequence.matched_stop(),
        };
        let response = ChatResponse {
            id: sequences.first().map_or("", Sequence::rid),
            object: "chat.completion",
            created: self.created,
            model: &self.model,
            choices: sequences.iter().map(choice).collect(),
            usage: usage_of(sequences, self.usage.n, self.usage.with_cache),
            metadata: Metadata { weight_version: state.config.weight_version.clone() },
        };
        Json(response).into_response()
    }

    fn chunk<'a>(
        &'a self,
        sequence: &'a Sequence,
        choices: Vec<ChatChunkChoice<'a>>,
    ) -> ChatChunk<'a> {
        ChatChunk {
            id: sequence.rid(),
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage: self.usage.chunk(sequence),
        }
    }

    fn push_delta(
        &self,
        sequence: &Sequence,
        (delta, logprobs): (ChatDelta<'_>, Option<ChatLogprobs>),
        frames: &mut Frames,
    ) {
        let index = sequence.index();
        let choice =
            ChatChunkChoice { index, delta, logprobs, finish_reason: None, matched_stop: None };
        frames.push(&self.chunk(sequence, vec![choice]));
    }
}

impl StreamFormat for Words {
    fn update(&mut self, sequence: &Sequence, update: &Update, frames: &mut Frames) {
        let finish_reason = sequence.finish_reason();
        if let Some(error) = finish_reason.and_then(ApiError::from_abort) {
            return self.error(&error, frames);
        }
        if update.is_first {
            let role = Some("assistant");
            let delta = ChatDelta { role, content: Some(""), ..ChatDelta::default() };
            self.push_delta(sequence, (delta, None), frames);
        }
        let text = &sequence.text()[update.text_from..];
        let logprobs = sequence.logprobs();
        let logprobs = logprobs.map(|(said, tokens)| said.chat(&tokens, update.ids_from));
        if !text.is_empty() || logprobs.as_ref().is_some_and(|said| !said.content.is_empty()) {
            let delta = ChatDelta { content: Some(text), ..ChatDelta::default() };
            self.push_delta(sequence, (delta, logprobs), frames);
        }
        if let Some(reason) = finish_reason {
            let choice = ChatChunkChoice {
                index: sequence.index(),
                delta: ChatDelta::default(),
                logprobs: None,
                finish_reason: Some(reason.openai_name()),
                matched_stop: sequence.matched_stop(),
            };
            frames.push(&self.chunk(sequence, vec![choice]));
        }
    }

    fn end(&mut self, sequences: &[Sequence], frames: &mut Frames) {
        if let Some(last) = sequences.last().filter(|_| self.usage.at_end) {
            let usage = usage_of(sequences, self.usage.n, self.usage.with_cache);
            frames.push(&ChatChunk { usage: Some(usage), ..self.chunk(last, Vec::new()) });
        }
    }

    fn error(&mut self, error: &ApiError, frames: &mut Frames) {
        frames.push(&json!({"error": error.body()}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_own_parameters_win_over_the_models() {
        let defaults = SamplingDefaults {
            temperature: Some(0.6),
            top_p: Some(0.9),
            top_k: Some(20),
            min_p: None,
            repetition_penalty: Some(1.1),
        };
        let json = r#"{"messages":[],"temperature":0,"top_p":null,"max_tokens":9}"#;
        let request: ChatRequest = serde_json::from_str(json).unwrap();
        let params = sampling(&request, &defaults);
        assert_eq!(params.temperature, Some(0.0));
        assert_eq!((params.top_p, params.top_k, params.min_p), (Some(0.9), Some(20), None));
        assert_eq!(params.repetition_penalty, Some(1.1));
        assert_eq!(params.max_new_tokens, MaxNewTokens::Exactly(9));
        let both = r#"{"messages":[],"max_completion_tokens":5,"max_tokens":9}"#;
        let request: ChatRequest = serde_json::from_str(both).unwrap();
        assert_eq!(sampling(&request, &defaults).max_new_tokens, MaxNewTokens::Exactly(5));
        let request: ChatRequest = serde_json::from_str(r#"{"messages":[]}"#).unwrap();
        assert_eq!(sampling(&request, &defaults).max_new_tokens, MaxNewTokens::Unlimited);
    }
}
