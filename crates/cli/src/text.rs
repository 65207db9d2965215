//! The text side of a model: tokenizer, chat template, end-of-sequence ids.

use std::path::PathBuf;

use anyhow::{Context, Result};
use engine::{TextSource, TokenizerSource};
use server::SamplingDefaults;
use tokenizer::{ChatTemplate, Tokenizer};
use types::TokenId;

use crate::args::ModelArgs;

/// The tokenizer, and the template if there is one. A template or tokenizer
/// named by the user goes before the model's own.
pub(crate) fn load(
    args: &ModelArgs,
    source: &TextSource,
    chat_template: Option<&PathBuf>,
) -> Result<(Tokenizer, Option<ChatTemplate>)> {
    if args.skip_tokenizer_init {
        return Ok((Tokenizer::skipped(), None));
    }
    let tokenizer = tokenizer(args, source)?;
    let template = match (chat_template, &source.chat_template) {
        (Some(file), _) => Some(ChatTemplate::from_file(file, &tokenizer)?),
        (None, _) if args.tokenizer_path.is_some() => ChatTemplate::for_tokenizer(&tokenizer)?,
        (None, Some(text)) => Some(ChatTemplate::new(text, tokenizer.special_tokens().clone())?),
        (None, None) => ChatTemplate::for_tokenizer(&tokenizer)?,
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
