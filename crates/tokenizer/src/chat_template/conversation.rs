//! Conversations that are described rather than programmed: roles, separators, and the
//! style that joins them.
//!
//! SGLang has some two dozen by name and takes more as JSON files. Each becomes a Jinja
//! template here, so there is one way to render.
//!
//! Upstream: `sglang/srt/parser/conversation.py`, `TemplateManager._load_json_chat_template`.

use std::path::Path;

use minijinja::{Environment, Value as Jinja};
use serde_json::{Map, Value};

use super::{ChatTemplateError, styles::Style};
use crate::TokenizerError;

/// What a style does not say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conversation {
    name: String,
    style: &'static Style,
    /// With `{system_message}` in it.
    system_template: String,
    /// Where the messages have none.
    system_message: String,
    user: String,
    assistant: String,
    /// After a turn.
    sep: String,
    /// After an answer, in styles that tell the two.
    sep2: Option<String>,
    /// Texts that end an answer.
    pub(super) stop_strings: Vec<String>,
}

/// Those with a name, sorted by it.
const NAMED: &str = include_str!("../../data/conversations.json");

impl Conversation {
    /// One of SGLang's, by its name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let entry = entries().into_iter().find(|entry| entry["name"] == name)?;
        Some(Self::new(&entry).expect("every entry of ours is complete"))
    }

    /// All names.
    pub(super) fn names() -> Vec<String> {
        let name = |entry: Map<String, Value>| entry["name"].as_str().map(str::to_owned);
        entries().into_iter().filter_map(name).collect()
    }

    /// SGLang's JSON file of one conversation; `None` if the file holds something else.
    pub(super) fn from_file(path: &Path, text: &str) -> Result<Option<Self>, ChatTemplateError> {
        let json: Value = serde_json::from_str(text)
            .map_err(|source| TokenizerError::Json { path: path.to_owned(), source })?;
        let Value::Object(fields) = json else { return Ok(None) };
        if !fields.contains_key("sep_style") {
            return Ok(None);
        }
        let wrong = |problem| ChatTemplateError::Conversation { path: path.to_owned(), problem };
        Self::new(&fields).map(Some).map_err(wrong)
    }

    fn new(fields: &Map<String, Value>) -> Result<Self, String> {
        let text = |key: &str| match fields.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("{key} is not a string")),
        };
        let required = |key: &str| text(key)?.ok_or_else(|| format!("{key} is missing"));
        let style = Style::find(&required("sep_style")?)?;
        let sep2 = text("sep2")?;
        if style.needs_sep2() && sep2.is_none() {
            return Err(format!("sep_style {} needs a sep2", style.name));
        }
        let system_template = match text("system_template")? {
            Some(template) => template,
            None => required("system")? + "\n{system_message}",
        };
        Ok(Self {
            name: required("name")?,
            style,
            system_template,
            system_message: text("system_message")?.unwrap_or_default(),
            user: required("user")?,
            assistant: required("assistant")?,
            sep: text("sep")?.unwrap_or_else(|| "\n".to_owned()),
            sep2,
            stop_strings: stop_strings(fields.get("stop_str"))?,
        })
    }

    /// The Jinja template that renders it.
    pub(super) fn source(&self) -> String {
        self.style.source()
    }

    /// The variables of [`Self::source`].
    pub(super) fn add_globals(&self, environment: &mut Environment<'static>) {
        let roles = [&self.user, &self.assistant].map(|role| Jinja::from(role.as_str()));
        environment.add_global("name", self.name.as_str());
        environment.add_global("system_template", self.system_template.as_str());
        environment.add_global("default_system_message", self.system_message.as_str());
        environment.add_global("roles", Jinja::from(roles.to_vec()));
        environment.add_global("sep", self.sep.as_str());
        environment.add_global("sep2", self.sep2.as_deref().unwrap_or_default());
    }
}

fn entries() -> Vec<Map<String, Value>> {
    serde_json::from_str(NAMED).expect("our own data is a list of objects")
}

fn stop_strings(value: Option<&Value>) -> Result<Vec<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(text).collect(),
        Some(value) => text(value).map(|text| vec![text]),
    };
    texts.ok_or_else(|| "stop_str is neither a string nor a list of strings".to_owned())
}

#[cfg(test)]
mod tests;
