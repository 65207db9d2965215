//! Messages to prompt, by the model's own Jinja template.
//!
//! Rendering is meant to equal that of transformers, which most templates were
//! written against: its block trimming, its `tojson` (no HTML escapes), its
//! globals. Templates come from strangers and messages from clients, so each
//! rendering has a budget of instructions.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_chat.py`,
//! `sglang/srt/parser/jinja_template_utils.py`.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use minijinja::Environment;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{SpecialTokens, Tokenizer, TokenizerError, tokenizer::read_optional};

mod environment;
mod json;
mod messages;
mod methods;
mod sources;
mod strftime;
mod value;

pub(crate) use sources::TemplateSources;

/// A compiled chat template. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct ChatTemplate(Arc<Inner>);

struct Inner {
    environment: Environment<'static>,
    special_tokens: SpecialTokens,
    content_format: ContentFormat,
}

/// What a template takes as the `content` of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentFormat {
    /// A string: lists of text parts are joined before rendering.
    String,
    /// A string or OpenAI's list of parts.
    Openai,
}

/// Why there is no template or no prompt.
#[derive(Debug, Error)]
pub enum ChatTemplateError {
    /// The file cannot be read, or is not JSON where it should be.
    #[error("cannot load the chat template")]
    Load(#[from] TokenizerError),
    /// There is no such file.
    #[error("no chat template at {0}")]
    NotFound(String),
    /// The template is not valid Jinja.
    #[error("invalid chat template: {0}")]
    Syntax(#[source] minijinja::Error),
    /// The template itself refused the messages (`raise_exception`).
    #[error("{0}")]
    Raised(String),
    /// The template took too many steps.
    #[error("the chat template did not finish within its budget for these messages")]
    OutOfBudget,
    /// Rendering failed, e.g. because a message lacks a field.
    #[error("the chat template cannot render these messages: {0}")]
    Render(#[source] minijinja::Error),
    /// A message is not what a message must be.
    #[error("messages[{index}] {problem}")]
    Message {
        /// Position in the list.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Images, audio and the like.
    #[error("messages[{index}] has a content part of unsupported type '{kind}'")]
    UnsupportedPart {
        /// Position in the list.
        index: usize,
        /// The part's `type`.
        kind: String,
    },
}

impl ChatTemplateError {
    /// True if other messages could have been rendered: the client's error and
    /// not the model's.
    pub fn is_request_fault(&self) -> bool {
        !matches!(self, Self::Load(_) | Self::NotFound(_) | Self::Syntax(_))
    }
}

/// What else the template is told.
#[derive(Debug, Clone)]
pub struct RenderOptions {
    /// Tool definitions, as the template's `tools`. Empty means none.
    pub tools: Vec<Value>,
    /// Ends the prompt with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The answer continues the last message, if that is the assistant's.
    /// Implies `add_generation_prompt`.
    pub continue_final_message: bool,
    /// Further variables (`chat_template_kwargs`). They win over special tokens
    /// but not over the arguments above.
    pub kwargs: Map<String, Value>,
    /// What `strftime_now` formats, in UTC.
    pub now: SystemTime,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            tools: Vec::new(),
            add_generation_prompt: true,
            continue_final_message: false,
            kwargs: Map::new(),
            now: SystemTime::now(),
        }
    }
}

impl ChatTemplate {
    /// The template that came with the tokenizer, if one did.
    ///
    /// # Errors
    /// [`ChatTemplateError::Syntax`].
    pub fn for_tokenizer(tokenizer: &Tokenizer) -> Result<Option<Self>, ChatTemplateError> {
        let Some((default, tool_use)) = tokenizer.templates().get() else { return Ok(None) };
        Self::compile(default, tool_use, tokenizer.special_tokens().clone()).map(Some)
    }

    /// A template of the user's choice (`--chat-template`): a Jinja file, or a
    /// `.json` file with an entry `chat_template`.
    ///
    /// # Errors
    /// A missing or unreadable file, [`ChatTemplateError::Syntax`].
    pub fn from_file(path: &Path, tokenizer: &Tokenizer) -> Result<Self, ChatTemplateError> {
        let missing = || ChatTemplateError::NotFound(path.display().to_string());
        let text = read_optional(path)?.ok_or_else(missing)?;
        let sources = match path.extension() {
            Some(extension) if extension == "json" => TemplateSources::from_json(path, &text)?,
            _ => TemplateSources::single(Some(text)),
        };
        let (default, tool_use) = sources.get().ok_or_else(missing)?;
        Self::compile(default, tool_use, tokenizer.special_tokens().clone())
    }

    /// A template from its source.
    ///
    /// # Errors
    /// [`ChatTemplateError::Syntax`].
    pub fn new(source: &str, special_tokens: SpecialTokens) -> Result<Self, ChatTemplateError> {
        Self::compile(source, None, special_tokens)
    }

    fn compile(
        default: &str,
        tool_use: Option<&str>,
        special_tokens: SpecialTokens,
    ) -> Result<Self, ChatTemplateError> {
        let environment = environment::new(default, tool_use).map_err(ChatTemplateError::Syntax)?;
        let mut inner =
            Inner { environment, special_tokens, content_format: ContentFormat::Openai };
        inner.content_format = inner.detect_content_format();
        Ok(Self(Arc::new(inner)))
    }

    /// The template's text, that for tools left out if there is one.
    pub fn source(&self) -> String {
        let name = environment::template_name(&self.0.environment, false);
        let template = self.0.environment.get_template(name);
        template.map(|template| template.source().to_owned()).unwrap_or_default()
    }

    /// What the template takes as `content`.
    pub fn content_format(&self) -> ContentFormat {
        self.0.content_format
    }

    /// The prompt for `messages` (objects with `role` and `content`).
    ///
    /// # Errors
    /// The client's, as a rule: see [`ChatTemplateError::is_request_fault`].
    pub fn render(
        &self,
        messages: &[Value],
        options: &RenderOptions,
    ) -> Result<String, ChatTemplateError> {
        let mut messages = messages::normalize(messages, self.0.content_format)?;
        let continued = match options.continue_final_message {
            true => messages::take_final_assistant(&mut messages),
            false => None,
        };
        let mut prompt = self.0.render(&messages, options, continued.is_some())?;
        prompt.push_str(&continued.unwrap_or_default());
        Ok(prompt)
    }
}

impl Inner {
    fn render(
        &self,
        messages: &[Value],
        options: &RenderOptions,
        continued: bool,
    ) -> Result<String, ChatTemplateError> {
        let name = environment::template_name(&self.environment, !options.tools.is_empty());
        let template = self.environment.get_template(name).map_err(ChatTemplateError::Syntax)?;
        // Always defined, as in transformers: templates tell none from undefined.
        let mut variables = vec![("documents", minijinja::Value::from(()))];
        variables.extend(self.special_tokens.roles().map(|(role, text)| (role, text.into())));
        let kwargs = options.kwargs.iter();
        variables.extend(kwargs.map(|(name, value)| (name.as_str(), value::from_json(value))));
        let tools = match options.tools.as_slice() {
            [] => minijinja::Value::from(()),
            tools => value::from_list(tools),
        };
        variables.extend([
            ("messages", value::from_list(messages)),
            ("tools", tools),
            ("add_generation_prompt", (options.add_generation_prompt || continued).into()),
            ("strftime_now", strftime::function(options.now)),
        ]);
        let context = minijinja::Value::from_pairs(variables);
        template.render(context).map_err(environment::classify)
    }

    /// Tries it out: a template made for strings shows a list as a list, or fails.
    fn detect_content_format(&self) -> ContentFormat {
        const PROBE: &str = "content format probe";
        let content = serde_json::json!([{"type": "text", "text": PROBE}]);
        let message = serde_json::json!({"role": "user", "content": content});
        let options = RenderOptions { now: SystemTime::UNIX_EPOCH, ..RenderOptions::default() };
        let text = self.render(&[message], &options, false).unwrap_or_default();
        let shown_as_list = ["\"", "'"]
            .iter()
            .any(|quote| text.contains(&format!("{quote}{PROBE}{quote}")) && text.contains("type"));
        match text.contains(PROBE) && !shown_as_list {
            true => ContentFormat::Openai,
            false => ContentFormat::String,
        }
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ChatTemplate");
        debug.field("content_format", &self.0.content_format).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
