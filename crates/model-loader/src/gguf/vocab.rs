//! The tokenizer that a GGUF file carries.

use tokenizer::GgufVocab;

use super::{
    metadata::{Metadata, list},
    reader::GgufValue,
};
use crate::FileProblem;

/// Moves the vocabulary out of the metadata.
pub(super) fn vocab(metadata: &mut Metadata) -> Result<GgufVocab, FileProblem> {
    let string = |value| match value {
        GgufValue::String(text) => Some(text),
        _ => None,
    };
    let int = |value| match value {
        GgufValue::Int(value) => i32::try_from(value).ok(),
        _ => None,
    };
    let float = |value| match value {
        GgufValue::Float(value) => Some(value as f32),
        _ => None,
    };
    let mut take = |key: &'static str| (key, metadata.remove(key));
    let (tokens, types) = (take("tokenizer.ggml.tokens"), take("tokenizer.ggml.token_type"));
    let (scores, merges) = (take("tokenizer.ggml.scores"), take("tokenizer.ggml.merges"));
    let tokens = list(tokens.0, tokens.1, string)?
        .ok_or_else(|| FileProblem::metadata(tokens.0, "is missing"))?;
    let model = metadata.optional_str("tokenizer.ggml.model")?;
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(GgufVocab {
        model: owned(model)
            .ok_or_else(|| FileProblem::metadata("tokenizer.ggml.model", "is missing"))?,
        pre: owned(metadata.optional_str("tokenizer.ggml.pre")?),
        tokens,
        token_types: list(types.0, types.1, int)?.unwrap_or_default(),
        scores: list(scores.0, scores.1, float)?,
        merges: list(merges.0, merges.1, string)?.unwrap_or_default(),
        bos_token_id: metadata.optional_u32("tokenizer.ggml.bos_token_id")?,
        eos_token_id: metadata.optional_u32("tokenizer.ggml.eos_token_id")?,
        unk_token_id: metadata.optional_u32("tokenizer.ggml.unknown_token_id")?,
        pad_token_id: metadata.optional_u32("tokenizer.ggml.padding_token_id")?,
        add_bos: metadata.optional_bool("tokenizer.ggml.add_bos_token")?,
        add_eos: metadata.optional_bool("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: metadata.optional_bool("tokenizer.ggml.add_space_prefix")?,
        chat_templates: chat_templates(metadata)?,
    })
}

/// All templates by name. `tokenizer.chat_templates`, which lists the names, says no more.
fn chat_templates(metadata: &Metadata) -> Result<Vec<(String, String)>, FileProblem> {
    const KEY: &str = "tokenizer.chat_template";
    let mut templates = Vec::new();
    for key in metadata.keys().filter(|key| key.starts_with(KEY)) {
        let name = match key[KEY.len()..].strip_prefix('.') {
            Some(name) => name,
            None if key == KEY => "default",
            None => continue,
        };
        let text = metadata.optional_str(key)?.unwrap_or_default();
        templates.push((name.to_owned(), text.to_owned()));
    }
    Ok(templates)
}
