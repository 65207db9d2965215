//! Messages to prompt, by the model's own Jinja template.
//!
//! Rendering is meant to equal that of transformers, which most templates were
//! written against: its block trimming, its `tojson` (no HTML escapes), its
//! globals. Templates come from strangers and messages from clients, so each
//! rendering has a budget of instructions.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_chat.py`,
//! `sglang/srt/parser/jinja_template_utils.py`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use minijinja::Environment;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{SpecialTokens, Tokenizer, TokenizerError, tokenizer::read_optional};

mod conversation;
mod environment;
mod json;
mod messages;
mod methods;
mod sources;
mod strftime;
mod styles;
mod value;

use conversation::Conversation;
use sources::Choice;
pub(crate) use sources::TemplateSources;

/// A compiled chat template. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct ChatTemplate(Arc<Inner>);

struct Inner {
    environment: Environment<'static>,
    special_tokens: SpecialTokens,
    content_format: ContentFormat,
    /// `None`: a template that writes everything itself.
    conversation: Option<Conversation>,
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
    /// There is neither such a file nor such a name.
    #[error("no chat template file '{name}', and none of that name (known: {known})")]
    NotFound {
        /// As given.
        name: String,
        /// All names.
        known: String,
    },
    /// The model has templates, but none of that name.
    #[error("the model has no chat template '{name}' (it has: {known})")]
    NoSuchTemplate {
        /// As given.
        name: String,
        /// Those it has.
        known: String,
    },
    /// The file holds no template.
    #[error("{} holds no chat template", .0.display())]
    Empty(PathBuf),
    /// A conversation in SGLang's JSON format that is not complete.
    #[error("{}: {problem}", path.display())]
    Conversation {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
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
        match self {
            Self::Load(_)
            | Self::NotFound { .. }
            | Self::NoSuchTemplate { .. }
            | Self::Empty(_)
            | Self::Conversation { .. }
            | Self::Syntax(_) => false,
            Self::Raised(_)
            | Self::OutOfBudget
            | Self::Render(_)
            | Self::Message { .. }
            | Self::UnsupportedPart { .. } => true,
        }
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
    /// The template that came with the tokenizer, if one did: of several the one called
    /// `name` (`--hf-chat-template-name`), or else what transformers would take.
    ///
    /// # Errors
    /// No template of that name, [`ChatTemplateError::Syntax`].
    pub fn for_tokenizer(
        tokenizer: &Tokenizer,
        name: Option<&str>,
    ) -> Result<Option<Self>, ChatTemplateError> {
        let sources = tokenizer.templates();
        let choice = match name {
            None => sources.choose(),
            Some(name) => Some(sources.by_name(name).ok_or_else(|| {
                let (name, known) = (name.to_owned(), sources.names());
                ChatTemplateError::NoSuchTemplate { name, known }
            })?),
        };
        let special_tokens = tokenizer.special_tokens().clone();
        choice.map(|choice| Self::compile(&choice, special_tokens, None)).transpose()
    }

    /// A template of the user's choice (`--chat-template`): the name of one of SGLang's
    /// conversations; a Jinja file; or a `.json` file with an entry `chat_template`, or with a
    /// conversation in SGLang's format.
    ///
    /// # Errors
    /// An unknown name, an unreadable or incomplete file, [`ChatTemplateError::Syntax`].
    pub fn from_argument(
        argument: &Path,
        special_tokens: SpecialTokens,
    ) -> Result<Self, ChatTemplateError> {
        if let Some(conversation) = argument.to_str().and_then(Conversation::named) {
            return Self::from_conversation(conversation, special_tokens);
        }
        let text = read_optional(argument)?.ok_or_else(|| ChatTemplateError::NotFound {
            name: argument.display().to_string(),
            known: Conversation::names().join(", "),
        })?;
        let sources = match argument.extension() {
            Some(extension) if extension == "json" => {
                if let Some(conversation) = Conversation::from_file(argument, &text)? {
                    return Self::from_conversation(conversation, special_tokens);
                }
                TemplateSources::from_json(argument, &text)?
            }
            _ => TemplateSources::single(Some(text)),
        };
        let choice = sources.choose();
        let choice = choice.ok_or_else(|| ChatTemplateError::Empty(argument.to_owned()))?;
        Self::compile(&choice, special_tokens, None)
    }

    fn from_conversation(
        conversation: Conversation,
        special_tokens: SpecialTokens,
    ) -> Result<Self, ChatTemplateError> {
        let source = conversation.source();
        let choice = Choice { default: &source, tool_use: None };
        Self::compile(&choice, special_tokens, Some(conversation))
    }

    /// A template from its source.
    ///
    /// # Errors
    /// [`ChatTemplateError::Syntax`].
    pub fn new(source: &str, special_tokens: SpecialTokens) -> Result<Self, ChatTemplateError> {
        Self::compile(&Choice { default: source, tool_use: None }, special_tokens, None)
    }

    fn compile(
        choice: &Choice<'_>,
        special_tokens: SpecialTokens,
        conversation: Option<Conversation>,
    ) -> Result<Self, ChatTemplateError> {
        let environment = environment::new(choice.default, choice.tool_use);
        let mut environment = environment.map_err(ChatTemplateError::Syntax)?;
        if let Some(conversation) = &conversation {
            conversation.add_globals(&mut environment);
        }
        let content_format = ContentFormat::Openai;
        let mut inner = Inner { environment, special_tokens, content_format, conversation };
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

    /// True if the prompt is text like any other, so that the tokenizer adds BOS to it. Templates
    /// of models write it themselves.
    pub fn adds_special_tokens(&self) -> bool {
        self.0.conversation.is_some()
    }

    /// Texts that end an answer, beside a request's own.
    pub fn stop_strings(&self) -> &[String] {
        self.0.conversation.as_ref().map_or(&[], |conversation| &conversation.stop_strings)
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
        let continues =
            options.continue_final_message && messages.last().is_some_and(messages::is_assistant);
        if !continues {
            return self.0.render(&messages, options, Ending::Message);
        }
        if self.0.conversation.is_some() {
            return self.0.render(&messages, options, Ending::OpenMessage);
        }
        let text = messages.pop().map(|message| messages::text(&message)).unwrap_or_default();
        Ok(self.0.render(&messages, options, Ending::OpenAnswer)? + &text)
    }
}

/// Where a prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// After the last message, or, where that is asked for, at the beginning of an answer.
    Message,
    /// Inside the last message. Conversations only: they know where its text ends.
    OpenMessage,
    /// At the beginning of an answer.
    OpenAnswer,
}

impl Inner {
    fn render(
        &self,
        messages: &[Value],
        options: &RenderOptions,
        ending: Ending,
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
        let adds_prompt = options.add_generation_prompt || ending == Ending::OpenAnswer;
        variables.extend([
            ("messages", value::from_list(messages)),
            ("tools", tools),
            ("add_generation_prompt", adds_prompt.into()),
            ("strftime_now", strftime::function(options.now)),
        ]);
        if self.conversation.is_some() {
            let continues = ending == Ending::OpenMessage;
            variables.push(("continue_final_message", continues.into()));
        }
        let context = minijinja::Value::from_pairs(variables);
        template.render(context).map_err(environment::classify)
    }

    /// Tries it out: a template made for strings shows a list as a list, or fails.
    fn detect_content_format(&self) -> ContentFormat {
        const PROBE: &str = "content format probe";
        let content = serde_json::json!([{"type": "text", "text": PROBE}]);
        let message = serde_json::json!({"role": "user", "content": content});
        let options = RenderOptions { now: SystemTime::UNIX_EPOCH, ..RenderOptions::default() };
        let text = self.render(&[message], &options, Ending::Message).unwrap_or_default();
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
