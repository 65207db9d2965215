//! How few tokens a text can be, without encoding it.
//!
//! Encoding takes some hundred bytes of memory per byte of text, so text that
//! cannot fit the context anyway had better not be encoded.

use serde_json::Value;

use crate::{detokenizer::Detokenizer, text_encoder::OwnEncoder};

/// Composing (NFC) shortens UTF-8 to a third at most.
const NFC_SHRINKS: usize = 3;

/// A text may spell out the three bytes that stand for a space.
const SPELT_OUT_SPACE_SHRINKS: usize = 3;

/// The most bytes of text that one token can stand for, or `None` if there is
/// no such limit: the normalizer drops text, or a token swallows the spaces
/// around it.
pub(crate) fn max_text_bytes_per_token(
    library: &tokenizers::Tokenizer,
    encoder: Option<&OwnEncoder>,
    detokenizer: &Detokenizer,
) -> Option<usize> {
    let swallows =
        library.get_added_tokens_decoder().values().any(|token| token.lstrip || token.rstrip);
    if swallows || !detokenizer.spells_all_bytes() {
        return None;
    }
    let normalizer_shrinks = match library.get_normalizer() {
        None => 1,
        Some(normalizer) => shrinking(&serde_json::to_value(normalizer).ok()?)?,
    };
    let encoder_shrinks = encoder.map_or(Some(1), |encoder| encoder.text.shrinks())?;
    let shrinks = normalizer_shrinks * encoder_shrinks;
    let longest = (0..detokenizer.vocab_size()).map(|id| detokenizer.token_bytes(id as u32).len());
    longest.max().map(|bytes| bytes.max(1) * shrinks)
}

/// By how much a normalizer can shorten a text.
fn shrinking(normalizer: &Value) -> Option<usize> {
    match normalizer["type"].as_str()? {
        "NFC" => Some(NFC_SHRINKS),
        "Prepend" => Some(1),
        "Replace" if normalizer["pattern"]["String"] == " " && normalizer["content"] == "▁" => {
            Some(SPELT_OUT_SPACE_SHRINKS)
        }
        "Sequence" => normalizer["normalizers"].as_array()?.iter().map(shrinking).product(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Tokenizer, testing};

    #[test]
    fn no_text_is_fewer_tokens_than_said() {
        let mut nfc = testing::byte_level_vocab();
        nfc.pre = Some("qwen2".into());
        let nfc = Tokenizer::from_gguf(&nfc).unwrap();
        // "<|endoftext|>" and "<|im_start|>": 13 and 12 bytes.
        for (tokenizer, expected) in
            [(testing::byte_level(), 100), (testing::sentencepiece(), 73), (nfc, 34)]
        {
            assert_eq!(tokenizer.fewest_tokens(1300), expected);
            for text in
                ["<|endoftext|>", "▁hello", " hello", "a\u{301}", "\u{1100}\u{1161}\u{11A8}", "é"]
            {
                let text = text.repeat(50);
                let ids = tokenizer.encode(&text, false).unwrap();
                assert!(ids.len() >= tokenizer.fewest_tokens(text.len()), "{text}");
            }
        }
        assert_eq!(testing::byte_level().fewest_tokens(0), 0);
        assert_eq!(testing::byte_level().fewest_tokens(1), 1);
    }

    #[test]
    fn a_token_that_swallows_spaces_lifts_the_limit() {
        let mut json = crate::gguf::tokenizer_json(&testing::byte_level_vocab()).unwrap();
        json["added_tokens"][0]["rstrip"] = true.into();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().fewest_tokens(1300), 0);
    }
}
