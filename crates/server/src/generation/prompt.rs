//! Prompts: rendering, tokenizing, and the limits on both.
//!
//! All of it runs on the blocking pool. A text that cannot fit into the
//! context whatever its tokens are is refused before it is tokenized.

use protocol::openai::{ChatMessage, Content};
use serde_json::{Map, Value};
use tokenizer::{ChatTemplate, ChatTemplateError, RenderOptions};
use types::TokenId;

use crate::{AppState, error::ApiError};

/// Prompts of one request, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Prompts {
    Texts(Vec<String>),
    Ids(Vec<Vec<TokenId>>),
}

impl Prompts {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Ids(prompts) => prompts.len(),
        }
    }

    /// Token ids of every prompt.
    ///
    /// # Errors
    /// A text that is empty or cannot fit into the context.
    pub(crate) async fn tokenize(self, state: &AppState) -> Result<Vec<Vec<TokenId>>, ApiError> {
        match self {
            Self::Ids(prompts) => Ok(prompts),
            Self::Texts(texts) if texts.iter().any(String::is_empty) => {
                Err(ApiError::value("The prompt is empty."))
            }
            Self::Texts(texts) => tokenize_texts(state, texts, true).await,
        }
    }
}

/// Encodes texts that may have any length up to the context's.
pub(crate) async fn tokenize_texts(
    state: &AppState,
    texts: Vec<String>,
    add_special_tokens: bool,
) -> Result<Vec<Vec<TokenId>>, ApiError> {
    for text in &texts {
        check_text(state, text)?;
    }
    let tokenizer = state.tokenizer.clone();
    state
        .run_text_job(move || {
            let encode = |text: &String| tokenizer.encode(text, add_special_tokens);
            let ids: Result<_, _> = texts.iter().map(encode).collect();
            ids.map_err(|error| ApiError::value(error.to_string()))
        })
        .await
}

/// What a chat request turns into a prompt.
#[derive(Debug, Clone)]
pub(crate) struct ChatPrompt {
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) tools: Vec<Value>,
    pub(crate) add_generation_prompt: bool,
    pub(crate) continue_final_message: bool,
    pub(crate) kwargs: Option<Map<String, Value>>,
}

/// Renders the chat template and encodes the result.
pub(crate) async fn tokenize_chat(
    state: &AppState,
    prompt: ChatPrompt,
) -> Result<Vec<TokenId>, ApiError> {
    if prompt.messages.is_empty() {
        return Err(ApiError::value("Messages cannot be empty."));
    }
    let Some(template) = state.chat_template.clone() else {
        return Err(ApiError::value(
            "The model has no chat template: start the server with --chat-template, or use \
             /v1/completions.",
        ));
    };
    let kwargs = prompt.kwargs.unwrap_or_default();
    if kwargs.contains_key("chat_template") {
        return Err(ApiError::value("A chat_template in chat_template_kwargs is not allowed."));
    }
    let mut all_kwargs = state.config.chat_template_kwargs.clone();
    all_kwargs.extend(kwargs);
    let options = RenderOptions {
        add_generation_prompt: prompt.add_generation_prompt,
        continue_final_message: prompt.continue_final_message,
        kwargs: all_kwargs,
        tools: prompt.tools,
        ..RenderOptions::default()
    };
    let job_state = state.clone();
    state
        .run_text_job(move || {
            let messages: Result<Vec<Value>, _> =
                prompt.messages.into_iter().map(tool_text).map(serde_json::to_value).collect();
            let messages = messages.map_err(|error| ApiError::value(error.to_string()))?;
            let text = render(&template, &messages, options)
                .map_err(|error| ApiError::value(error.to_string()))?;
            check_text(&job_state, &text)?;
            let ids = job_state.tokenizer.encode(&text, template.adds_special_tokens());
            ids.map_err(|error| ApiError::value(error.to_string()))
        })
        .await
}

/// Templates take the result of a tool as one text.
fn tool_text(mut message: ChatMessage) -> ChatMessage {
    if let ("tool", Some(Content::Parts(parts))) = (message.role.as_str(), &message.content)
        && parts.iter().all(|part| part.kind == "text")
    {
        let texts: Vec<&str> = parts.iter().filter_map(|part| part.text.as_deref()).collect();
        message.content = Some(Content::Text(texts.join(" ")));
    }
    message
}

/// Some templates want functions without the wrapper that says that they are.
fn render(
    template: &ChatTemplate,
    messages: &[Value],
    mut options: RenderOptions,
) -> Result<String, ChatTemplateError> {
    match template.render(messages, &options) {
        Err(_) if !options.tools.is_empty() => {
            for tool in &mut options.tools {
                if let Some(function) = tool.get_mut("function") {
                    *tool = function.take();
                }
            }
            template.render(messages, &options)
        }
        rendered => rendered,
    }
}

/// # Errors
/// An empty prompt, or one that leaves no room for a token.
pub(crate) fn check_prompt(state: &AppState, ids: &[TokenId]) -> Result<(), ApiError> {
    let model = state.engine.model();
    if ids.is_empty() {
        return Err(ApiError::value("The prompt is empty."));
    }
    if ids.len() >= model.context_length {
        return Err(too_long(&ids.len().to_string(), model.context_length));
    }
    if ids.len() > model.max_req_input_len {
        let (len, max) = (ids.len(), model.max_req_input_len);
        return Err(ApiError::value(format!(
            "The input ({len} tokens) is longer than what this server can hold ({max} tokens)."
        )));
    }
    Ok(())
}

/// # Errors
/// A text that cannot fit into the context, whatever its tokens are.
pub(crate) fn check_text(state: &AppState, text: &str) -> Result<(), ApiError> {
    let context_length = state.engine.model().context_length;
    let least_tokens = text.len() / state.max_token_bytes;
    if least_tokens > context_length {
        return Err(too_long(&format!("at least {least_tokens}"), context_length));
    }
    Ok(())
}

fn too_long(len: &str, context_length: usize) -> ApiError {
    ApiError::value(format!(
        "The input ({len} tokens) is longer than the model's context length \
         ({context_length} tokens)."
    ))
}
