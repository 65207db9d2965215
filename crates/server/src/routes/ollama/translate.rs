//! Ollama's requests as chat requests.

use protocol::{
    ollama::{ChatRequest, GenerateRequest, Message, Options, Think},
    openai::{self, ChatMessage, Content},
};
use serde_json::{Map, Value, json};

use crate::{AppState, error::ApiError, generation::tokenize_texts};

/// # Errors
/// What has no counterpart here, by its name.
pub(super) fn chat(
    state: &AppState,
    request: ChatRequest,
) -> Result<openai::ChatRequest, ApiError> {
    let mut chat = sampled(state, request.options.unwrap_or_default())?;
    chat.messages = request.messages.into_iter().map(message).collect();
    chat.tools = request.tools;
    chat.stream = request.stream;
    set_thinking(&mut chat, request.think);
    Ok(chat)
}

/// The prompt becomes a conversation, unless it is raw or there is no template for one.
///
/// # Errors
/// What has no counterpart here, by its name.
pub(super) async fn generate(
    state: &AppState,
    request: GenerateRequest,
) -> Result<openai::ChatRequest, ApiError> {
    let mut chat = sampled(state, request.options.unwrap_or_default())?;
    let system = request.system.filter(|text| !text.is_empty());
    let is_raw = request.raw.unwrap_or(false);
    if is_raw || state.chat_template.is_none() {
        let text = match system {
            Some(system) => format!("{system}\n\n{}", request.prompt),
            None => request.prompt,
        };
        let ids = tokenize_texts(state, vec![text], true).await?.swap_remove(0);
        chat.input_ids = Some(ids.into_iter().map(i64::from).collect());
        chat.separate_reasoning = Some(false);
    } else {
        let system = system.map(|text| text_message("system", text));
        let prompt = text_message("user", request.prompt);
        chat.messages = system.into_iter().chain([prompt]).collect();
    }
    chat.stream = request.stream;
    set_thinking(&mut chat, request.think);
    Ok(chat)
}

fn text_message(role: &str, text: String) -> ChatMessage {
    let content = Some(Content::Text(text));
    ChatMessage { role: role.to_owned(), content, ..ChatMessage::default() }
}

fn message(message: Message) -> ChatMessage {
    let calls = message.tool_calls.unwrap_or_default();
    let call = |call: protocol::ollama::ToolCall| {
        let arguments = Value::Object(call.function.arguments).to_string();
        json!({"type": "function", "function": {"name": call.function.name, "arguments": arguments}})
    };
    let calls: Vec<Value> = calls.into_iter().map(call).collect();
    ChatMessage {
        name: message.tool_name,
        reasoning_content: message.thinking.filter(|text| !text.is_empty()),
        tool_calls: Some(calls).filter(|calls| !calls.is_empty()),
        ..text_message(&message.role, message.content)
    }
}

/// Templates know their switch by one of two names.
fn set_thinking(chat: &mut openai::ChatRequest, think: Option<Think>) {
    let is_on = match think {
        None => return,
        Some(Think::Switch(is_on)) => is_on,
        Some(Think::Level(level)) => {
            chat.reasoning_effort = Some(level);
            true
        }
    };
    let switch = ["enable_thinking", "thinking"].map(|name| (name.to_owned(), is_on.into()));
    chat.chat_template_kwargs = Some(Map::from_iter(switch));
}

fn sampled(state: &AppState, options: Options) -> Result<openai::ChatRequest, ApiError> {
    let context_length = state.engine.model().context_length;
    if let Some(wanted) = options.num_ctx
        && usize::try_from(wanted).is_ok_and(|wanted| wanted > context_length)
    {
        let message = format!(
            "options.num_ctx: the context has {context_length} tokens, {wanted} are more than that."
        );
        return Err(ApiError::value(message));
    }
    Ok(openai::ChatRequest {
        max_tokens: options.num_predict.filter(|&max| max >= 0),
        temperature: options.temperature,
        // 0 is Ollama's word for "all of them".
        top_k: options.top_k.map(|k| if k == 0 { -1 } else { k }),
        top_p: options.top_p,
        min_p: options.min_p,
        // -1 is Ollama's word for "any".
        seed: options.seed.filter(|&seed| seed != -1),
        stop: options.stop,
        repetition_penalty: options.repeat_penalty,
        presence_penalty: options.presence_penalty,
        frequency_penalty: options.frequency_penalty,
        ..openai::ChatRequest::default()
    })
}
