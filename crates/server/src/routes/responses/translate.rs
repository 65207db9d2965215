//! Requests of `/v1/responses` as chat requests.

use protocol::{
    OneOrMany, TextOr,
    native::CustomParams,
    openai::{self, ChatMessage, ChatRequest, Content, ReasoningEffort, ResponseFormat},
    responses::{
        ENCRYPTED_REASONING, InputItem, InputPart, LOGPROBS, Reasoning, ResponsesRequest,
        TextFormat,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::reasoning::sent_back;
use crate::{error::ApiError, routes::chat_completions::thinking_switch};

/// The chat request for a conversation, under the name `id`.
///
/// # Errors
/// What has no counterpart here, by its name.
pub(super) fn chat_request(
    request: &ResponsesRequest,
    messages: &[ChatMessage],
    id: &str,
) -> Result<ChatRequest, ApiError> {
    let tools = request.tools.as_deref().unwrap_or_default().iter().map(tool);
    let Reasoning { effort, max_tokens, .. } = request.reasoning.clone().unwrap_or_default();
    let wants_logprobs = wants_logprobs(request)?;
    Ok(ChatRequest {
        messages: with_instructions(request.instructions.as_deref(), messages),
        max_tokens: request.max_output_tokens,
        stream: request.stream,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        frequency_penalty: request.frequency_penalty,
        presence_penalty: request.presence_penalty,
        repetition_penalty: request.repetition_penalty,
        stop: request.stop.clone(),
        logprobs: Some(wants_logprobs),
        top_logprobs: request.top_logprobs,
        response_format: response_format(request)?,
        tools: Some(tools.collect::<Result<_, _>>()?),
        tool_choice: request.tool_choice.clone().map(tool_choice).transpose()?,
        parallel_tool_calls: request.parallel_tool_calls,
        chat_template_kwargs: kwargs(request, effort.as_deref()),
        reasoning_effort: effort.map(level).transpose()?,
        custom_params: Some(CustomParams { thinking_budget: max_tokens }),
        rid: Some(OneOrMany::One(id.to_owned())),
        priority: request.priority,
        ..ChatRequest::default()
    })
}

/// # Errors
/// There is no such level.
fn level(name: String) -> Result<ReasoningEffort, ApiError> {
    serde_json::from_value(Value::String(name))
        .map_err(|error| ApiError::value(format!("reasoning.effort: {error}")))
}

/// # Errors
/// A format that is none.
fn response_format(request: &ResponsesRequest) -> Result<Option<ResponseFormat>, ApiError> {
    let format = request.text.as_ref().and_then(|text| text.get("format"));
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    let format = TextFormat::deserialize(format)
        .map_err(|error| ApiError::schema(format!("text.format: {error}")))?;
    Ok(Some(match format {
        TextFormat::Text => ResponseFormat::Text,
        TextFormat::JsonObject => ResponseFormat::JsonObject,
        TextFormat::JsonSchema(schema) => {
            ResponseFormat::JsonSchema { json_schema: Some(schema), schema: None }
        }
    }))
}

fn kwargs(request: &ResponsesRequest, effort: Option<&str>) -> Option<Map<String, Value>> {
    let mut kwargs = request.chat_template_kwargs.clone().unwrap_or_default();
    if effort == Some("none") {
        for (name, is_on) in thinking_switch(false) {
            kwargs.entry(name).or_insert(is_on);
        }
    }
    (!kwargs.is_empty()).then_some(kwargs)
}

fn wants_logprobs(request: &ResponsesRequest) -> Result<bool, ApiError> {
    let include = request.include.as_deref().unwrap_or_default();
    let known = [LOGPROBS, ENCRYPTED_REASONING];
    if let Some(other) = include.iter().find(|name| !known.contains(&name.as_str())) {
        let message = format!("`include` of {other:?} is not supported by this server");
        return Err(ApiError::value(message));
    }
    let wants_logprobs = include.iter().any(|name| name == LOGPROBS);
    if !wants_logprobs && request.top_logprobs.is_some_and(|num_top| num_top != 0) {
        return Err(ApiError::value(format!("top_logprobs needs {LOGPROBS:?} in `include`.")));
    }
    Ok(wants_logprobs)
}

fn tool(tool: &Value) -> Result<Value, ApiError> {
    let kind = tool["type"].as_str().unwrap_or_default();
    if kind != "function" {
        let message = format!("tools of type `{kind}` are not supported by this server");
        return Err(ApiError::value(message));
    }
    let keys = ["name", "description", "parameters", "strict"];
    let set = keys.into_iter().filter(|key| !tool[key].is_null() && tool[key] != false);
    let function: Map<String, Value> = set.map(|key| (key.to_owned(), tool[key].clone())).collect();
    Ok(json!({"type": "function", "function": function}))
}

fn tool_choice(choice: Value) -> Result<Value, ApiError> {
    let Value::Object(choice) = choice else { return Ok(choice) };
    match (choice.get("type").and_then(Value::as_str), choice.get("name")) {
        (Some("function"), Some(name)) => {
            Ok(json!({"type": "function", "function": {"name": name}}))
        }
        (kind, _) => {
            let kind = kind.unwrap_or_default();
            let message = format!("tool_choice of type `{kind}` is not supported by this server");
            Err(ApiError::value(message))
        }
    }
}

/// Instructions and what stands at the start of the conversation are one message:
/// many templates allow no other.
fn with_instructions(instructions: Option<&str>, messages: &[ChatMessage]) -> Vec<ChatMessage> {
    let mut texts: Vec<&str> = instructions.into_iter().filter(|text| !text.is_empty()).collect();
    let leading = messages.iter().take_while(|message| message.role == "system");
    let num_leading = leading.clone().count();
    texts.extend(leading.filter_map(|message| match &message.content {
        Some(Content::Text(text)) => Some(text.as_str()),
        _ => None,
    }));
    let system = (!texts.is_empty()).then(|| ChatMessage::new("system", texts.join("\n")));
    system.into_iter().chain(messages[num_leading..].iter().cloned()).collect()
}

/// Items as messages. Reasoning, text and calls in a row are one answer.
///
/// # Errors
/// An item or a part that is not supported, by its type.
pub(super) fn messages(input: &TextOr<InputItem>) -> Result<Vec<ChatMessage>, ApiError> {
    let items = match input {
        TextOr::Text(text) => return Ok(vec![ChatMessage::new("user", text.clone())]),
        TextOr::Parts(items) => items,
    };
    let mut messages = Vec::new();
    for item in items {
        match (item.kind.as_deref(), item.role.as_deref()) {
            (None | Some("message"), Some("assistant")) => {
                let text = text_of(item.content.as_ref(), "content")?;
                add_text(answer_of(&mut messages), &text);
            }
            (None | Some("message"), Some(role)) => {
                // Templates know no developers.
                let role = if role == "developer" { "system" } else { role };
                let text = text_of(item.content.as_ref(), "content")?;
                messages.push(ChatMessage::new(role, text));
            }
            (Some("reasoning"), _) => {
                if let Some(text) = sent_back(item)? {
                    let answer = answer_of(&mut messages);
                    answer.reasoning_content.get_or_insert_default().push_str(&text);
                }
            }
            (Some("function_call"), _) => {
                let call = call(item)?;
                answer_of(&mut messages).tool_calls.get_or_insert_default().push(call);
            }
            (Some("function_call_output"), _) => {
                let Some(id) = item.call_id.clone() else { return Err(missing("call_id")) };
                let text = text_of(item.output.as_ref(), "output")?;
                let message = ChatMessage::new("tool", text);
                messages.push(ChatMessage { tool_call_id: Some(id), ..message });
            }
            (None | Some("message"), None) => return Err(missing("role")),
            (Some(kind), _) => {
                let message =
                    format!("`input` items of type `{kind}` are not supported by this server");
                return Err(ApiError::value(message));
            }
        }
    }
    Ok(messages)
}

fn missing(field: &str) -> ApiError {
    ApiError::schema(format!("An item of `input` has no `{field}`."))
}

fn call<'a>(item: &'a InputItem) -> Result<Value, ApiError> {
    let field = |value: &'a Option<String>, name| value.as_deref().ok_or_else(|| missing(name));
    let name = field(&item.name, "name")?;
    let arguments = field(&item.arguments, "arguments")?;
    Ok(openai::call(Some(field(&item.call_id, "call_id")?), name, arguments))
}

/// The answer that the last items belong to, or a new one.
fn answer_of(messages: &mut Vec<ChatMessage>) -> &mut ChatMessage {
    let goes_on = messages.last().is_some_and(|last| last.role == "assistant");
    if !goes_on {
        messages.push(ChatMessage::new("assistant", String::new()));
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

fn add_text(message: &mut ChatMessage, more: &str) {
    if let Some(Content::Text(text)) = &mut message.content {
        text.push_str(more);
    }
}

/// All text of a content.
pub(super) fn text_of(
    content: Option<&TextOr<InputPart>>,
    field: &str,
) -> Result<String, ApiError> {
    match content {
        None => Ok(String::new()),
        Some(TextOr::Text(text)) => Ok(text.clone()),
        Some(TextOr::Parts(parts)) => text_of_parts(parts, field),
    }
}

pub(super) fn text_of_parts(parts: &[InputPart], field: &str) -> Result<String, ApiError> {
    let text = |part: &InputPart| match (part.kind.as_str(), &part.text, &part.refusal) {
        (
            "input_text" | "output_text" | "text" | "reasoning_text" | "summary_text",
            Some(text),
            _,
        ) => Ok(text.clone()),
        ("refusal", _, Some(refusal)) => Ok(refusal.clone()),
        (kind, ..) => {
            let message =
                format!("a `{field}` part of type `{kind}` is not supported by this server");
            Err(ApiError::value(message))
        }
    };
    parts.iter().map(text).collect()
}
