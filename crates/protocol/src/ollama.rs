//! Ollama's API.
//!
//! Upstream: `sglang/srt/entrypoints/ollama/protocol.py`; the fields it lacks are Ollama's own.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    StopStrings,
    integer::integer,
    unsupported::{Field, Table, Unset},
};

/// The body of `/api/chat`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct ChatRequest {
    /// One model is served, so it is not checked.
    pub model: String,
    /// The conversation. Empty: is the model there?
    #[serde(default)]
    pub messages: Vec<Message>,
    /// Functions that the answer may call.
    pub tools: Option<Vec<Value>>,
    /// What the answer has to look like.
    pub format: Option<Format>,
    /// How to sample.
    pub options: Option<Options>,
    /// Whether to reason; the template's default unless set.
    pub think: Option<Think>,
    /// On by default.
    pub stream: Option<bool>,
}

/// The body of `/api/generate`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct GenerateRequest {
    /// One model is served, so it is not checked.
    pub model: String,
    /// What to answer. Empty: is the model there?
    #[serde(default)]
    pub prompt: String,
    /// Instructions.
    pub system: Option<String>,
    /// The prompt goes past the chat template.
    pub raw: Option<bool>,
    /// What the answer has to look like.
    pub format: Option<Format>,
    /// How to sample.
    pub options: Option<Options>,
    /// Whether to reason; the template's default unless set.
    pub think: Option<Think>,
    /// On by default.
    pub stream: Option<bool>,
}

/// One turn of a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text.
    #[serde(default)]
    pub content: String,
    /// Reasoning of an earlier answer.
    pub thinking: Option<String>,
    /// Calls of an earlier answer.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Which function a `tool` message answers.
    pub tool_name: Option<String>,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ToolCall {
    /// What is called.
    pub function: FunctionCall,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// On, off, or how much.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Think {
    /// On or off.
    Switch(bool),
    /// `low`, `medium` or `high`.
    Level(String),
}

/// What an answer has to look like.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`json` or a JSON schema")]
pub enum Format {
    /// `json`; an empty text is no format.
    Name(String),
    /// A JSON schema.
    Schema(Map<String, Value>),
}

/// How to sample. The model's own defaults hold where nothing is set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Tokens of the answer; negative: to the end of the context.
    #[serde(deserialize_with = "integer")]
    pub num_predict: Option<i64>,
    /// What the client needs of the context; it must fit.
    #[serde(deserialize_with = "integer")]
    pub num_ctx: Option<i64>,
    /// 0: the most likely token.
    pub temperature: Option<f64>,
    /// 0: all tokens.
    #[serde(deserialize_with = "integer")]
    pub top_k: Option<i64>,
    /// Most likely tokens of this mass.
    pub top_p: Option<f64>,
    /// Against the most likely token.
    pub min_p: Option<f64>,
    /// Any integer.
    #[serde(deserialize_with = "integer")]
    pub seed: Option<i64>,
    /// Text that ends the answer.
    pub stop: Option<StopStrings>,
    /// Of tokens in prompt and answer.
    pub repeat_penalty: Option<f64>,
    /// Of tokens in the answer.
    pub presence_penalty: Option<f64>,
    /// Of tokens in the answer, by their number.
    pub frequency_penalty: Option<f64>,
}

/// What a body of `/api/chat` may not set.
pub static CHAT_TABLE: Table = Table {
    unsupported: &[
        Field::off("logprobs"),
        Field::number("top_logprobs", 0.0),
        Field::on("truncate"),
        Field::on("shift"),
    ],
    supported: None,
    nested: &[("messages", &MESSAGE_TABLE), ("options", &OPTIONS_TABLE)],
};

/// What a body of `/api/generate` may not set.
pub static GENERATE_TABLE: Table = Table {
    unsupported: &[
        Field::empty("context"),
        Field::empty("images"),
        Field::off("logprobs"),
        Field::empty("suffix"),
        Field::empty("template"),
        Field::number("top_logprobs", 0.0),
        Field::on("truncate"),
        Field::on("shift"),
    ],
    supported: None,
    nested: &[("options", &OPTIONS_TABLE)],
};

static MESSAGE_TABLE: Table =
    Table { unsupported: &[Field::empty("images")], supported: None, nested: &[] };

/// How a model is loaded is decided at the server's start, and how it is sampled is said above.
static OPTIONS_TABLE: Table = Table {
    unsupported: &[
        Field::empty("main_gpu"),
        Field::number("mirostat", 0.0),
        Field { name: "mirostat_eta", unset: Unset::Any },
        Field { name: "mirostat_tau", unset: Unset::Any },
        Field::empty("num_batch"),
        Field::empty("num_gpu"),
        Field::number("num_keep", 0.0),
        Field::empty("num_thread"),
        Field::on("penalize_newline"),
        Field::number("repeat_last_n", -1.0),
        Field::number("tfs_z", 1.0),
        Field::number("typical_p", 1.0),
        Field::empty("use_mmap"),
        Field::off("use_mlock"),
        Field::off("low_vram"),
        Field::off("numa"),
    ],
    supported: Some(&[
        "frequency_penalty",
        "min_p",
        "num_ctx",
        "num_predict",
        "presence_penalty",
        "repeat_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
    ]),
    nested: &[],
};

/// An answer, or a line of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Response<'a> {
    /// The served name.
    pub model: &'a str,
    /// RFC 3339.
    pub created_at: &'a str,
    /// Of `/api/chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<ResponseMessage<'a>>,
    /// Of `/api/generate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<&'a str>,
    /// Of `/api/generate`: reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<&'a str>,
    /// False in all lines but the last.
    pub done: bool,
    /// How it ended; with the last line.
    #[serde(flatten)]
    pub end: Option<End>,
}

/// What the assistant said.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ResponseMessage<'a> {
    /// Always `assistant`.
    pub role: &'static str,
    /// Text.
    pub content: &'a str,
    /// What the reasoning parser cut out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<&'a str>,
    /// What the tool-call parser cut out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// How an answer ended; durations in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct End {
    /// `stop`, `length`, `abort`, or `load` where nothing was asked.
    pub done_reason: &'static str,
    /// From arrival to the end.
    pub total_duration: u64,
    /// Always 0: the model is there before the server is.
    pub load_duration: u64,
    /// Tokens of the prompt.
    pub prompt_eval_count: usize,
    /// From arrival to the first token.
    pub prompt_eval_duration: u64,
    /// Tokens of the answer.
    pub eval_count: usize,
    /// From the first token to the end.
    pub eval_duration: u64,
}

/// The answer of `/api/tags`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tags<'a> {
    /// One: the model served.
    pub models: [ModelCard<'a>; 1],
}

/// A model in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelCard<'a> {
    /// Served name.
    pub name: &'a str,
    /// The same.
    pub model: &'a str,
    /// Of the server's start.
    pub modified_at: String,
    /// Bytes of the weights.
    pub size: u64,
    /// Upstream's, which is none.
    pub digest: &'static str,
    /// Family and form.
    pub details: Details<'a>,
}

/// Family and form of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Details<'a> {
    /// Empty.
    pub parent_model: &'static str,
    /// Always `sglang`.
    pub format: &'static str,
    /// `model_type` of its configuration.
    pub family: &'a str,
    /// The same.
    pub families: [&'a str; 1],
    /// Always `unknown`.
    pub parameter_size: &'static str,
    /// Empty: not told.
    pub quantization_level: &'static str,
}

/// The body of `/api/show`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct ShowRequest {
    /// One model is served, so it is not checked.
    #[serde(alias = "name")]
    pub model: String,
}

/// The answer of `/api/show`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShowResponse<'a> {
    /// Empty.
    pub license: &'static str,
    /// What would make this model.
    pub modelfile: String,
    /// Its parameters.
    pub parameters: String,
    /// Source of the chat template.
    pub template: String,
    /// Of the server's start.
    pub modified_at: String,
    /// Family and form.
    pub details: Details<'a>,
    /// By names that begin with the family's.
    pub model_info: Map<String, Value>,
    /// `completion`, and `tools` and `thinking` where there are parsers for them.
    pub capabilities: Vec<&'static str>,
}
