//! Both kinds of GGUF vocabularies, and what is refused.

use super::*;
use crate::{Tokenizer, testing};

/// Spellings of the tokens of `text`.
fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let ids = tokenizer.encode(text, true).unwrap();
    ids.into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect()
}

/// The pieces between which no merge can reach, for a vocabulary that merges
/// any two characters.
fn pieces(pre: Option<&str>, text: &str) -> Vec<String> {
    let pre_tokenizer = pre_tokenizer::find(pre).unwrap().to_json(false);
    let pre_tokenizer: tokenizers::PreTokenizerWrapper =
        serde_json::from_value(pre_tokenizer).unwrap();
    let mut split = tokenizers::PreTokenizedString::from(text);
    tokenizers::PreTokenizer::pre_tokenize(&pre_tokenizer, &mut split).unwrap();
    let splits =
        split.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
    splits.into_iter().map(|(_, (start, end), _)| text[start..end].to_owned()).collect()
}

#[test]
fn names_stand_for_their_regular_expressions() {
    let text = "I'LL pay $1234.50,  ok?\n\n  x=٣";
    let joined = |pre| pieces(pre, text).join("|");
    let gpt2 = "I|'|LL| pay| $|1234|.|50|,| | ok|?|\n\n | x|=|٣";
    assert_eq!(joined(Some("gpt-2")), gpt2);
    assert_eq!(joined(Some("smollm")), "I|'|LL| pay| $|1|2|3|4|.|5|0|,| | ok|?|\n\n | x|=|٣");
    assert_eq!(joined(Some("llama-bpe")), "I|'LL| pay| $|123|4|.|50|,| | ok|?\n\n| | x|=|٣");
    assert_eq!(joined(Some("qwen2")), "I|'LL| pay| $|1|2|3|4|.|5|0|,| | ok|?\n\n| | x|=|٣");
    // Llama 3's, of others that keep to the merges.
    assert_eq!(joined(Some("dbrx")), joined(Some("llama-bpe")));
    assert_eq!(joined(Some("seed-coder")), "I|'LL| pay| $|1|2|3|4|.|5|0|,| | ok|?|\n\n| | x|=|٣");
    let default = "I|'|LL| pay| |$|123|4|.|50|,| | ok|?|\n\n | x|=|٣";
    assert_eq!(joined(Some("default")), default);
    assert_eq!(joined(None), default);
}

#[test]
fn byte_level_merges_and_special_tokens() {
    let tokenizer = testing::byte_level();
    assert_eq!(
        tokens(&tokenizer, "<|im_start|>in the 12<tool>é\n"),
        ["<|im_start|>", "in", "Ġthe", "Ġ", "1", "2", "<tool>", "Ã©", "Ċ"]
    );
    assert_eq!([tokenizer.is_special(1), tokenizer.is_special(3)], [true, false]);
    assert_eq!(tokenizer.bos_token_id(), Some(1));
    assert_eq!(tokenizer.eos_token_id(), Some(2));
    assert_eq!(tokenizer.pad_token_id(), Some(2));
    assert_eq!(tokenizer.vocab_size(), 4 + 256 + 11);
    assert!(tokenizer.encode("", true).unwrap().is_empty());
}

#[test]
fn bos_and_eos_are_added_as_the_file_says() {
    let encoded =
        |vocab: &GgufVocab, add| Tokenizer::from_gguf(vocab).unwrap().encode("in", add).unwrap();
    let mut vocab = testing::byte_level_vocab();
    let id = encoded(&vocab, true)[0];
    assert_eq!(encoded(&vocab, true), [id]);
    vocab.add_bos = Some(true);
    assert_eq!(encoded(&vocab, true), [1, id]);
    assert_eq!(encoded(&vocab, false), [id]);
    vocab.add_eos = Some(true);
    assert_eq!(encoded(&vocab, true), [1, id, 2]);
    vocab.add_bos = None;
    assert_eq!(encoded(&vocab, true), [id, 2]);
    // The default of the kind.
    vocab.pre = Some("llama-bpe".into());
    assert_eq!(encoded(&vocab, true), [1, id, 2]);
}

#[test]
fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = testing::sentencepiece();
    assert_eq!(tokens(&tokenizer, "hello the"), ["<s>", "▁hello", "▁the"]);
    assert_eq!(
        tokens(&tokenizer, "the  é😀"),
        ["<s>", "▁the", "▁▁", "é", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]
    );
    assert_eq!(tokens(&tokenizer, "the</s>the"), ["<s>", "▁the", "</s>", "▁the"]);
    assert_eq!(tokens(&tokenizer, "o<tool>o"), ["<s>", "▁", "o", "<tool>", "▁", "o"]);
    for text in ["hello the  é😀\n", " the", "t\0x"] {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
    let mut vocab = testing::sentencepiece_vocab();
    (vocab.add_space_prefix, vocab.add_bos) = (Some(false), Some(false));
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    assert_eq!(tokens(&tokenizer, "the the"), ["t", "he", "▁the"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode(" the", true).unwrap(), true), " the");
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    let error = |change: fn(&mut GgufVocab)| {
        let mut vocab = testing::byte_level_vocab();
        change(&mut vocab);
        Tokenizer::from_gguf(&vocab).unwrap_err().to_string()
    };
    assert_eq!(
        error(|vocab| vocab.model = "bert".into()),
        "unsupported GGUF tokenizer model 'bert' (supported: gpt2, llama)"
    );
    assert!(error(|vocab| vocab.pre = Some("new".into())).starts_with(
        "unsupported GGUF pre-tokenizer 'new' (supported: chatglm-bpe, command-r, dbrx, deepseek-"
    ));
    assert_eq!(
        error(|vocab| vocab.eos_token_id = Some(999)),
        "invalid GGUF vocabulary: eos_token_id is 999, the vocabulary has 271 tokens"
    );
    assert_eq!(
        error(|vocab| vocab.token_types.truncate(7)),
        "invalid GGUF vocabulary: token_type has 7 entries, expected 271"
    );
    assert_eq!(
        error(|vocab| vocab.model = "llama".into()),
        "invalid GGUF vocabulary: scores has 0 entries, expected 271"
    );
    assert!(
        error(|vocab| vocab.merges.push("x y z".into()))
            .starts_with("invalid tokenizer in the GGUF file: ")
    );
}
