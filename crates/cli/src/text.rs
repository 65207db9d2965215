//! The text side of a model: tokenizer, chat template, end-of-sequence ids.

use std::path::Path;

use anyhow::{Context, Result};
use engine::{TextSource, TokenizerSource};
use server::SamplingDefaults;
use tokenizer::{ChatTemplate, Tokenizer};
use types::TokenId;

use crate::args::ModelArgs;

/// Which chat template the user wants.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TemplateChoice<'a> {
    /// `--chat-template`: a file, or a name of SGLang's.
    pub(crate) chat_template: Option<&'a Path>,
    /// `--hf-chat-template-name`: of the model's own, the one of this name.
    pub(crate) hf_chat_template_name: Option<&'a str>,
}

/// The tokenizer, and the template if there is one. A template or tokenizer
/// named by the user goes before the model's own.
pub(crate) fn load(
    args: &ModelArgs,
    source: &TextSource,
    choice: TemplateChoice<'_>,
) -> Result<(Tokenizer, Option<ChatTemplate>)> {
    if args.skip_tokenizer_init {
        return Ok((Tokenizer::skipped(), None));
    }
    let tokenizer = tokenizer(args, source)?;
    let special_tokens = || tokenizer.special_tokens().clone();
    let template = match choice.chat_template {
        Some(argument) => Some(ChatTemplate::from_argument(argument, special_tokens())?),
        None => ChatTemplate::for_tokenizer(&tokenizer, choice.hf_chat_template_name)?,
    };
    Ok((tokenizer, template))
}

fn tokenizer(args: &ModelArgs, source: &TextSource) -> Result<Tokenizer> {
    if let Some(path) = &args.tokenizer_path {
        let folder = match path.is_file() {
            true => path.parent().unwrap_or(path),
            false => path,
        };
        return Tokenizer::from_dir(folder)
            .with_context(|| format!("--tokenizer-path {}", path.display()));
    }
    Ok(match &source.tokenizer {
        TokenizerSource::Dir(folder) => Tokenizer::from_dir(folder)?,
        TokenizerSource::Gguf(vocab) => Tokenizer::from_gguf(vocab)?,
    })
}

/// The model's EOS ids and the tokenizer's.
pub(crate) fn eos_token_ids(source: &TextSource, tokenizer: &Tokenizer) -> Vec<TokenId> {
    let mut ids = source.eos_token_ids.clone();
    ids.extend(tokenizer.eos_token_id());
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// What the model's makers sample with.
pub(crate) fn sampling_defaults(source: &TextSource) -> SamplingDefaults {
    let config = &source.generation_config;
    SamplingDefaults {
        temperature: config.temperature.map(f64::from),
        top_p: config.top_p.map(f64::from),
        top_k: config.top_k.map(i64::from),
        min_p: config.min_p.map(f64::from),
        repetition_penalty: config.repetition_penalty.map(f64::from),
    }
}
