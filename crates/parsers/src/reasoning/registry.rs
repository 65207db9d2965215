//! The parsers by upstream's names.

use serde_json::{Map, Value};

use super::{
    Begins, ReasoningParser,
    append_think::AppendThink,
    gpt_oss::GptOss,
    tags::{Tagged, Tags},
};
use crate::UnknownParser;

/// One parser.
#[derive(Debug)]
pub struct ReasoningEntry {
    /// As in `--reasoning-parser`.
    pub name: &'static str,
    /// Whether the text is reasoning from its first character on.
    pub force: Force,
    /// What asks for reasoning, where the chat template does not say.
    pub toggle: Toggle,
    /// What begins reasoning.
    pub begin: &'static str,
    /// What ends reasoning: tokens up to it count as reasoning tokens.
    pub end: &'static str,
    /// What comes right before the answer, where a grammar begins: the end of reasoning,
    /// unless there is more to come.
    pub answer_begin: &'static str,
    /// What begins a tool call, where that ends reasoning too.
    pub call: Option<&'static str>,
    /// There may be reasoning after the end of reasoning.
    pub reopens: bool,
    /// Its marks are special tokens, which must then stay in the text.
    pub needs_special_tokens: bool,
    pub(super) new: fn(is_forced: bool, continued: &str) -> Box<dyn ReasoningParser>,
}

/// Whether the text is reasoning from its first character on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is.
    Always,
    /// Only after an opening tag.
    Never,
    /// If the request asks for reasoning.
    IfAsked,
}

/// Names are unique.
impl PartialEq for ReasoningEntry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Force {
    pub(super) fn resolve(self, begins: Begins) -> bool {
        match (begins, self) {
            (Begins::Known(begins), _) => begins,
            (_, Self::Always) => true,
            (Begins::IfAsked(asked), Self::IfAsked) => asked,
            (_, Self::Never) | (Begins::ByHabit, Self::IfAsked) => false,
        }
    }
}

/// What asks for reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toggle {
    /// Nothing has to: it is always on.
    Always,
    /// A variable of the chat template, and its default.
    Kwarg {
        /// Its name.
        name: &'static str,
        /// Its value if the request has none.
        default: bool,
    },
    /// `reasoning_effort`, unless it is `none`.
    Effort,
}

impl Toggle {
    /// Whether a request with these variables of the template, and with a
    /// `reasoning_effort` other than `none` or without, asks for reasoning.
    pub fn is_on(self, kwargs: &Map<String, Value>, has_effort: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Kwarg { name, default: true } => kwargs.get(name) != Some(&Value::Bool(false)),
            Self::Kwarg { name, default: false } => kwargs.get(name) == Some(&Value::Bool(true)),
            Self::Effort => has_effort,
        }
    }
}

static THINK: Tags = Tags { open: "<think>", close: "</think>", tool: None };
static THINK_OR_CALL: Tags = Tags { tool: Some("<tool_call>"), ..plain_think() };
static KIMI_K2: Tags = Tags { tool: Some("<|tool_calls_section_begin|>"), ..plain_think() };
static KIMI: Tags = Tags { open: "◁think▷", close: "◁/think▷", tool: None };
static MISTRAL: Tags = Tags { open: "[THINK]", close: "[/THINK]", tool: None };
static GEMMA4: Tags = Tags { open: "<|channel>thought\n", close: "<channel|>", tool: None };

const fn plain_think() -> Tags {
    Tags { open: "<think>", close: "</think>", tool: None }
}

const ENABLE_THINKING: Toggle = Toggle::Kwarg { name: "enable_thinking", default: true };
const EXPLICIT_ENABLE_THINKING: Toggle = Toggle::Kwarg { name: "enable_thinking", default: false };
const THINKING: Toggle = Toggle::Kwarg { name: "thinking", default: true };
const EXPLICIT_THINKING: Toggle = Toggle::Kwarg { name: "thinking", default: false };

type New = fn(bool, &str) -> Box<dyn ReasoningParser>;

const fn entry(name: &'static str, force: Force, toggle: Toggle, new: New) -> ReasoningEntry {
    let (begin, end) = ("<think>", "</think>");
    ReasoningEntry {
        name,
        force,
        toggle,
        begin,
        end,
        answer_begin: end,
        call: None,
        reopens: false,
        needs_special_tokens: false,
        new,
    }
}

/// Like Qwen 3: a tool call ends reasoning too.
const fn qwen(name: &'static str, force: Force, toggle: Toggle) -> ReasoningEntry {
    let entry = entry(name, force, toggle, |is_forced, continued| {
        Box::new(Tagged::new(&THINK_OR_CALL, is_forced, continued))
    });
    ReasoningEntry { call: THINK_OR_CALL.tool, ..entry }
}

/// Like DeepSeek R1.
const fn think(name: &'static str, force: Force, toggle: Toggle) -> ReasoningEntry {
    entry(name, force, toggle, |is_forced, continued| {
        Box::new(Tagged::new(&THINK, is_forced, continued))
    })
}

/// All parsers, by name.
pub static REASONING_PARSERS: &[ReasoningEntry] = &[
    think("deepseek-r1", Force::Always, Toggle::Always),
    qwen("deepseek-v3", Force::IfAsked, EXPLICIT_THINKING),
    think("deepseek-v4", Force::IfAsked, EXPLICIT_THINKING),
    think("deepseek-v41", Force::IfAsked, EXPLICIT_THINKING),
    qwen("dots", Force::IfAsked, ENABLE_THINKING),
    ReasoningEntry {
        begin: GEMMA4.open,
        end: GEMMA4.close,
        answer_begin: GEMMA4.close,
        needs_special_tokens: true,
        ..entry("gemma4", Force::IfAsked, EXPLICIT_ENABLE_THINKING, |is_forced, continued| {
            Box::new(Tagged::new(&GEMMA4, is_forced, continued))
        })
    },
    think("gigachat35", Force::Always, Toggle::Always),
    qwen("glm45", Force::IfAsked, ENABLE_THINKING),
    ReasoningEntry {
        begin: "<|channel|>analysis<|message|>",
        end: "<|end|>",
        answer_begin: "<|channel|>final<|message|>",
        reopens: true,
        needs_special_tokens: true,
        ..entry("gpt-oss", Force::Always, Toggle::Always, |_, _| Box::new(GptOss::default()))
    },
    qwen("interns1", Force::IfAsked, ENABLE_THINKING),
    ReasoningEntry {
        begin: KIMI.open,
        end: KIMI.close,
        answer_begin: KIMI.close,
        ..entry("kimi", Force::Never, Toggle::Always, |is_forced, continued| {
            Box::new(Tagged::new(&KIMI, is_forced, continued))
        })
    },
    ReasoningEntry {
        call: KIMI_K2.tool,
        ..entry("kimi_k2", Force::IfAsked, THINKING, |is_forced, continued| {
            Box::new(Tagged::new(&KIMI_K2, is_forced, continued))
        })
    },
    qwen("mimo", Force::IfAsked, EXPLICIT_ENABLE_THINKING),
    qwen("minimax", Force::Always, ENABLE_THINKING),
    entry("minimax-append-think", Force::IfAsked, Toggle::Always, |_, _| {
        Box::new(AppendThink::default())
    }),
    ReasoningEntry {
        begin: MISTRAL.open,
        end: MISTRAL.close,
        answer_begin: MISTRAL.close,
        needs_special_tokens: true,
        ..entry("mistral", Force::IfAsked, Toggle::Effort, |is_forced, continued| {
            Box::new(Tagged::new(&MISTRAL, is_forced, continued))
        })
    },
    qwen("nanbeige", Force::IfAsked, ENABLE_THINKING),
    qwen("nemotron_3", Force::IfAsked, ENABLE_THINKING),
    qwen("poolside_v1", Force::IfAsked, EXPLICIT_ENABLE_THINKING),
    qwen("qwen3", Force::IfAsked, ENABLE_THINKING),
    qwen("qwen3-thinking", Force::Always, ENABLE_THINKING),
    think("step3", Force::Always, Toggle::Always),
    think("step3p5", Force::Always, Toggle::Always),
];

/// The parser of this name.
///
/// # Errors
/// There is none; the error lists those there are.
pub fn find(name: &str) -> Result<&'static ReasoningEntry, UnknownParser> {
    let entry = REASONING_PARSERS.iter().find(|entry| entry.name == name);
    entry.ok_or_else(|| UnknownParser {
        kind: "reasoning parser",
        name: name.to_owned(),
        known: REASONING_PARSERS.iter().map(|entry| entry.name).collect(),
    })
}
