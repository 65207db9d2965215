//! What clients of `/v1/messages` send.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    StopStrings, TextOr,
    integer::integer,
    unsupported::{Field, Table, Unset},
};

/// The request; that of `/v1/messages/count_tokens` is the same without a limit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct MessagesRequest {
    /// Echoed; one model is served, so it is not checked.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Tokens of the answer. Must be there, except where tokens are counted.
    #[serde(default, deserialize_with = "integer")]
    pub max_tokens: Option<i64>,
    /// Instructions.
    pub system: Option<TextOr<TextBlock>>,
    /// Text that ends the answer.
    pub stop_sequences: Option<StopStrings>,
    /// Server-sent events.
    pub stream: Option<bool>,
    /// The model's own default unless set.
    pub temperature: Option<f64>,
    /// The model's own default unless set.
    pub top_p: Option<f64>,
    /// The model's own default unless set.
    #[serde(default, deserialize_with = "integer")]
    pub top_k: Option<i64>,
    /// Whether to reason; the template's default unless set.
    pub thinking: Option<Thinking>,
    /// Functions that the answer may call.
    pub tools: Option<Vec<Tool>>,
    /// Whether it must call one.
    pub tool_choice: Option<ToolChoice>,
    /// Effort and form of the answer.
    pub output_config: Option<OutputConfig>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Text or blocks.
    pub content: TextOr<Block>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The client, and the results of tools.
    User,
    /// The model.
    Assistant,
    /// More of the instructions.
    System,
}

/// A block of a message. Images, documents and what Anthropic's own tools leave
/// behind are no blocks here, and are refused by their type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// Reasoning of an earlier answer.
    Thinking {
        /// The text.
        thinking: String,
    },
    /// A call of an earlier answer.
    ToolUse {
        /// Its name.
        id: String,
        /// The function's.
        name: String,
        /// The arguments.
        #[serde(default)]
        input: Map<String, Value>,
    },
    /// What a call gave.
    ToolResult {
        /// The call's name.
        tool_use_id: String,
        /// Text or text blocks.
        #[serde(default)]
        content: Option<TextOr<TextBlock>>,
    },
}

/// A block where only text can be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TextBlock {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
}

/// Whether to reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Thinking {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tokens after which reasoning has to end.
    #[serde(default, deserialize_with = "integer")]
    pub budget_tokens: Option<i64>,
    /// `summarized`, or `omitted`: the text is left out.
    pub display: Option<String>,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Tool {
    /// `custom`; others name tools of Anthropic's.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub input_schema: Option<Map<String, Value>>,
    /// Arguments are made to fit the schema.
    pub strict: Option<bool>,
}

/// Whether the answer must call a function.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ToolChoice {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which, with `tool`.
    pub name: Option<String>,
    /// One call at most.
    pub disable_parallel_tool_use: Option<bool>,
}

/// Effort and form of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct OutputConfig {
    /// A variable of the template: `low`, `high`, ...
    pub effort: Option<String>,
    /// What the answer has to look like.
    pub format: Option<OutputFormat>,
}

/// What an answer has to look like.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputFormat {
    /// JSON that a schema describes.
    JsonSchema {
        /// The schema.
        schema: Map<String, Value>,
    },
}

/// What a body may not set.
pub static MESSAGES_TABLE: Table = Table {
    unsupported: &[
        Field::empty("bootstrap_host"),
        Field::empty("bootstrap_port"),
        Field::empty("bootstrap_room"),
        Field::empty("container"),
        Field::empty("context_management"),
        Field::number("data_parallel_rank", 0.0),
        Field::empty("disagg_prefill_dp_rank"),
        Field::empty("mcp_servers"),
        Field::number("routed_dp_rank", 0.0),
        Field { name: "service_tier", unset: Unset::Strings(&["auto", "standard_only"]) },
        Field { name: "speed", unset: Unset::Strings(&["standard"]) },
    ],
    supported: None,
    nested: &[("output_config", &OUTPUT_CONFIG_TABLE), ("tools", &TOOL_TABLE)],
};

static OUTPUT_CONFIG_TABLE: Table =
    Table { unsupported: &[Field::empty("task_budget")], supported: None, nested: &[] };

static TOOL_TABLE: Table = Table {
    unsupported: &[Field::off("defer_loading"), Field::empty("allowed_callers")],
    supported: None,
    nested: &[],
};
