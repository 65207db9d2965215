//! Where a model keeps its chat template.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    Result, TokenizerError,
    tokenizer::{read_json_object, read_optional},
};

/// Template texts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TemplateSources(Vec<(String, String)>);

/// What renders requests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice<'a> {
    pub(super) default: &'a str,
    /// Takes the place of `default` where there are tools.
    pub(super) tool_use: Option<&'a str>,
}

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

impl TemplateSources {
    pub(crate) fn single(template: Option<String>) -> Self {
        Self(template.map(|text| (DEFAULT.to_owned(), text)).into_iter().collect())
    }

    pub(crate) fn named(templates: Vec<(String, String)>) -> Self {
        Self(templates)
    }

    /// `chat_template.jinja` with those of the folder `additional_chat_templates`, then
    /// `chat_template.json`, then the entry of `tokenizer_config.json`: newer checkpoints use
    /// the former.
    pub(crate) fn from_dir(dir: &Path, config: &Map<String, Value>) -> Result<Self> {
        if let Some(template) = read_optional(&dir.join("chat_template.jinja"))? {
            let mut sources = Self::single(Some(template));
            sources.0.extend(additional(&dir.join("additional_chat_templates"))?);
            return Ok(sources);
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
        let text = |entry: &Value, key: &str| entry[key].as_str().map(str::to_owned);
        let pair = |entry| Some((text(entry, "name")?, text(entry, "template")?));
        Self(named.iter().filter_map(pair).collect())
    }

    /// All names, for messages.
    pub(super) fn names(&self) -> String {
        self.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The template called `name`, for all requests.
    pub(super) fn by_name(&self, name: &str) -> Option<Choice<'_>> {
        Some(Choice { default: self.find(name)?, tool_use: None })
    }

    /// `default` and `tool_use`, as transformers chooses. A lone `tool_use` serves for both,
    /// and a lone template of any name too.
    pub(super) fn choose(&self) -> Option<Choice<'_>> {
        let (default, tool_use) = (self.find(DEFAULT), self.find(TOOL_USE));
        let lone = || match self.0.as_slice() {
            [(_, text)] => Some(text.as_str()),
            _ => None,
        };
        Some(Choice { default: default.or(tool_use).or_else(lone)?, tool_use })
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }
}

/// The files `NAME.jinja` of a folder, by name; none if there is no folder.
fn additional(dir: &Path) -> Result<Vec<(String, String)>> {
    let Ok(entries) = dir.read_dir() else { return Ok(Vec::new()) };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension() == Some("jinja".as_ref())).collect();
    paths.sort();
    let mut named = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        named.extend(read_optional(&path)?.map(|text| (name, text)));
    }
    Ok(named)
}
