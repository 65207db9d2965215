//! BERT's tokenizer from `vocab.txt`, a line for every token.
//!
//! Upstream: `BertTokenizer` of transformers.

use rustc_hash::FxHashSet;
use serde_json::{Map, Value, json};
use types::TokenId;

use crate::{SpecialTokens, post_processor, text_encoder::Vocabulary};

/// The tokens with a role, unless `tokenizer_config.json` names others.
const ROLES: [(&str, &str); 5] = [
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// The vocabulary in `text`. `config` is `tokenizer_config.json`, `named` the
/// tokens with a role by it. The error is a line, counted from 1, and what is
/// wrong with it.
pub(crate) fn read(
    text: &str,
    config: &Map<String, Value>,
    named: &SpecialTokens,
) -> Result<Vocabulary, (usize, String)> {
    let mut seen = FxHashSet::default();
    let tokens: Vec<&str> = text.lines().map(str::trim_end).collect();
    if let Some(at) = tokens.iter().position(|token| !seen.insert(*token)) {
        return Err((at + 1, format!("token {:?} is there twice", tokens[at])));
    }
    let mut roles = SpecialTokens::default();
    let mut special = Vec::new();
    for (role, default) in ROLES {
        let token = named.get(role).unwrap_or(default);
        let id = tokens.iter().position(|&known| known == token);
        // Text cannot do without three of them, training with the mask.
        let Some(id) = id else {
            match role {
                "pad_token" | "mask_token" => continue,
                _ => return Err((tokens.len(), format!("there is no {role} {token:?}"))),
            }
        };
        roles.set(role, token);
        special.push((role, token, id as TokenId));
    }
    let around = |role| {
        special.iter().find(|(other, ..)| *other == role).map(|(_, token, id)| (*token, *id))
    };
    let (before, after) = (around("cls_token"), around("sep_token"));
    let added: Vec<_> = special
        .iter()
        .map(|(_, token, id)| {
            json!({"id": id, "content": token, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let flag = |name| config.get(name).and_then(Value::as_bool);
    let vocab: Map<String, Value> = tokens
        .iter()
        .zip(0 as TokenId..)
        .map(|(&token, id)| (token.to_owned(), json!(id)))
        .collect();
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": flag("strip_accents"),
            "lowercase": flag("do_lower_case").unwrap_or(true)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": post_processor::around(before.as_slice(), after.as_slice()),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": roles.get("unk_token"),
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
    });
    Ok(Vocabulary { json: json.to_string(), roles, encoder: None })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::Tokenizer;

    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ntoken\n##s\n.\n世\nÉté\nete\n";

    fn load(vocab: &str, config: &str) -> Result<Tokenizer, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vocab.txt"), vocab).unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::from_dir(dir.path()).map_err(|error| error.to_string())
    }

    /// Ids by transformers' `BertTokenizer`.
    #[test]
    fn encodes_like_bert() {
        let tokenizer = load(VOCAB, "{}").unwrap();
        let text = "The tokens. 世Été [MASK] other";
        assert_eq!(tokenizer.encode(text, true).unwrap(), [2, 5, 6, 7, 8, 9, 11, 4, 1, 3]);
        assert_eq!(tokenizer.decode(&[2, 5, 6, 7, 8, 3], true), "the tokens.");
        assert_eq!(tokenizer.pad_token_id(), Some(0));
        let cased = r#"{"do_lower_case": false, "tokenize_chinese_chars": false}"#;
        let tokenizer = load(VOCAB, cased).unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap(), [1, 6, 7, 8, 1, 4, 1]);
        assert_eq!(tokenizer.encode("Été the", false).unwrap(), [10, 5]);
    }

    #[test]
    fn broken_lists_are_refused_by_line() {
        let error = |vocab: &str| load(vocab, "{}").unwrap_err();
        assert!(
            error(&format!("{VOCAB}the\n")).ends_with(r#"line 13: token "the" is there twice"#)
        );
        let error = error("[PAD]\n[UNK]\n");
        assert!(error.ends_with(r#"vocab.txt, line 2: there is no sep_token "[SEP]""#), "{error}");
    }
}
