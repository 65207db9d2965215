//! What a chat request says about the form of its answers.

use std::sync::Arc;

use parsers::{
    reasoning::Begins,
    tool_call::{JSON_ARRAY, Tools},
};
use protocol::openai::{ChatMessage, ChatRequest, Content};
use serde_json::{Map, Value};
use types::TokenId;

use super::{reasoning::has_effort, tool_choice::ToolChoice};
use crate::{
    AppState,
    answer::{AnswerFormat, CallFormat, ReasoningFormat},
    error::ApiError,
};

/// How answers are taken apart. May ask for special tokens to stay in the text:
/// the parsers look for some of them.
pub(super) fn answer_format(
    state: &AppState,
    request: &mut ChatRequest,
    (tools, choice): (&[Value], &ToolChoice),
) -> Result<AnswerFormat, ApiError> {
    let parsers = state.config.parsers;
    let offered = Tools::new(tools).map_err(|error| ApiError::value(error.to_string()))?;
    let reasoning = parsers.reasoning.map(|entry| ReasoningFormat {
        entry,
        begins: Begins::IfAsked(
            parsers
                .toggle
                .unwrap_or(entry.toggle)
                .is_on(&template_kwargs(state, request), has_effort(state, request)),
        ),
        streams: request.stream_reasoning.unwrap_or(true),
        continued: continued(request),
    });
    if !tools.is_empty() || parsers.reasoning.is_some_and(|entry| entry.needs_special_tokens) {
        request.skip_special_tokens = Some(false);
    }
    let entry = match choice {
        ToolChoice::Auto => parsers.tool_call,
        ToolChoice::Required | ToolChoice::Named => Some(&JSON_ARRAY),
    };
    let calls = entry.filter(|_| !tools.is_empty()).map(|entry| CallFormat {
        entry,
        tools: Arc::new(offered),
        is_parallel: request.parallel_tool_calls.unwrap_or(true),
        num_earlier: num_calls(&request.messages),
    });
    Ok(AnswerFormat { reasoning, calls })
}

/// Whether an answer of this format begins with reasoning, as far as one can know.
pub(super) fn begins_with_reasoning(format: &AnswerFormat) -> bool {
    let begins = format.reasoning.as_ref().map(|reasoning| reasoning.begins);
    matches!(begins, Some(Begins::IfAsked(true) | Begins::Known(true)))
}

/// Where the parser is a guess, the prompt tells whether the answer begins in
/// the middle of reasoning.
pub(super) fn look_at_prompt(state: &AppState, ids: &[TokenId], format: &mut AnswerFormat) {
    /// Tokens that hold any opening tag and white space after it.
    const TAIL: usize = 16;
    if let Some(reasoning) = format.reasoning.as_mut().filter(|_| state.config.parsers.is_guess) {
        let tail = state.tokenizer.decode(&ids[ids.len().saturating_sub(TAIL)..], false);
        reasoning.begins = Begins::Known(tail.trim_end().ends_with(reasoning.entry.begin));
    }
}

/// The request's variables over the server's.
fn template_kwargs(state: &AppState, request: &ChatRequest) -> Map<String, Value> {
    let mut kwargs = state.config.chat_template_kwargs.clone();
    kwargs.extend(request.chat_template_kwargs.clone().unwrap_or_default());
    kwargs
}

/// Text of the message that the answer continues.
fn continued(request: &ChatRequest) -> String {
    let last = request.messages.last().filter(|message| message.role == "assistant");
    match last.and_then(|message| message.content.as_ref()) {
        Some(Content::Text(text)) if request.continue_final_message == Some(true) => text.clone(),
        _ => String::new(),
    }
}

fn num_calls(messages: &[ChatMessage]) -> usize {
    let assistant = messages.iter().filter(|message| message.role == "assistant");
    assistant.filter_map(|message| message.tool_calls.as_ref()).map(Vec::len).sum()
}
