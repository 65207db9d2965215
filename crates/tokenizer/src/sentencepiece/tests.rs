//! A small model of each kind against what SentencePiece gave, and broken files.

use std::fs;

use super::*;
use crate::{Result, Tokenizer, text_encoder::TextEncoder as _};

const BPE: &[u8] = include_bytes!("../../testdata/sentencepiece/bpe.model");
const BPE_GOLDEN: &str = include_str!("../../testdata/sentencepiece/bpe.json");
/// With a character map, without byte fallback.
const UNIGRAM: &[u8] = include_bytes!("../../testdata/sentencepiece/unigram.model");
const UNIGRAM_GOLDEN: &str = include_str!("../../testdata/sentencepiece/unigram.json");
/// With byte fallback, without the space in front.
const UNIGRAM_BYTES: &[u8] = include_bytes!("../../testdata/sentencepiece/unigram_bytes.model");
const UNIGRAM_BYTES_GOLDEN: &str = include_str!("../../testdata/sentencepiece/unigram_bytes.json");

fn load(model: &[u8], config: &str) -> Result<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.model"), model).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    Tokenizer::from_dir(dir.path())
}

/// Ids by Python's `sentencepiece`, of strings without added tokens.
#[test]
fn bpe_encodes_and_decodes_like_sentencepiece() {
    let tokenizer = load(BPE, "{}").unwrap();
    let cases: Vec<(String, Vec<TokenId>)> = serde_json::from_str(BPE_GOLDEN).unwrap();
    assert_eq!(cases.len(), 200);
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode(&text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
}

/// As above; texts with user-defined pieces, and texts of the tokens.
#[test]
fn unigram_encodes_and_decodes_like_sentencepiece() {
    for (model, golden) in [(UNIGRAM, UNIGRAM_GOLDEN), (UNIGRAM_BYTES, UNIGRAM_BYTES_GOLDEN)] {
        let tokenizer = load(model, r#"{"tokenizer_class": "T5Tokenizer"}"#).unwrap();
        let model = Model::parse(model).unwrap();
        let encoder = Encoder::new(&model, PrefixSpace::Always).unwrap();
        let cases: Vec<(String, Vec<TokenId>, Option<String>)> =
            serde_json::from_str(golden).unwrap();
        assert_eq!(cases.len(), 150);
        for (text, ids, decoded) in cases {
            let mut got = Vec::new();
            encoder.encode(&text, true, &mut got);
            assert_eq!(got, ids, "{text:?}");
            if let Some(decoded) = decoded {
                assert_eq!(tokenizer.decode(&ids, true), decoded);
            }
        }
    }
}

#[test]
fn added_tokens_are_found_in_the_text() {
    let tokenizer = load(UNIGRAM_BYTES, "{}").unwrap();
    assert_eq!(tokenizer.encode("<s>the</s>", false).unwrap()[0], 1);
    let ids = tokenizer.encode("the </s>the", true).unwrap();
    assert_eq!((ids[0], tokenizer.decode(&ids, true).as_str()), (1, "the the"));
    let added = r#"{"tokenizer_class": "T5Tokenizer", "added_tokens_decoder": {"400": {
        "content": "<extra_id_0>", "special": true, "lstrip": false, "rstrip": false,
        "single_word": false, "normalized": false}}}"#;
    let tokenizer = load(UNIGRAM_BYTES, added).unwrap();
    assert_eq!(tokenizer.encode("<extra_id_0>", true).unwrap(), [1, 400, 2]);
}

#[test]
fn the_space_in_front_goes_by_legacy_and_add_prefix_space() {
    let pieces = |config: &str, text: &str| {
        let tokenizer = load(BPE, config).unwrap();
        let ids = tokenizer.encode(text, false).unwrap();
        ids.into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect::<Vec<_>>().join("|")
    };
    let text = "a<s>a<tool>a</s> a";
    let old = "▁a|<s>|▁a|<tool>|a|</s>|▁|▁a";
    let new = "▁a|<s>|a|<tool>|a|</s>|▁a";
    assert_eq!(pieces("{}", text), old);
    assert_eq!(pieces(r#"{"legacy": false}"#, text), new);
    assert_eq!(pieces(r#"{"tokenizer_class": "LlamaTokenizer"}"#, text), new);
    assert_eq!(pieces(r#"{"tokenizer_class": "LlamaTokenizer", "legacy": true}"#, text), old);
    let never = r#"{"add_prefix_space": false}"#;
    assert_eq!(pieces(never, text), new.replacen("▁a", "a", 1));
    assert_eq!(pieces(r#"{"legacy": false}"#, " a"), "▁a");
    assert_eq!(pieces("{}", " a"), "▁|▁a");
    // Nothing is taken off a text that got nothing.
    let tokenizer = load(BPE, never).unwrap();
    let ids = tokenizer.encode(" a", false).unwrap();
    assert_eq!(tokenizer.decode(&ids, true), " a");
}

#[test]
fn roles_come_from_the_model_and_bos_from_the_config() {
    let tokenizer = load(BPE, r#"{"add_bos_token": false, "add_eos_token": true}"#).unwrap();
    assert_eq!(tokenizer.bos_token_id(), Some(1));
    assert_eq!(tokenizer.eos_token_id(), Some(2));
    let plain = tokenizer.encode("a", false).unwrap();
    assert_eq!(tokenizer.encode("a", true).unwrap(), [plain.clone(), vec![2]].concat());
    let tokenizer = load(BPE, "{}").unwrap();
    assert_eq!(tokenizer.encode("a", true).unwrap(), [vec![1], plain].concat());
    // A literal "▁" is three bytes that become one.
    let longest = "▁".repeat(100);
    let ids = tokenizer.encode(&longest, false).unwrap();
    assert!(tokenizer.fewest_tokens(longest.len()) > 0);
    assert!(ids.len() >= tokenizer.fewest_tokens(longest.len()));
}

#[test]
fn cut_off_files_are_errors() {
    for model in [BPE, UNIGRAM] {
        for len in [0, 1, 7, model.len() / 2, model.len() - 1] {
            assert!(load(&model[..len], "{}").is_err(), "{len}");
        }
    }
    let error = load(&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], "{}").unwrap_err();
    assert!(error.to_string().contains("tokenizer.model"), "{error}");
}

/// Every byte of a model changed in turn: an error or a tokenizer, no panic.
#[test]
fn damaged_models_do_no_harm() {
    for at in (0..UNIGRAM.len()).step_by(3) {
        let mut model = UNIGRAM.to_vec();
        model[at] ^= 0xFF;
        let Ok(model) = Model::parse(&model) else { continue };
        let Ok(encoder) = Encoder::new(&model, PrefixSpace::Always) else { continue };
        encoder.encode("the ﬁ\te\u{301}\u{323} カ\u{3099}<tool>", true, &mut Vec::new());
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value as u64)].concat()
}

fn message(field: u64, body: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(body.len() as u64), body.to_vec()].concat()
}

fn piece(text: &str, kind: i64) -> Vec<u8> {
    message(1, &[message(1, text.as_bytes()), number(3, kind)].concat())
}

/// One unknown piece, `rest`, and a trainer with `settings` and no BOS or EOS.
fn error_of(rest: &[u8], settings: &[u8]) -> String {
    let trainer = [&number(41, -1)[..], &number(42, -1), settings].concat();
    let bytes = [&piece("<unk>", 2), rest, &message(2, &trainer)].concat();
    let model = Model::parse(&bytes);
    model.and_then(|model| Encoder::new(&model, PrefixSpace::Always)).unwrap_err().to_string()
}

#[test]
fn what_is_not_followed_is_refused_by_name() {
    let settings = |settings: &[u8]| error_of(&[], settings);
    assert!(settings(&number(3, 3)).starts_with("a word or character model is not supported"));
    assert!(settings(&number(24, 1)).starts_with("treat_whitespace_as_suffix"));
    assert_eq!(settings(&number(41, 7)), "bos_id is 7, the vocabulary has 1 tokens");
    assert!(settings(&number(35, 1)).ends_with("no piece stands for byte 0x00"));
    let map = message(2, &[0]);
    assert_eq!(error_of(&message(3, &map), &[]), "precompiled_charsmap: it is cut off");
    assert!(error_of(&message(5, &map), &[]).starts_with("a character map for decoding"));
    assert!(error_of(&piece("a", 5), &number(3, 2)).starts_with("an unused BPE piece"));
    assert_eq!(error_of(&piece("<unk>", 1), &[]), "piece 1 is not valid");
    assert_eq!(error_of(&piece("a", 7), &[]), "piece 1 is not valid");
    assert_eq!(error_of(&piece("<0xZZ>", 6), &number(35, 1)), "piece 1 is not valid");
    assert_eq!(error_of(&piece("b", 2), &[]), "the model needs one unknown piece");
}
