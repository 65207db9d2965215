//! What a chat request says about the form of its answers.

use std::sync::Arc;

use parsers::{reasoning::Begins, tool_call::Tools};
use protocol::openai::{ChatMessage, ChatRequest, Content};
use serde_json::{Map, Value};
use types::TokenId;

use crate::{
    AppState,
    answer::{AnswerFormat, CallFormat, ReasoningFormat},
    error::ApiError,
};

/// The tools that the model is told of: none with `tool_choice` `none`.
///
/// # Errors
/// A tool that is no function, and what needs constrained decoding.
pub(super) fn take_tools(request: &mut ChatRequest) -> Result<Vec<Value>, ApiError> {
    let tools = request.tools.take().unwrap_or_default();
    match &request.tool_choice {
        None | Some(Value::Null) => {}
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => {}
            "none" => return Ok(Vec::new()),
            "required" => return Err(constrained("tool_choice `required`")),
            other => {
                let message = format!("tool_choice must be auto, none or required, not {other:?}.");
                return Err(ApiError::value(message));
            }
        },
        Some(_) => return Err(constrained("tool_choice with the name of a function")),
    }
    let is_strict = |tool: &Value| tool["function"]["strict"] == Value::Bool(true);
    match tools.iter().position(is_strict) {
        Some(index) => Err(constrained(&format!("tools[{index}].function.strict"))),
        None => Ok(tools),
    }
}

fn constrained(what: &str) -> ApiError {
    ApiError::value(format!(
        "{what} needs constrained decoding, which is not supported by this server."
    ))
}

/// How answers are taken apart. May ask for special tokens to stay in the text:
/// the parsers look for some of them.
pub(super) fn answer_format(
    state: &AppState,
    request: &mut ChatRequest,
    tools: &[Value],
) -> Result<AnswerFormat, ApiError> {
    let parsers = state.config.parsers;
    let offered = Tools::new(tools).map_err(|error| ApiError::value(error.to_string()))?;
    let reasoning = parsers.reasoning.map(|entry| ReasoningFormat {
        entry,
        begins: Begins::IfAsked(
            parsers
                .toggle
                .unwrap_or(entry.toggle)
                .is_on(&template_kwargs(state, request), request.reasoning_effort.as_deref()),
        ),
        streams: request.stream_reasoning.unwrap_or(true),
        continued: continued(request),
    });
    if !tools.is_empty() || parsers.reasoning.is_some_and(|entry| entry.needs_special_tokens) {
        request.skip_special_tokens = Some(false);
    }
    let calls = parsers.tool_call.filter(|_| !tools.is_empty()).map(|entry| CallFormat {
        entry,
        tools: Arc::new(offered),
        is_parallel: request.parallel_tool_calls.unwrap_or(true),
        num_earlier: num_calls(&request.messages),
    });
    let separates = request.separate_reasoning.unwrap_or(true);
    Ok(AnswerFormat { reasoning: reasoning.filter(|_| separates), calls })
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
