//! Byte-level BPE from `vocab.json` and `merges.txt`.
//!
//! Upstream: `GPT2Tokenizer` and `Qwen2Tokenizer` of transformers.

use serde_json::{Map, Value, json};

use crate::{
    SpecialTokens,
    split_patterns::{GPT2, QWEN2, byte_level, isolated},
    text_encoder::Vocabulary,
};

/// What is wrong with `merges.txt`.
pub(crate) enum MergesError {
    /// A line, counted from 1.
    Line(usize),
    /// How text is split is not known for this `tokenizer_class`.
    Class(String),
}

/// The vocabulary of `vocab.json` and the text of `merges.txt`. `config` is
/// `tokenizer_config.json`.
pub(crate) fn read(
    vocab: &Map<String, Value>,
    merges: &str,
    config: &Map<String, Value>,
) -> Result<Vocabulary, MergesError> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or("GPT2Tokenizer");
    let (pattern, composes) = match class.strip_suffix("Fast").unwrap_or(class) {
        "GPT2Tokenizer" => (GPT2, false),
        "Qwen2Tokenizer" => (QWEN2, true),
        _ => return Err(MergesError::Class(class.to_owned())),
    };
    let mut pairs = Vec::new();
    for (line, number) in merges.lines().zip(1..) {
        if line.is_empty() || (number == 1 && line.starts_with("#version")) {
            continue;
        }
        let pair = line.split_once(' ').filter(|(left, right)| {
            let merged = [*left, *right].concat();
            [*left, *right, &merged].iter().all(|token| vocab.contains_key(*token))
        });
        let (left, right) = pair.ok_or(MergesError::Line(number))?;
        pairs.push([left, right]);
    }
    let add_prefix_space = config.get("add_prefix_space").and_then(Value::as_bool);
    let steps = [isolated(pattern), byte_level(add_prefix_space.unwrap_or(false))];
    let json = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": if composes { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": pairs},
    });
    let mut roles = SpecialTokens::default();
    if vocab.contains_key("<|endoftext|>") {
        roles.set("eos_token", "<|endoftext|>");
    }
    Ok(Vocabulary { json: json.to_string(), roles, encoder: None })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::{Tokenizer, testing};

    /// The vocabulary of a GGUF file in the two files.
    fn load(config: &str, last_merge: &str) -> Result<Tokenizer, String> {
        let dir = tempfile::tempdir().unwrap();
        let vocab = testing::byte_level_vocab();
        let ids: serde_json::Map<_, _> =
            vocab.tokens.iter().cloned().zip((0..).map(serde_json::Value::from)).collect();
        let merges = format!("#version: 0.2\n{}\n{last_merge}", vocab.merges.join("\n"));
        let write = |name, text: String| fs::write(dir.path().join(name), text).unwrap();
        write("vocab.json", serde_json::Value::Object(ids).to_string());
        write("merges.txt", merges);
        write("tokenizer_config.json", config.to_owned());
        Tokenizer::from_dir(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn encodes_like_the_same_vocabulary_of_a_gguf_file() {
        let mut vocab = testing::byte_level_vocab();
        for (class, pre) in [("Qwen2Tokenizer", "qwen2"), ("GPT2TokenizerFast", "gpt-2")] {
            let config = format!(
                r#"{{"tokenizer_class": "{class}", "eos_token": "<|im_end|>",
                    "additional_special_tokens": ["<|im_start|>"]}}"#
            );
            let tokenizer = load(&config, "").unwrap();
            vocab.pre = Some(pre.to_owned());
            let other = Tokenizer::from_gguf(&vocab).unwrap();
            let text = "<|im_start|>in the 12 e\u{301}IN'S  \n<|im_end|>";
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(ids, other.encode(text, true).unwrap());
            assert_eq!(tokenizer.decode(&ids, false), other.decode(&ids, false));
        }
    }

    #[test]
    fn broken_merges_are_refused_by_line() {
        let last = testing::byte_level_vocab().merges.len() + 2;
        for line in ["a", "a b c", "a \u{4E00}"] {
            let error = load("{}", line).unwrap_err();
            let expected = format!("merges.txt, line {last}: not two tokens that make a third");
            assert!(error.ends_with(&expected), "{error}");
        }
        let error = load(r#"{"tokenizer_class": "CodeGenTokenizer"}"#, "").unwrap_err();
        assert!(error.contains("CodeGenTokenizer"), "{error}");
    }
}
