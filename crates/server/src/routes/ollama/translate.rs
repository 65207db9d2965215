//! Ollama's requests as chat requests.

use protocol::{
    ollama::{ChatRequest, Format, GenerateRequest, Message, Options, Think, ToolCall},
    openai::{self, ChatMessage, ResponseFormat, call},
};
use serde_json::Value;

use crate::{
    AppState, error::ApiError, generation::tokenize_texts,
    routes::chat_completions::thinking_switch,
};

/// # Errors
/// What has no counterpart here, by its name.
pub(super) fn chat(
    state: &AppState,
    request: ChatRequest,
) -> Result<openai::ChatRequest, ApiError> {
    let mut chat = sampled(state, request.options.unwrap_or_default())?;
    chat.messages = request.messages.into_iter().map(message).collect();
    chat.tools = request.tools;
    chat.response_format = response_format(request.format)?;
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
        let system = system.map(|text| ChatMessage::new("system", text));
        let prompt = ChatMessage::new("user", request.prompt);
        chat.messages = system.into_iter().chain([prompt]).collect();
    }
    chat.stream = request.stream;
    chat.response_format = response_format(request.format)?;
    // A raw prompt begins no reasoning that a grammar had to wait for.
    set_thinking(&mut chat, request.think.or(is_raw.then_some(Think::Switch(false))));
    Ok(chat)
}

fn response_format(format: Option<Format>) -> Result<Option<ResponseFormat>, ApiError> {
    match format {
        None => Ok(None),
        Some(Format::Schema(schema)) => Ok(Some(ResponseFormat::of_schema(schema))),
        Some(Format::Name(name)) => match name.as_str() {
            "" => Ok(None),
            "json" => Ok(Some(ResponseFormat::JsonObject)),
            other => {
                let message = format!("format must be json or a JSON schema, not {other:?}.");
                Err(ApiError::value(message))
            }
        },
    }
}

fn message(message: Message) -> ChatMessage {
    let calls = message.tool_calls.unwrap_or_default().into_iter().map(|ToolCall { function }| {
        call(None, &function.name, &Value::Object(function.arguments).to_string())
    });
    let name = message.tool_name;
    ChatMessage { name, ..ChatMessage::new(&message.role, message.content) }
        .with_reasoning(message.thinking.unwrap_or_default())
        .with_calls(calls.collect())
}

fn set_thinking(chat: &mut openai::ChatRequest, think: Option<Think>) {
    let is_on = match think {
        None => return,
        Some(Think::Switch(is_on)) => is_on,
        Some(Think::Level(level)) => {
            chat.reasoning_effort = Some(openai::ReasoningEffort::Level(level));
            true
        }
    };
    chat.chat_template_kwargs = Some(thinking_switch(is_on));
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
