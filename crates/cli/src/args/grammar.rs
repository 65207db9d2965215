//! Constrained output.

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use server::GrammarConfig;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Constrained output")]
pub(crate) struct GrammarArgs {
    /// What compiles JSON schemas, regular expressions, grammars and structural tags:
    /// llguidance, outlines (regular expressions and JSON schemas alone), or none.
    #[arg(long, default_value = constrained::DEFAULT_BACKEND, value_name = "NAME")]
    pub(crate) grammar_backend: String,

    /// A regular expression for the white space in constrained JSON; by default any.
    #[arg(long, value_name = "REGEX")]
    pub(crate) constrained_json_whitespace_pattern: Option<String>,

    /// One space after commas and colons of constrained JSON, and no other white space.
    #[arg(long)]
    pub(crate) constrained_json_disable_any_whitespace: bool,
}

impl GrammarArgs {
    /// # Errors
    /// A backend that is not there; two answers to how JSON is spaced.
    pub(crate) fn resolve(&self) -> Result<GrammarConfig> {
        let backend = constrained::find(&self.grammar_backend).context("--grammar-backend")?;
        let json = constrained::JsonOptions {
            whitespace_pattern: self.constrained_json_whitespace_pattern.clone(),
            disable_any_whitespace: self.constrained_json_disable_any_whitespace,
        };
        anyhow::ensure!(
            json.whitespace_pattern.is_none() || !json.disable_any_whitespace,
            "--constrained-json-whitespace-pattern contradicts \
             --constrained-json-disable-any-whitespace"
        );
        Ok(GrammarConfig { backend, json })
    }
}
