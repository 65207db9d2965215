//! Which parsers the server's answers go through.

use parsers::{
    UnknownParser,
    reasoning::{self, ReasoningEntry, Toggle},
    tool_call::{self, ToolCallEntry},
};
use tokenizer::{ChatTemplate, Tokenizer};

/// What `--reasoning-parser` and `--tool-call-parser` come to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AnswerParsers {
    /// Cuts reasoning out; `None`: it stays in the content.
    pub reasoning: Option<&'static ReasoningEntry>,
    /// What asks for reasoning, if the chat template shows it.
    pub toggle: Option<Toggle>,
    /// The reasoning parser is a guess: the prompt must show where reasoning begins.
    pub is_guess: bool,
    /// Cuts calls out; `None`: they stay in the content.
    pub tool_call: Option<&'static ToolCallEntry>,
}

/// Leave the choice to the model's chat template.
const AUTO: &str = "auto";
/// No parser.
const NONE: &str = "none";

impl AnswerParsers {
    /// Finds the parsers of these names; for `auto` those that the chat template
    /// asks for, for `none` nothing. What `auto` comes to is logged.
    ///
    /// # Errors
    /// A name that no parser has.
    pub fn choose(
        reasoning: &str,
        tool_call: &str,
        template: Option<&ChatTemplate>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, UnknownParser> {
        let has_token = |token: &str| tokenizer.token_to_id(token).is_some();
        let found = template
            .map(|template| parsers::detect(&template.source(), &has_token))
            .unwrap_or_default();
        Ok(Self {
            reasoning: pick("reasoning parser", reasoning, found.reasoning, reasoning::find)?,
            toggle: found.toggle,
            is_guess: reasoning == AUTO && found.is_guess,
            tool_call: pick("tool-call parser", tool_call, found.tool_call, tool_call::find)?,
        })
    }
}

fn pick<T>(
    kind: &str,
    name: &str,
    found: Option<&'static str>,
    find: fn(&str) -> Result<&'static T, UnknownParser>,
) -> Result<Option<&'static T>, UnknownParser> {
    let entry = match (name, found) {
        (NONE, _) | (AUTO, None) => return Ok(None),
        (AUTO, Some(found)) => find(found),
        (name, _) => return find(name).map(Some),
    };
    let found = found.unwrap_or_default();
    match entry {
        Ok(entry) => {
            tracing::info!("{kind}: {found} (by the chat template)");
            Ok(Some(entry))
        }
        Err(_) => {
            tracing::warn!("the chat template asks for the {kind} {found}, which is not there yet");
            Ok(None)
        }
    }
}
