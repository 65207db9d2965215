//! Streamed text against the text of all tokens.

use proptest::prelude::*;

use super::*;
use crate::testing;

fn streamed(tokenizer: &Tokenizer, ids: &[TokenId], sizes: &[usize], skip: bool) -> Vec<String> {
    let mut decoder = IncrementalDecoder::new(tokenizer, skip);
    let mut pieces = Vec::new();
    let (mut rest, mut sizes) = (ids, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |&size| size.min(rest.len()));
        let (now, later) = rest.split_at(size);
        pieces.push(decoder.push(now).to_owned());
        rest = later;
    }
    pieces.push(decoder.flush().to_owned());
    pieces
}

/// The text of tokens by definition: all bytes first, then UTF-8.
fn whole_text(tokenizer: &Tokenizer, ids: &[TokenId], skip: bool) -> String {
    let shown = |id: &&TokenId| !(skip && tokenizer.is_special(**id));
    let bytes: Vec<u8> =
        ids.iter().filter(shown).flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
    let strips = tokenizer.detokenizer().leading() == Leading::StripSpaces(1);
    let bytes = bytes.strip_prefix(b" ").filter(|_| strips).unwrap_or(&bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ids of single bytes in the small vocabularies.
fn bytes(tokenizer: &Tokenizer, text: &[u8]) -> Vec<TokenId> {
    let first = if tokenizer.token_to_id("<0x00>").is_some() { 3 } else { 4 };
    text.iter().map(|&byte| first + TokenId::from(byte)).collect()
}

#[test]
fn characters_come_with_their_last_byte() {
    for tokenizer in [testing::byte_level(), testing::sentencepiece()] {
        let ids = bytes(&tokenizer, "é😀.".as_bytes());
        assert_eq!(streamed(&tokenizer, &ids, &[1], true), ["", "é", "", "", "", "😀", ".", ""]);
        assert_eq!(streamed(&tokenizer, &ids, &[3], true), ["é", "😀", ".", ""]);
    }
}

#[test]
fn invalid_bytes_come_once_they_are_certain() {
    for tokenizer in [testing::byte_level(), testing::sentencepiece()] {
        let pieces = |text: &[u8]| streamed(&tokenizer, &bytes(&tokenizer, text), &[1], true);
        assert_eq!(pieces(b"\xFFa"), ["\u{FFFD}", "a", ""]);
        assert_eq!(pieces(b"\xF0\x9F\x98a"), ["", "", "", "\u{FFFD}a", ""]);
        assert_eq!(pieces(b"\xF0\x9F"), ["", "", "\u{FFFD}"]);
        // A replacement character that the model spelt out is text.
        assert_eq!(pieces("\u{FFFD}!".as_bytes()), ["", "", "\u{FFFD}", "!", ""]);
    }
}

#[test]
fn only_the_beginning_of_a_text_loses_its_space() {
    let tokenizer = testing::sentencepiece();
    let ids = ["<s>", "▁hello", "▁the", "<tool>", "▁he"]
        .map(|token| tokenizer.token_to_id(token).unwrap());
    assert_eq!(streamed(&tokenizer, &ids, &[1], true), ["", "hello", " the", "<tool>", " he", ""]);
    assert_eq!(streamed(&tokenizer, &ids, &[1], false)[..2], ["<s>", " hello"]);
    assert_eq!(tokenizer.decode(&ids, true), "hello the<tool> he");
}

#[test]
fn a_continuation_keeps_its_space() {
    let tokenizer = testing::sentencepiece();
    let [hello, the, bos] =
        ["▁hello", "▁the", "<s>"].map(|token| tokenizer.token_to_id(token).unwrap());
    let continued = |prompt: &[TokenId]| {
        IncrementalDecoder::after_prompt(&tokenizer, true, prompt).push(&[the]).to_owned()
    };
    assert_eq!(continued(&[bos, hello]), " the");
    assert_eq!(continued(&[hello; 100]), " the");
    assert_eq!(continued(&[bos]), "the");
    assert_eq!(continued(&[]), "the");
    // Half a character at the end of the prompt is the prompt's.
    let tokenizer = testing::byte_level();
    let mut decoder =
        IncrementalDecoder::after_prompt(&tokenizer, true, &bytes(&tokenizer, b"a\xC3"));
    assert_eq!(decoder.push(&bytes(&tokenizer, b"b")), "b");
}

#[test]
fn ids_outside_the_vocabulary_stand_for_nothing() {
    let tokenizer = testing::byte_level();
    let outside = tokenizer.vocab_size() as TokenId;
    let mut ids = bytes(&tokenizer, "é".as_bytes());
    ids.insert(1, outside);
    ids.push(TokenId::MAX);
    assert_eq!(tokenizer.decode(&ids, true), "é");
}

/// Mostly single bytes, so that characters form and break.
fn ids(vocab_size: usize) -> impl Strategy<Value = Vec<TokenId>> {
    let starts = prop::sample::select(vec![0x20_u32, 0x80, 0x9F, 0xC3, 0xE2, 0xF0, 0xF4, 0xFF]);
    let id = prop_oneof![0..vocab_size as TokenId + 3, starts.prop_map(|byte| byte + 4)];
    prop::collection::vec(id, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_pieces_are_the_whole_text(
        ids in ids(290),
        sizes in prop::collection::vec(1_usize..5, 1..6),
        skip: bool,
    ) {
        thread_local! {
            static TOKENIZERS: [Tokenizer; 2] = [testing::byte_level(), testing::sentencepiece()];
        }
        TOKENIZERS.with(|tokenizers| {
            for tokenizer in tokenizers {
                let expected = whole_text(tokenizer, &ids, skip);
                prop_assert_eq!(&tokenizer.decode(&ids, skip), &expected);
                prop_assert_eq!(streamed(tokenizer, &ids, &sizes, skip).concat(), expected);
            }
            Ok(())
        })?;
    }
}
