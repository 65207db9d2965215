//! A small file read as each family's against what tiktoken gave, and broken
//! files.

use std::{collections::HashMap, fs};

use super::*;
use crate::{Result, Tokenizer, TokenizerError};

const RANKS: &str = include_str!("../../testdata/tiktoken/small.tiktoken");
const GOLDEN: &str = include_str!("../../testdata/tiktoken/small.json");
const BASE: TokenId = 420;

fn load(file: &str, ranks: &str, config: &Value) -> Result<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(file), ranks).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_dir(dir.path())
}

fn kimi_config() -> Value {
    let token = |content, special| {
        json!({"content": content, "special": special, "lstrip": false,
        "rstrip": false, "single_word": false, "normalized": false})
    };
    json!({"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": {
        "420": token("[BOS]", true), "421": token("[EOS]", true),
        "422": token("<|im_end|>", true), "430": token("<think>", false)}})
}

/// File, configuration and the ids that go before every text.
fn family(name: &str) -> (&'static str, Value, Vec<TokenId>) {
    match name {
        "glm" => {
            ("tokenizer.model", json!({"tokenizer_class": "ChatGLM4Tokenizer"}), vec![422, 424])
        }
        "hunyuan" => ("hy.tiktoken", json!({}), vec![]),
        "kimi" => ("tiktoken.model", kimi_config(), vec![]),
        "llama3" => ("tokenizer.model", json!({}), vec![420]),
        _ => ("qwen.tiktoken", json!({"tokenizer_class": "QWenTokenizer"}), vec![]),
    }
}

/// Ids by Python's `tiktoken`.
#[test]
fn every_family_encodes_like_tiktoken() {
    let golden: HashMap<String, Vec<(String, Vec<TokenId>)>> =
        serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(golden.len(), 5);
    for (name, cases) in golden {
        let (file, config, before) = family(&name);
        let tokenizer = load(file, RANKS, &config).unwrap();
        assert_eq!(cases.len(), 60);
        for (text, ids) in cases {
            assert_eq!(tokenizer.encode(&text, false).unwrap(), ids, "{name}: {text:?}");
            let with_tokens = [before.clone(), ids.clone()].concat();
            assert_eq!(tokenizer.encode(&text, true).unwrap(), with_tokens);
            // Qwen and Hunyuan compose.
            if !matches!(name.as_str(), "qwen" | "hunyuan") {
                assert_eq!(tokenizer.decode(&ids, false), text);
            }
        }
    }
}

#[test]
fn special_tokens_are_the_familys_unless_the_config_names_others() {
    let (file, config, _) = family("kimi");
    let tokenizer = load(file, RANKS, &config).unwrap();
    assert_eq!((tokenizer.bos_token_id(), tokenizer.eos_token_id()), (Some(420), Some(421)));
    let ids = tokenizer.encode("<|reserved_token_423|><think><|im_end|>", false).unwrap();
    assert_eq!(ids, [423, 430, 422]);
    assert_eq!(tokenizer.decode(&ids, true), "<think>");
    assert_eq!(tokenizer.vocab_size(), 420 + 258);
    let tokenizer = load("tokenizer.model", RANKS, &json!({})).unwrap();
    assert_eq!(tokenizer.token_to_id("<|eot_id|>"), Some(BASE + 9));
    assert_eq!(tokenizer.vocab_size(), 420 + 256);
    let config = json!({"add_bos_token": false, "add_eos_token": true, "eos_token": "<|eot_id|>"});
    let tokenizer = load("tokenizer.model", RANKS, &config).unwrap();
    assert_eq!(tokenizer.encode("<|eom_id|>", true).unwrap(), [BASE + 8, BASE + 9]);
    assert_eq!(tokenizer.token_bytes(BASE - 1), tokenizer.decode(&[BASE - 1], true).as_bytes());
}

#[test]
fn hunyuans_ranks_are_its_lines() {
    let doubled: String = RANKS.lines().flat_map(|line| [line, "\n", line, "\n"]).collect();
    let (tokenizer, other) = (
        load("hy.tiktoken", &doubled, &json!({})).unwrap(),
        load("hy.tiktoken", RANKS, &json!({})).unwrap(),
    );
    let text = "the server<|eos|>";
    assert_eq!(tokenizer.encode(text, true).unwrap(), other.encode(text, true).unwrap());
    assert_eq!(tokenizer.vocab_size(), other.vocab_size());
}

#[test]
fn broken_files_are_errors_that_name_the_line() {
    let error = |ranks: &str| {
        let error = load("qwen.tiktoken", ranks, &json!({})).unwrap_err().to_string();
        let (file, reason) = error.split_once(": ").unwrap();
        assert!(file.starts_with("cannot use ") && file.ends_with("qwen.tiktoken"), "{error}");
        reason.to_owned()
    };
    let with = |line: &str| error(&format!("{RANKS}{line}\n"));
    assert_eq!(with("YWFhYQ=="), "line 421: not a token and a rank");
    assert_eq!(with("YWFhYQ== 420 1"), "line 421: not a token and a rank");
    assert_eq!(with("YWFhYQ= 420"), "line 421: the token is not base64");
    assert_eq!(with("== 420"), "line 421: the token is not base64");
    assert_eq!(with("YWFhYQ== -1"), "line 421: the rank is not a number");
    assert_eq!(with("YWFhYQ== 99999999999999999999"), "line 421: the rank is not a number");
    assert_eq!(with("YWFhYQ== 4000000000"), "line 421: a rank below this one is missing");
    assert_eq!(with("YWFhYQ== 419"), "line 421: the rank is there twice");
    assert_eq!(with("IQ== 420"), "line 421: the token is there twice");
    let long = STANDARD.encode([b'a'; MAX_TOKEN_BYTES + 1]);
    assert_eq!(with(&format!("{long} 420")), "line 421: the token is empty or too long");
    assert_eq!(error("IQ== 0\n"), "no token stands for byte 0x00");
    let late = RANKS.replacen(" 0\n", " 420\n", 1);
    assert_eq!(error(&late), "line 2: a rank below this one is missing");
}

#[test]
fn what_the_family_lacks_is_named() {
    let error = |file, config| load(file, RANKS, &config).unwrap_err();
    let kimi = error("tiktoken.model", json!({})).to_string();
    assert!(kimi.ends_with("Kimi needs added_tokens_decoder in tokenizer_config.json"), "{kimi}");
    let unknown = error("other.tiktoken", json!({})).to_string();
    assert!(unknown.contains("known for GLM-4, Hunyuan, Kimi, Llama 3, Qwen"), "{unknown}");
    let bos = error("qwen.tiktoken", json!({"add_bos_token": true})).to_string();
    assert!(bos.contains("token 'bos_token' goes around every text"), "{bos}");
    let token = json!({"added_tokens_decoder": {"420": {"content": "<a>"}}});
    assert!(
        matches!(error("qwen.tiktoken", token), TokenizerError::AddedToken { id, .. } if id == "420")
    );
}
