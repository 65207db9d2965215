//! `/v1/chat/completions`.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_chat.py`.

use std::time::Instant;

use axum::{
    extract::{Request, State},
    response::Response,
};
use constrained::GrammarSpec;
use protocol::{
    PromptIds,
    native::{MaxNewTokens, SamplingJson},
    openai::{CHAT_TABLE, ChatRequest},
};
use serde_json::{Map, Value, json};
use types::TokenId;

use super::{generate::check_ids, usage::UsagePolicy};
use crate::{
    AppState, SamplingDefaults,
    answer::{AnswerFormat, ReasoningFormat},
    body::{read_json, require_json_content_type},
    error::ApiError,
    generation::{
        ChatPrompt, Constraint, GenerationPlan, LogprobSpec, Prompts, SamplingSpec, SequenceFlags,
        SequenceSet, response_grammar, tokenize_chat,
    },
    sse,
    state::unix_seconds,
};

mod extras;
mod format;
mod reasoning;
mod tool_choice;
mod turns;
mod words;

use extras::Extras;
pub(super) use reasoning::settle_reasoning;
use tool_choice::ToolChoice;
use turns::settle_turns;
use words::Words;

pub(crate) async fn chat_completions(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    require_json_content_type(request.headers())?;
    let headers = request.headers().clone();
    let mut request: ChatRequest = read_json(&state, request, &CHAT_TABLE).await?;
    let is_streaming = request.stream.unwrap_or(false);
    let extras = Extras::new(&request, &headers)?;
    settle_reasoning(&mut request, state.reasoning_marks.is_some());
    let run = start(&state, &mut request, arrived).await?;
    let words = Words {
        usage: run.usage,
        model: request.model.unwrap_or_else(|| "default".to_owned()),
        created: unix_seconds() as u64,
        format: run.format,
        extras,
        streams: Vec::new(),
    };
    if is_streaming {
        return Ok(sse::respond(run.set, words));
    }
    let sequences = run.set.collect().await?;
    Ok(words.response(&state, &sequences))
}

/// A chat request under way, in whatever dialect it came.
pub(crate) struct ChatRun {
    pub(crate) set: SequenceSet,
    /// How answers are taken apart.
    pub(crate) format: AnswerFormat,
    pub(crate) usage: UsagePolicy,
}

/// Checks the request, renders its prompt and hands it to the engine.
/// Dialects that are not OpenAI's translate theirs and come here too.
///
/// # Errors
/// Whatever is wrong with the request, a full queue, a server that stops.
pub(crate) async fn start(
    state: &AppState,
    request: &mut ChatRequest,
    arrived: Instant,
) -> Result<ChatRun, ApiError> {
    let is_streaming = request.stream.unwrap_or(false);
    settle_turns(&mut request.messages)?;
    let (tools, choice) = tool_choice::take_tools(request)?;
    let mut format = format::answer_format(state, request, (&tools, &choice))?;
    let mut spec = SamplingSpec::new(
        sampling(request, &state.config.sampling_defaults)?,
        state.engine.model().vocab_size,
        state.config.stream_interval,
    )?;
    if let Some(template) = state.chat_template.as_ref().filter(|_| request.input_ids.is_none())
        && !spec.params.ignore_eos
    {
        spec.text.stop.extend_from_slice(template.stop_strings());
    }
    spec.logprobs = match (request.logprobs.unwrap_or(false), request.top_logprobs.unwrap_or(0)) {
        // Their text is for `return_meta_info`.
        (true, num_top) => Some(LogprobSpec::of_output(num_top, "top_logprobs")?.with_text(true)),
        (false, 0) => None,
        (false, _) => return Err(ApiError::value("top_logprobs needs logprobs to be true.")),
    };
    if let Some(calls) = calls_grammar(state, request, &tools, &choice)? {
        if spec.grammar.is_some() {
            return Err(ApiError::value("Calls and another grammar cannot be asked for at once."));
        }
        spec.grammar = Some(Constraint::new(calls));
    }
    spec.priority = request.priority;
    let n = spec.n;
    let ids = prompt(state, request, tools, true).await?;
    format::look_at_prompt(state, &ids, &mut format);
    if let Some(grammar) = &mut spec.grammar
        && format::begins_with_reasoning(&format)
    {
        grammar.after.clone_from(&state.answer_begin);
    }
    spec.begins_inside = format.reasoning.as_ref().map(ReasoningFormat::begins_inside);
    let separates = request.separate_reasoning.unwrap_or(true);
    format.reasoning = format.reasoning.filter(|_| separates);
    let plan = GenerationPlan {
        prompts: Prompts::Ids(vec![ids]),
        specs: vec![spec],
        rid: request.rid.take(),
        flags: SequenceFlags { arrived, is_streaming, log_metrics: true },
        session: request.session_params.take(),
    };
    let set = plan.start(state).await?;
    let counts_reasoning = format::begins_with_reasoning(&format);
    let usage = UsagePolicy::new(state, request.stream_options.as_ref(), n)
        .with_reasoning(state, counts_reasoning);
    Ok(ChatRun { set, format, usage })
}

/// Variables that turn reasoning on or off: templates know their switch by one of two names.
pub(crate) fn thinking_switch(is_on: bool) -> Map<String, Value> {
    ["enable_thinking", "thinking"]
        .map(|name| (name.to_owned(), is_on.into()))
        .into_iter()
        .collect()
}

/// The prompt of a request, with or without the beginning of an answer.
///
/// # Errors
/// What is wrong with messages, tools or template.
pub(crate) async fn prompt_ids(
    state: &AppState,
    mut request: ChatRequest,
    add_generation_prompt: bool,
) -> Result<Vec<TokenId>, ApiError> {
    settle_turns(&mut request.messages)?;
    let (tools, _) = tool_choice::take_tools(&mut request)?;
    prompt(state, &mut request, tools, add_generation_prompt).await
}

fn calls_grammar(
    state: &AppState,
    request: &ChatRequest,
    tools: &[Value],
    choice: &ToolChoice,
) -> Result<Option<GrammarSpec>, ApiError> {
    let is_parallel = request.parallel_tool_calls.unwrap_or(true);
    tool_choice::grammar(tools, choice, is_parallel, state.config.parsers.tool_call)
}

async fn prompt(
    state: &AppState,
    request: &mut ChatRequest,
    tools: Vec<Value>,
    add_generation_prompt: bool,
) -> Result<Vec<TokenId>, ApiError> {
    let messages = std::mem::take(&mut request.messages);
    if let Some(ids) = request.input_ids.take() {
        return Ok(check_ids(state, PromptIds::One(ids))?.into_vec().swap_remove(0));
    }
    let mut kwargs = request.chat_template_kwargs.take().unwrap_or_default();
    if let Some(effort) = &request.reasoning_effort {
        kwargs.entry("reasoning_effort").or_insert_with(|| json!(effort));
    }
    let prompt = ChatPrompt {
        messages,
        tools,
        add_generation_prompt,
        continue_final_message: request.continue_final_message.unwrap_or(false),
        kwargs: Some(kwargs),
    };
    tokenize_chat(state, prompt).await
}

fn sampling(request: &ChatRequest, defaults: &SamplingDefaults) -> Result<SamplingJson, ApiError> {
    let grammar = response_grammar(request.response_format.as_ref())?;
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    Ok(SamplingJson {
        max_new_tokens: max_tokens.map_or(MaxNewTokens::Unlimited, MaxNewTokens::Exactly),
        min_new_tokens: request.min_tokens,
        stop: request.stop.clone(),
        stop_regex: request.stop_regex.clone(),
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
        json_schema: grammar.json_schema,
        regex: request.regex.clone(),
        ebnf: request.ebnf.clone(),
        structural_tag: grammar.structural_tag,
        custom_params: request.custom_params,
    })
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
        let params = sampling(&request, &defaults).unwrap();
        assert_eq!(params.temperature, Some(0.0));
        assert_eq!((params.top_p, params.top_k, params.min_p), (Some(0.9), Some(20), None));
        assert_eq!(params.repetition_penalty, Some(1.1));
        assert_eq!(params.max_new_tokens, MaxNewTokens::Exactly(9));
        let both = r#"{"messages":[],"max_completion_tokens":5,"max_tokens":9}"#;
        let request: ChatRequest = serde_json::from_str(both).unwrap();
        assert_eq!(sampling(&request, &defaults).unwrap().max_new_tokens, MaxNewTokens::Exactly(5));
        let request: ChatRequest = serde_json::from_str(r#"{"messages":[]}"#).unwrap();
        assert_eq!(sampling(&request, &defaults).unwrap().max_new_tokens, MaxNewTokens::Unlimited);
    }
}
