//! What clients of `/v1/responses` send.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    StopStrings, TextOr,
    integer::integer,
    openai::JsonSchemaFormat,
    unsupported::{Field, Table, Unset},
};

/// The entry of `include` that asks for log-probabilities.
pub const LOGPROBS: &str = "message.output_text.logprobs";
/// The entry of `include` that asks for reasoning in a form that clients send back.
pub const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

/// The request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct ResponsesRequest {
    /// A question, or a conversation.
    pub input: TextOr<InputItem>,
    /// Echoed; one model is served, so it is not checked.
    pub model: Option<String>,
    /// Go before the conversation, this time only.
    pub instructions: Option<String>,
    /// The conversation so far.
    pub previous_response_id: Option<String>,
    /// On by default: the answer can be asked for, and continued, later.
    pub store: Option<bool>,
    /// Server-sent events.
    pub stream: Option<bool>,
    /// Answer at once, work on.
    pub background: Option<bool>,
    /// What else to tell: [`LOGPROBS`], [`ENCRYPTED_REASONING`].
    pub include: Option<Vec<String>>,
    /// To the end of the context unless set.
    #[serde(default, deserialize_with = "integer")]
    pub max_output_tokens: Option<i64>,
    /// The model's own default unless set.
    pub temperature: Option<f64>,
    /// The model's own default unless set.
    pub top_p: Option<f64>,
    /// The model's own default unless set.
    #[serde(default, deserialize_with = "integer")]
    pub top_k: Option<i64>,
    /// The model's own default unless set.
    pub min_p: Option<f64>,
    /// 0 unless set.
    pub frequency_penalty: Option<f64>,
    /// 0 unless set.
    pub presence_penalty: Option<f64>,
    /// The model's own default unless set.
    pub repetition_penalty: Option<f64>,
    /// Text that ends it.
    pub stop: Option<StopStrings>,
    /// Of so many of the most likely tokens, with [`LOGPROBS`].
    #[serde(default, deserialize_with = "integer")]
    pub top_logprobs: Option<i64>,
    /// Functions that the answer may call.
    pub tools: Option<Vec<Value>>,
    /// `auto`, `none`, `required` or a function.
    pub tool_choice: Option<Value>,
    /// On by default; off, the answer has one call at most.
    pub parallel_tool_calls: Option<bool>,
    /// How much to reason.
    pub reasoning: Option<Reasoning>,
    /// Echoed; its `format` is a [`TextFormat`].
    pub text: Option<Map<String, Value>>,
    /// Variables of the template.
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Echoed.
    pub metadata: Option<Map<String, Value>>,
    /// Echoed.
    pub user: Option<String>,
    /// The response's name, instead of one made up.
    pub request_id: Option<String>,
    /// Counts if the server schedules by priority.
    pub priority: Option<i64>,
}

/// What the answer has to look like.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TextFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema(JsonSchemaFormat),
}

/// How much to reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Reasoning {
    /// A variable of the template; `none` turns reasoning off.
    pub effort: Option<String>,
    /// Tokens after which it has to end. Not in upstream, nor in OpenAI's own.
    #[serde(default, deserialize_with = "integer")]
    pub max_tokens: Option<i64>,
    /// Reasoning is told as its own summary too.
    pub summary: Option<Summary>,
}

/// How long a summary is to be: it has all of the text whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    /// The default.
    Auto,
    /// Short.
    Concise,
    /// Long.
    Detailed,
}

/// Something of a conversation. Which fields count depends on `kind`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct InputItem {
    /// `message`, which may be left out, `function_call`, `function_call_output`
    /// or `reasoning`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Of a message.
    pub role: Option<String>,
    /// Of a message, or of reasoning.
    pub content: Option<TextOr<InputPart>>,
    /// Of a call, and of its output.
    pub call_id: Option<String>,
    /// The function's.
    pub name: Option<String>,
    /// A JSON text.
    pub arguments: Option<String>,
    /// What a call gave.
    pub output: Option<TextOr<InputPart>>,
    /// Of reasoning.
    pub summary: Option<Vec<InputPart>>,
    /// Of reasoning: what [`ENCRYPTED_REASONING`] gave.
    pub encrypted_content: Option<String>,
}

/// A piece of a content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InputPart {
    /// `input_text`, `output_text`, `reasoning_text`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Text.
    pub text: Option<String>,
    /// Text of a `refusal`.
    pub refusal: Option<String>,
}

/// The query of `GET /v1/responses/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RetrieveQuery {
    /// Off: the response comes whole.
    pub stream: Option<bool>,
}

/// What a body may not set.
pub static RESPONSES_TABLE: Table = Table {
    unsupported: &[
        Field::empty("bootstrap_host"),
        Field::empty("bootstrap_port"),
        Field::empty("bootstrap_room"),
        Field::empty("cache_salt"),
        Field::empty("context_management"),
        Field::empty("conversation"),
        Field::number("data_parallel_rank", 0.0),
        Field::empty("disagg_prefill_dp_rank"),
        Field::empty("extra_key"),
        Field::empty("max_tool_calls"),
        Field::empty("prompt"),
        Field::number("routed_dp_rank", 0.0),
        Field { name: "service_tier", unset: Unset::Strings(&["auto", "default"]) },
        Field::empty("session_id"),
        Field { name: "truncation", unset: Unset::Strings(&["disabled"]) },
    ],
    supported: None,
    nested: &[
        ("reasoning", &REASONING_TABLE),
        ("stream_options", &STREAM_OPTIONS_TABLE),
        ("text", &TEXT_TABLE),
    ],
};

/// The old name of `summary`.
static REASONING_TABLE: Table =
    Table { unsupported: &[Field::empty("generate_summary")], supported: None, nested: &[] };

static STREAM_OPTIONS_TABLE: Table =
    Table { unsupported: &[Field::off("include_obfuscation")], supported: None, nested: &[] };

static TEXT_TABLE: Table = Table {
    unsupported: &[Field { name: "verbosity", unset: Unset::Strings(&["medium"]) }],
    supported: None,
    nested: &[],
};
