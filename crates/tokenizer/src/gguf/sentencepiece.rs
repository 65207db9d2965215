//! The `llama` kind: SentencePiece BPE with scores and byte fallback.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{GgufVocab, added_tokens, post_processor, vocab_map};
use crate::{Result, TokenizerError};

/// SentencePiece's spelling of a space.
pub(super) const SPACE: char = '▁';

/// The `tokenizer.json` that transformers makes of such a vocabulary.
pub(super) fn tokenizer_json(vocab: &GgufVocab) -> Result<Value> {
    let scores = vocab.scores.as_deref().ok_or(TokenizerError::GgufLength {
        field: "scores",
        got: 0,
        expected: vocab.tokens.len(),
    })?;
    let space = SPACE.to_string();
    let add_space_prefix = vocab.add_space_prefix.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": space});
    let prepend = json!({"type": "Prepend", "prepend": space});
    let normalizers = if add_space_prefix { vec![prepend, replace] } else { vec![replace] };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": space}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if add_space_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(vocab),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": post_processor(vocab, true)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "byte_fallback": true, "fuse_unk": true,
            "unk_token": vocab.named("unknown_token_id", vocab.unk_token_id)?,
            "vocab": vocab_map(vocab), "merges": merges(&vocab.tokens, scores),
        },
    }))
}

/// Every way to put a token together from two others, the best score first.
/// Ties go to the longer left part, then to the longer right part.
fn merges(tokens: &[String], scores: &[f32]) -> Vec<[String; 2]> {
    let ids: HashMap<&str, usize> =
        tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let known = |(left, right)| Some((*ids.get(left)?, *ids.get(right)?));
        let mut pairs: Vec<(usize, usize)> = cuts.filter_map(known).collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(left, right)| (score, left, right)));
    }
    let len = |id: usize| tokens[id].chars().count();
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0).then(len(b.1).cmp(&len(a.1))).then(len(b.2).cmp(&len(a.2)))
    });
    let text = |id: usize| tokens[id].clone();
    merges.into_iter().map(|(_, left, right)| [text(left), text(right)]).collect()
}
