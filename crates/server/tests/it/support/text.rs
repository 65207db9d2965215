//! A tokenizer whose tokens are bytes: id 65 is `A`, and four special tokens
//! follow the 256 bytes. So any text can be cut anywhere.

use serde_json::{Map, Value, json};
use tokenizer::{ChatTemplate, Tokenizer};
use types::TokenId;

pub(crate) const SPECIAL: [&str; 4] = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];

const TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}\n{% endif %}\
    {% if reasoning_effort %}{{ reasoning_effort }} effort\n{% endif %}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
    {% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}\
    <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

pub(crate) fn tokenizer() -> Tokenizer {
    tokenizer_with(SPECIAL)
}

/// With these tokens after the 256 bytes.
pub(crate) fn tokenizer_with(added: [&str; 4]) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer_json(added).to_string()).unwrap();
    let config = json!({"bos_token": SPECIAL[0], "eos_token": SPECIAL[1]});
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_dir(dir.path()).unwrap()
}

pub(crate) fn chat_template() -> ChatTemplate {
    ChatTemplate::new(TEMPLATE, tokenizer().special_tokens().clone()).unwrap()
}

pub(crate) fn bytes_as_ids(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

fn tokenizer_json(added: [&str; 4]) -> Value {
    let vocab: Map<String, Value> =
        (0..=255).map(|byte| (byte_char(byte).to_string(), json!(byte))).collect();
    let added: Vec<Value> = added
        .iter()
        .enumerate()
        .map(|(i, content)| {
            json!({"id": 256 + i, "content": content, "special": true, "single_word": false,
                   "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let sequence = |name, text| json!({"Sequence": {"id": name, "type_id": text}});
    let pairs = json!({"type": "TemplateProcessing", "single": [sequence("A", 0)],
                       "pair": [sequence("A", 0), sequence("B", 1)], "special_tokens": {}});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "post_processor": pairs,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    })
}

/// The printable stand-in that byte-level vocabularies spell a byte with.
fn byte_char(byte: u8) -> char {
    let is_printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !is_printable(b)).count() as u32;
    char::from_u32(256 + rank).unwrap()
}
