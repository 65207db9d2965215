//! Two small tokenizers for tests, one of each kind.

use crate::{GgufVocab, Tokenizer};

/// The character that spells `byte` in byte-level vocabularies.
pub(crate) fn byte_level_char(byte: u8) -> char {
    match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7F..=0xA0 => char::from_u32(0x121 + u32::from(byte) - 0x7F).unwrap(),
        0xAD => '\u{143}',
    }
}

/// Three special tokens, a user-defined one, 256 bytes, and a few merges.
pub(crate) fn byte_level_vocab() -> GgufVocab {
    let mut vocab = GgufVocab {
        model: "gpt2".into(),
        pre: Some("smollm".into()),
        tokens: ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"].map(str::to_owned).into(),
        token_types: vec![3, 3, 3, 4],
        bos_token_id: Some(1),
        eos_token_id: Some(2),
        unk_token_id: Some(0),
        pad_token_id: Some(2),
        ..GgufVocab::default()
    };
    vocab.tokens.extend((0..=u8::MAX).map(|byte| byte_level_char(byte).to_string()));
    for merge in ["Ġ t", "h e", "Ġt he", "i n", "Ã ©", "Ġ Ġ", "ĠĠ ĠĠ", "ð Ł", "ðŁ ĺ", "1 2", "a b"]
    {
        vocab.merges.push(merge.to_owned());
        vocab.tokens.push(merge.replace(' ', ""));
    }
    vocab.token_types.resize(vocab.tokens.len(), 1);
    vocab
}

pub(crate) fn byte_level() -> Tokenizer {
    Tokenizer::from_gguf(&byte_level_vocab()).unwrap()
}

/// Llama 2's layout: unknown, BOS, EOS, 256 bytes, then pieces by score.
pub(crate) fn sentencepiece_vocab() -> GgufVocab {
    let mut vocab = GgufVocab {
        model: "llama".into(),
        tokens: ["<unk>", "<s>", "</s>"].map(str::to_owned).into(),
        token_types: vec![2, 3, 3],
        bos_token_id: Some(1),
        eos_token_id: Some(2),
        unk_token_id: Some(0),
        ..GgufVocab::default()
    };
    vocab.tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    vocab.token_types.resize(vocab.tokens.len(), 6);
    let mut scores = vec![0.0; vocab.tokens.len()];
    let pieces = [
        "▁t", "he", "▁the", "▁▁", "lo", "▁he", "llo", "▁hello", "▁", "t", "h", "e", "l", "o", "é",
        ".",
    ];
    for (rank, piece) in pieces.iter().enumerate() {
        vocab.tokens.push((*piece).to_owned());
        scores.push(-(rank as f32));
    }
    vocab.tokens.push("<tool>".to_owned());
    scores.push(0.0);
    vocab.token_types.resize(vocab.tokens.len() - 1, 1);
    vocab.token_types.push(4);
    vocab.scores = Some(scores);
    vocab
}

pub(crate) fn sentencepiece() -> Tokenizer {
    Tokenizer::from_gguf(&sentencepiece_vocab()).unwrap()
}
