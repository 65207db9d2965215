//! A small model of each kind against what SentencePiece gave, and broken files.

use std::fs;

use super::*;
use crate::Tokenizer;

const MODEL: &[u8] = include_bytes!("../../testdata/sentencepiece/bpe.model");
const GOLDEN: &str = include_str!("../../testdata/sentencepiece/bpe.json");

fn load(model: &[u8], config: &str) -> Result<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.model"), model).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    Tokenizer::from_dir(dir.path())
}

/// Ids by Python's `sentencepiece`, of strings without added tokens.
#[test]
fn bpe_encodes_and_decodes_like_sentencepiece() {
    let tokenizer = load(MODEL, "{}").unwrap();
    let cases: Vec<(String, Vec<TokenId>)> = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(cases.len(), 200);
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode(&text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
}

#[test]
fn roles_come_from_the_model_and_bos_from_the_config() {
    let tokenizer = load(MODEL, r#"{"add_bos_token": false, "add_eos_token": true}"#).unwrap();
    assert_eq!(tokenizer.bos_token_id(), Some(1));
    assert_eq!(tokenizer.eos_token_id(), Some(2));
    let plain = tokenizer.encode("a", false).unwrap();
    assert_eq!(tokenizer.encode("a", true).unwrap(), [plain.clone(), vec![2]].concat());
    let tokenizer = load(MODEL, "{}").unwrap();
    assert_eq!(tokenizer.encode("a", true).unwrap(), [vec![1], plain].concat());
}

#[test]
fn cut_off_files_are_errors() {
    for len in [0, 1, 7, MODEL.len() / 2, MODEL.len() - 1] {
        assert!(load(&MODEL[..len], "{}").is_err(), "{len}");
    }
    let error = load(&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], "{}").unwrap_err();
    assert!(error.to_string().contains("tokenizer.model"), "{error}");
}

#[test]
fn what_is_not_followed_is_refused_by_name() {
    // One piece "a", then settings of the trainer or the normalizer.
    let error =
        |rest: &[u8]| parse(&[&[0x0A, 3, 0x0A, 1, b'a'], rest].concat()).unwrap_err().to_string();
    assert!(error(&[]).contains("Unigram"));
    assert!(error(&[0x12, 2, 0x18, 2]).contains("byte fallback"));
    assert!(error(&[0x12, 5, 0x18, 2, 0x98, 2, 1]).contains("bos_id is 1"));
    let mapped = error(&[0x0A, 3, 0x0A, 1, b'a']);
    assert_eq!(mapped, "piece 1 is not valid");
    assert!(read_normalizer(&[0x12, 1, 0]).unwrap_err().to_string().contains("character map"));
    assert!(read_normalizer(&[]).unwrap_err().to_string().contains("remove_extra_whitespaces"));
    assert!(!read_normalizer(&[0x20, 0, 0x18, 0]).unwrap());
}
