//! Anthropic's requests as chat requests.

use std::mem;

use protocol::{
    TextOr,
    anthropic::{
        Block, Message, MessagesRequest, OutputConfig, OutputFormat, Role, TextBlock, Thinking,
        Tool, ToolChoice,
    },
    native::CustomParams,
    openai::{
        ChatMessage, ChatRequest, Content, ContentPart, ReasoningEffort, ResponseFormat, call,
    },
};
use serde_json::{Map, Value, json};

use crate::{AppState, error::ApiError, routes::chat_completions::thinking_switch};

/// Anthropic's least reasoning budget.
const MIN_BUDGET_TOKENS: i64 = 1024;

/// # Errors
/// What has no counterpart here, by its name.
pub(super) fn chat_request(
    state: &AppState,
    request: MessagesRequest,
) -> Result<ChatRequest, ApiError> {
    let OutputConfig { effort, format } = request.output_config.unwrap_or_default();
    // Where reasoning is not told from the answer, there is none to cut.
    let thinking_budget = request.thinking.as_ref().and_then(|thinking| thinking.budget_tokens);
    let thinking_budget = thinking_budget.filter(|_| state.reasoning_marks.is_some());
    let tools = request.tools.unwrap_or_default().into_iter().map(tool);
    let mut chat = ChatRequest {
        messages: messages(request.system, request.messages)?,
        model: Some(request.model),
        max_tokens: request.max_tokens,
        stop: request.stop_sequences,
        stream: request.stream,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        // What the templates call `max`.
        reasoning_effort: effort.map(|name| {
            ReasoningEffort::Level(if name == "xhigh" { "max".to_owned() } else { name })
        }),
        chat_template_kwargs: request.thinking.map(thinking).transpose()?,
        custom_params: Some(CustomParams { thinking_budget }),
        response_format: format
            .map(|OutputFormat::JsonSchema { schema }| ResponseFormat::of_schema(schema)),
        tools: Some(tools.collect::<Result<_, _>>()?),
        ..ChatRequest::default()
    };
    if let Some(choice) = request.tool_choice {
        chat.parallel_tool_calls = choice.disable_parallel_tool_use.map(|one| !one);
        chat.tool_choice = Some(tool_choice(choice)?);
    }
    chat.continue_final_message = Some(is_begun_answer(&chat.messages));
    Ok(chat)
}

/// Words in the model's mouth: the answer goes on where they end.
fn is_begun_answer(messages: &[ChatMessage]) -> bool {
    messages.last().is_some_and(|last| {
        let has_text = matches!(&last.content, Some(Content::Text(text)) if !text.is_empty());
        last.role == "assistant" && last.tool_calls.is_none() && has_text
    })
}

fn thinking(thinking: Thinking) -> Result<Map<String, Value>, ApiError> {
    let is_on = match thinking.kind.as_str() {
        "enabled" | "adaptive" => true,
        "disabled" => false,
        other => {
            let known = "enabled, adaptive or disabled";
            return Err(ApiError::value(format!("thinking.type must be {known}, not {other:?}.")));
        }
    };
    if thinking.kind != "enabled" && thinking.budget_tokens.is_some() {
        let message = "thinking.budget_tokens is only allowed when thinking.type is enabled.";
        return Err(ApiError::value(message));
    }
    if thinking.budget_tokens.is_some_and(|budget| budget < MIN_BUDGET_TOKENS) {
        let message = format!("thinking.budget_tokens must be at least {MIN_BUDGET_TOKENS}.");
        return Err(ApiError::value(message));
    }
    match thinking.display.as_deref() {
        None | Some("summarized" | "omitted") => {}
        Some(other) => {
            let message = format!("thinking.display must be summarized or omitted, not {other:?}.");
            return Err(ApiError::value(message));
        }
    }
    Ok(thinking_switch(is_on))
}

fn tool(tool: Tool) -> Result<Value, ApiError> {
    if let Some(kind) = tool.kind.filter(|kind| kind != "custom") {
        let message = format!("tools of type `{kind}` are not supported by this server");
        return Err(ApiError::value(message));
    }
    let Some(parameters) = tool.input_schema else {
        return Err(ApiError::schema(format!("The tool {:?} has no input_schema.", tool.name)));
    };
    let mut function = json!({"name": tool.name, "description": tool.description.unwrap_or_default(),
                              "parameters": parameters});
    if tool.strict == Some(true) {
        function["strict"] = true.into();
    }
    Ok(json!({"type": "function", "function": function}))
}

fn tool_choice(choice: ToolChoice) -> Result<Value, ApiError> {
    match (choice.kind.as_str(), choice.name) {
        ("auto", _) => Ok("auto".into()),
        ("none", _) => Ok("none".into()),
        ("any", _) => Ok("required".into()),
        ("tool", Some(name)) => Ok(json!({"type": "function", "function": {"name": name}})),
        ("tool", None) => Err(ApiError::value("tool_choice of type tool needs a name.")),
        (other, _) => {
            let known = "auto, any, tool or none";
            Err(ApiError::value(format!("tool_choice.type must be {known}, not {other:?}.")))
        }
    }
}

/// All instructions go into one message at the start: many templates allow no other.
fn messages(
    system: Option<TextOr<TextBlock>>,
    messages: Vec<Message>,
) -> Result<Vec<ChatMessage>, ApiError> {
    let mut instructions: Vec<String> = system.map(texts).unwrap_or_default();
    let mut turns = Vec::new();
    for message in messages {
        match message.role {
            Role::System => instructions.extend(system_texts(message.content)?),
            Role::User => push_user(message.content, &mut turns)?,
            Role::Assistant => turns.push(assistant(message.content)?),
        }
    }
    instructions.retain(|text| !text.trim().is_empty());
    let has_instructions = !instructions.is_empty();
    let system = has_instructions.then(|| ChatMessage::new("system", instructions.join("\n")));
    Ok(system.into_iter().chain(turns).collect())
}

fn texts(content: TextOr<TextBlock>) -> Vec<String> {
    match content {
        TextOr::Text(text) => vec![text],
        TextOr::Parts(blocks) => blocks.into_iter().map(|TextBlock::Text { text }| text).collect(),
    }
}

fn system_texts(content: TextOr<Block>) -> Result<Vec<String>, ApiError> {
    let text = |block| match block {
        Block::Text { text } => Ok(text),
        other => Err(misplaced(&other, "system")),
    };
    match content {
        TextOr::Text(text) => Ok(vec![text]),
        TextOr::Parts(blocks) => blocks.into_iter().map(text).collect(),
    }
}

fn misplaced(block: &Block, role: &str) -> ApiError {
    let kind = match block {
        Block::Text { .. } => "text",
        Block::Thinking { .. } => "thinking",
        Block::ToolUse { .. } => "tool_use",
        Block::ToolResult { .. } => "tool_result",
    };
    ApiError::value(format!("A `{kind}` block cannot be in a message of the {role}."))
}

/// One text as it is, several as parts.
fn content(mut texts: Vec<String>) -> Option<Content> {
    match texts.len() {
        0 => None,
        1 => texts.pop().map(Content::Text),
        _ => Some(Content::Parts(texts.into_iter().map(ContentPart::text).collect())),
    }
}

/// Results of tools are messages of their own, in the order of the blocks.
fn push_user(user: TextOr<Block>, turns: &mut Vec<ChatMessage>) -> Result<(), ApiError> {
    let blocks = match user {
        TextOr::Text(text) => vec![Block::Text { text }],
        TextOr::Parts(blocks) => blocks,
    };
    let mut said = Vec::new();
    let flush = |said: &mut Vec<String>, turns: &mut Vec<ChatMessage>| {
        let content = content(mem::take(said));
        turns.extend(content.map(|content| ChatMessage::new("user", content)));
    };
    for block in blocks {
        match block {
            Block::Text { text } => said.push(text),
            Block::ToolResult { tool_use_id, content: result } => {
                flush(&mut said, turns);
                let text = result.map(texts).unwrap_or_default();
                let content = content(text).unwrap_or_else(|| Content::Text(String::new()));
                let tool_call_id = Some(tool_use_id);
                turns.push(ChatMessage { tool_call_id, ..ChatMessage::new("tool", content) });
            }
            other => return Err(misplaced(&other, "user")),
        }
    }
    flush(&mut said, turns);
    Ok(())
}

fn assistant(answer: TextOr<Block>) -> Result<ChatMessage, ApiError> {
    let blocks = match answer {
        TextOr::Text(text) => return Ok(ChatMessage::new("assistant", text)),
        TextOr::Parts(blocks) => blocks,
    };
    let (mut said, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for block in blocks {
        match block {
            Block::Text { text } => said.push(text),
            Block::Thinking { thinking } => thoughts.push(thinking),
            Block::ToolUse { id, name, input } => {
                calls.push(call(Some(&id), &name, &Value::Object(input).to_string()));
            }
            other @ Block::ToolResult { .. } => return Err(misplaced(&other, "assistant")),
        }
    }
    let nothing = calls.is_empty().then(|| Content::Text(String::new()));
    let content = content(said).or(nothing);
    let answer = ChatMessage { role: "assistant".to_owned(), content, ..ChatMessage::default() };
    Ok(answer.with_reasoning(thoughts.join("\n")).with_calls(calls))
}
