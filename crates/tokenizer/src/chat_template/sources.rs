//! Where a model keeps its chat template.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    Result, TokenizerError,
    tokenizer::{read_json_object, read_optional},
};

/// Template texts by purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TemplateSources {
    default: Option<String>,
    /// Takes the place of `default` where there are tools.
    tool_use: Option<String>,
}

impl TemplateSources {
    pub(crate) fn single(template: Option<String>) -> Self {
        Self { default: template, tool_use: None }
    }

    /// `chat_template.jinja`, then `chat_template.json`, then the entry of
    /// `tokenizer_config.json`: newer checkpoints use the former.
    pub(crate) fn from_dir(dir: &Path, config: &Map<String, Value>) -> Result<Self> {
        if let Some(template) = read_optional(&dir.join("chat_template.jinja"))? {
            return Ok(Self::single(Some(template)));
        }
        let json = read_json_object(dir.join("chat_template.json"))?;
        let entry = json.get("chat_template").or_else(|| config.get("chat_template"));
        Ok(entry.map(Self::from_entry).unwrap_or_default())
    }

    /// The text of a JSON file: an object with `chat_template`, or what that
    /// would hold.
    pub(crate) fn from_json(path: &Path, text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text)
            .map_err(|source| TokenizerError::Json { path: path.to_owned(), source })?;
        Ok(Self::from_entry(json.get("chat_template").unwrap_or(&json)))
    }

    /// A string, or a list of `{"name", "template"}`.
    fn from_entry(entry: &Value) -> Self {
        let Value::Array(named) = entry else {
            return Self::single(entry.as_str().map(str::to_owned));
        };
        let find = |name: &str| {
            let found = named.iter().find(|template| template["name"] == name)?;
            found["template"].as_str().map(str::to_owned)
        };
        Self { default: find("default"), tool_use: find("tool_use") }
    }

    /// `(default, tool_use)`; a lone `tool_use` serves for both.
    pub(crate) fn get(&self) -> Option<(&str, Option<&str>)> {
        let tool_use = self.tool_use.as_deref();
        Some((self.default.as_deref().or(tool_use)?, tool_use))
    }
}
