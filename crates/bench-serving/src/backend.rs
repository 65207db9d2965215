//! The servers we can drive: path, request body and answer of each interface.
//!
//! Upstream: `ASYNC_REQUEST_FUNCS` in `sglang/benchmark/serving.py`.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{BenchError, history::History};

/// A kind of server, by upstream's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    name: &'static str,
    api: Api,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Generate,
    Completions,
    Chat,
}

const BACKENDS: &[Backend] = &[
    Backend { name: "llama-server", api: Api::Completions, port: 8080 },
    Backend { name: "lmdeploy", api: Api::Completions, port: 23333 },
    Backend { name: "lmdeploy-chat", api: Api::Chat, port: 23333 },
    Backend { name: "mlx-lm", api: Api::Chat, port: 8080 },
    Backend { name: "sglang", api: Api::Generate, port: 30000 },
    Backend { name: "sglang-native", api: Api::Generate, port: 30000 },
    Backend { name: "sglang-oai", api: Api::Completions, port: 30000 },
    Backend { name: "sglang-oai-chat", api: Api::Chat, port: 30000 },
    Backend { name: "vllm", api: Api::Completions, port: 8000 },
    Backend { name: "vllm-chat", api: Api::Chat, port: 8000 },
];

impl Backend {
    /// As on the command line.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where such a server listens unless told otherwise.
    pub fn default_port(&self) -> u16 {
        self.port
    }

    /// Whether requests must name the model.
    pub fn needs_model(&self) -> bool {
        self.api != Api::Generate
    }

    /// Whether prompts may be token ids.
    pub fn takes_ids(&self) -> bool {
        self.api != Api::Chat
    }

    pub(crate) fn api(&self) -> Api {
        self.api
    }

    pub(crate) fn path(&self) -> &'static str {
        match self.api {
            Api::Generate => "/generate",
            Api::Completions => "/v1/completions",
            Api::Chat => "/v1/chat/completions",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Backend {
    type Err = BenchError;

    fn from_str(name: &str) -> Result<Self, BenchError> {
        BACKENDS.iter().find(|backend| backend.name == name).copied().ok_or_else(|| {
            let known: Vec<_> = BACKENDS.iter().map(|backend| backend.name).collect();
            BenchError::UnknownBackend { name: name.to_owned(), known: known.join(", ") }
        })
    }
}

/// What goes into a body besides the conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyOptions<'a> {
    pub(crate) model: &'a str,
    pub(crate) output_len: usize,
    pub(crate) stream: bool,
    pub(crate) ignore_eos: bool,
}

pub(crate) fn body(api: Api, history: &History, options: BodyOptions<'_>) -> Value {
    let BodyOptions { model, output_len, stream, ignore_eos } = options;
    if api == Api::Generate {
        let (key, prompt) = prompt("input_ids", "text", history);
        return json!({
            key: prompt,
            "sampling_params": {
                "temperature": 0.0, "max_new_tokens": output_len, "ignore_eos": ignore_eos,
            },
            "stream": stream,
        });
    }
    let (prompt_key, length_key) = match api {
        Api::Chat => ("messages", "max_completion_tokens"),
        _ => ("prompt", "max_tokens"),
    };
    let mut body = json!({
        "model": model,
        prompt_key: prompt(prompt_key, prompt_key, history).1,
        "temperature": 0.0,
        length_key: output_len,
        "ignore_eos": ignore_eos,
        "stream": stream,
    });
    if stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

fn prompt<'a>(ids_key: &'a str, text_key: &'a str, history: &History) -> (&'a str, Value) {
    match history {
        History::Ids(ids) => (ids_key, json!(ids)),
        History::Text(text) => (text_key, json!(text)),
        History::Messages(messages) => (text_key, Value::Array(messages.clone())),
    }
}

/// Merges `extra` into `body`, key by key where both have an object.
pub(crate) fn merge(body: &mut Value, extra: &Value) {
    match (body, extra) {
        (Value::Object(body), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(body.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (body, extra) => *body = extra.clone(),
    }
}

/// A chunk of a stream, or the whole answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) text: String,
    pub(crate) output_ids: Vec<u32>,
    /// `text` and `output_ids` are all there is so far, not what is new.
    pub(crate) is_whole: bool,
    pub(crate) usage: Usage,
    pub(crate) error: Option<String>,
}

/// What the server counted so far, as far as it says so.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: Option<usize>,
    pub(crate) completion_tokens: Option<usize>,
    pub(crate) cached_tokens: Option<usize>,
}

#[derive(Deserialize)]
struct NativeChunk<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(default)]
    output_ids: Option<Vec<u32>>,
    #[serde(default)]
    meta_info: Option<NativeUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct NativeUsage {
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
    cached_tokens: Option<usize>,
    finish_reason: Option<Value>,
}

#[derive(Deserialize)]
struct OpenAiChunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<OpenAiUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    /// In a stream.
    delta: Option<Message>,
    /// In a whole answer.
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct OpenAiUsage {
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
    prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Deserialize)]
struct PromptTokensDetails {
    cached_tokens: Option<usize>,
}

/// Reads a chunk or an answer.
///
/// # Errors
/// With what is wrong, if it is not what the interface promises.
pub(crate) fn parse(api: Api, payload: &[u8]) -> Result<Chunk, String> {
    let unreadable = |error: serde_json::Error| {
        let start: String = String::from_utf8_lossy(payload).chars().take(200).collect();
        format!("unreadable answer ({error}): {start}")
    };
    match api {
        Api::Generate => Ok(native(serde_json::from_slice(payload).map_err(unreadable)?)),
        _ => Ok(openai(serde_json::from_slice(payload).map_err(unreadable)?)),
    }
}

fn native(chunk: NativeChunk<'_>) -> Chunk {
    let mut result = Chunk {
        text: chunk.text.map(Cow::into_owned).unwrap_or_default(),
        is_whole: true,
        error: chunk.error.as_ref().map(error_text),
        ..Chunk::default()
    };
    if let Some(meta) = chunk.meta_info {
        if let Some(reason) = meta.finish_reason.filter(|reason| reason["type"] == "abort") {
            result.error.get_or_insert_with(|| error_text(&reason));
        }
        result.usage = Usage {
            prompt_tokens: meta.prompt_tokens,
            completion_tokens: meta.completion_tokens,
            cached_tokens: meta.cached_tokens,
        };
    }
    if let Some(ids) = chunk.output_ids {
        result.is_whole = result.usage.completion_tokens.is_none_or(|count| count == ids.len());
        result.output_ids = ids;
    }
    result
}

fn openai(chunk: OpenAiChunk) -> Chunk {
    let mut text = String::new();
    for choice in chunk.choices {
        text.push_str(&choice.text.unwrap_or_default());
        if let Some(message) = choice.delta.or(choice.message) {
            text.push_str(&message.reasoning_content.unwrap_or_default());
            text.push_str(&message.content.unwrap_or_default());
        }
    }
    let usage = chunk.usage.map_or_else(Usage::default, |usage| Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
    });
    Chunk { text, usage, error: chunk.error.as_ref().map(error_text), ..Chunk::default() }
}

/// The message within an error object, or all of it.
pub(crate) fn error_text(error: &Value) -> String {
    let message = error.pointer("/error/message").or_else(|| error.get("message"));
    message.and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
