//! Prompts with a hole: what stands before it and after it, as models for code learnt to fill it.
//!
//! Upstream: `sglang/srt/parser/code_completion_parser.py`.

use std::{io, path::Path};

use serde::Deserialize;
use thiserror::Error;

/// The tokens around the two texts, and their order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CompletionTemplate {
    #[serde(rename = "fim_begin_token")]
    begin: String,
    #[serde(rename = "fim_middle_token")]
    middle: String,
    #[serde(rename = "fim_end_token")]
    end: String,
    #[serde(rename = "fim_position")]
    position: FimPosition,
}

/// Where the token stands that is the hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum FimPosition {
    /// Between the texts.
    Middle,
    /// After both.
    End,
}

/// Why there is no template.
#[derive(Debug, Error)]
pub enum CompletionTemplateError {
    /// It is neither a name nor a file.
    #[error("no completion template '{argument}': neither a JSON file nor one of {known}")]
    NotFound {
        /// As given.
        argument: String,
        /// The names there are.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read the completion template")]
    Read(#[from] io::Error),
    /// The file is no template.
    #[error("not a completion template in SGLang's JSON format: {0}")]
    Format(#[from] serde_json::Error),
}

/// Name, begin, middle, end.
type Named = (&'static str, [&'static str; 3], FimPosition);

const TEMPLATES: [Named; 3] = [
    ("deepseek_coder", ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"], FimPosition::Middle),
    ("qwen_coder", ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"], FimPosition::End),
    ("star_coder", ["<fim_prefix>", "<fim_middle>", "<fim_suffix>"], FimPosition::End),
];

impl CompletionTemplate {
    /// `--completion-template`: a name, or a JSON file in SGLang's format.
    ///
    /// # Errors
    /// There is no such template.
    pub fn from_argument(argument: &Path) -> Result<Self, CompletionTemplateError> {
        let named = TEMPLATES.iter().find(|(name, ..)| Path::new(name) == argument);
        if let Some((_, [begin, middle, end], position)) = named {
            let [begin, middle, end] = [begin, middle, end].map(|token| (*token).to_owned());
            return Ok(Self { begin, middle, end, position: *position });
        }
        if !argument.exists() {
            return Err(CompletionTemplateError::NotFound {
                argument: argument.display().to_string(),
                known: TEMPLATES.map(|(name, ..)| name).join(", "),
            });
        }
        Ok(serde_json::from_slice(&std::fs::read(argument)?)?)
    }

    /// The prompt whose completion stands between the two.
    pub(crate) fn prompt(&self, before: &str, after: &str) -> String {
        let Self { begin, middle, end, position } = self;
        match position {
            FimPosition::Middle => format!("{begin}{before}{middle}{after}{end}"),
            FimPosition::End => format!("{begin}{before}{end}{after}{middle}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> CompletionTemplate {
        CompletionTemplate::from_argument(name.as_ref()).unwrap()
    }

    #[test]
    fn the_hole_stands_where_the_model_looks_for_it() {
        assert_eq!(
            named("qwen_coder").prompt("a", "b"),
            "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
        );
        assert_eq!(named("star_coder").prompt("a", "b"), "<fim_prefix>a<fim_suffix>b<fim_middle>");
        assert_eq!(
            named("deepseek_coder").prompt("a", "b"),
            "<｜fim▁begin｜>a<｜fim▁hole｜>b<｜fim▁end｜>"
        );
    }

    #[test]
    fn files_are_in_sglangs_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.json");
        let json = r#"{"name": "mine", "fim_begin_token": "<", "fim_middle_token": "|",
                       "fim_end_token": ">", "fim_position": "MIDDLE"}"#;
        std::fs::write(&path, json).unwrap();
        let template = CompletionTemplate::from_argument(&path).unwrap();
        assert_eq!(template.prompt("a", "b"), "<a|b>");
        std::fs::write(&path, json.replace("MIDDLE", "LEFT")).unwrap();
        let error = CompletionTemplate::from_argument(&path).unwrap_err().to_string();
        assert!(error.contains("unknown variant `LEFT`"), "{error}");
        let error = CompletionTemplate::from_argument("nobody".as_ref()).unwrap_err().to_string();
        assert!(error.contains("one of deepseek_coder, qwen_coder, star_coder"), "{error}");
    }
}
