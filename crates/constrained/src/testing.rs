//! A vocabulary of bytes and a few longer tokens, and completions spelt in it.

use std::sync::Arc;

use tokenizer::{GgufVocab, Tokenizer};
use types::{TokenGrammar, TokenId};

use crate::{
    CompileError, GRAMMAR_BACKENDS, GrammarBackend, GrammarKind, GrammarSpec, JsonOptions,
    Vocabulary,
};

/// Ends a completion, as [`OTHER_END`] does.
pub(crate) const END: TokenId = 2;
pub(crate) const OTHER_END: TokenId = 0;
/// A special token.
pub(crate) const SPECIAL: TokenId = 1;
const NUM_MARKS: TokenId = 3;
/// Ids of the model that no token has.
pub(crate) const VOCAB_SIZE: usize = 300;

fn byte_level_char(byte: u8) -> char {
    let is_printable = |byte: &u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match is_printable(&byte) {
        true => char::from(byte),
        false => char::from_u32(0x100 + (0..byte).filter(|b| !is_printable(b)).count() as u32)
            .expect("a character"),
    }
}

pub(crate) fn tokenizer() -> Tokenizer {
    let mut vocab = GgufVocab {
        model: "gpt2".into(),
        pre: Some("smollm".into()),
        tokens: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).into(),
        token_types: vec![3; NUM_MARKS as usize],
        eos_token_id: Some(END),
        ..GgufVocab::default()
    };
    vocab.tokens.extend((0..=u8::MAX).map(|byte| byte_level_char(byte).to_string()));
    for merge in ["{ \"", "\" :", "t r", "u e", "tr ue", "Ã ©"] {
        vocab.merges.push(merge.to_owned());
        vocab.tokens.push(merge.replace(' ', ""));
    }
    vocab.token_types.resize(vocab.tokens.len(), 1);
    Tokenizer::from_gguf(&vocab).expect("a vocabulary")
}

pub(crate) fn vocabulary() -> Vocabulary {
    Vocabulary::new(&tokenizer(), VOCAB_SIZE, &[OTHER_END, END]).expect("a vocabulary")
}

/// Every backend that compiles anything, by name.
pub(crate) fn backends(json: &JsonOptions) -> Vec<(&'static str, Box<dyn GrammarBackend>)> {
    let vocabulary = Arc::new(vocabulary());
    let entries = GRAMMAR_BACKENDS.iter().filter_map(|entry| Some((entry.name, entry.new?)));
    entries.map(|(name, new)| (name, new(&vocabulary, json.clone()).expect("a backend"))).collect()
}

/// The backends that have grammars of this kind.
fn backends_with(kind: GrammarKind) -> Vec<(&'static str, Box<dyn GrammarBackend>)> {
    let is_regular = matches!(kind, GrammarKind::Regex | GrammarKind::JsonSchema);
    let mut backends = backends(&JsonOptions::default());
    backends.retain(|(name, _)| is_regular || *name != "outlines");
    backends
}

/// The grammar by each of the backends that have its kind.
pub(crate) fn compile(kind: GrammarKind, text: &str) -> Vec<Box<dyn TokenGrammar>> {
    let compile = |(name, backend): (&str, Box<dyn GrammarBackend>)| {
        let grammar = backend.compile(&GrammarSpec::new(kind, text));
        grammar.unwrap_or_else(|error| panic!("{name}: {text}: {error}"))
    };
    backends_with(kind).into_iter().map(compile).collect()
}

/// Why each of the backends that have its kind refuses the grammar.
pub(crate) fn refusals(kind: GrammarKind, text: &str) -> Vec<CompileError> {
    let refuse = |(name, backend): (&str, Box<dyn GrammarBackend>)| match backend
        .compile(&GrammarSpec::new(kind, text))
    {
        Ok(_) => panic!("{name} takes {text}"),
        Err(error) => error,
    };
    backends_with(kind).into_iter().map(refuse).collect()
}

pub(crate) fn byte_tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(|byte| NUM_MARKS + TokenId::from(byte)).collect()
}

/// How much of `text`, a byte a token, the grammar takes; and whether it may end there.
pub(crate) fn follow(grammar: &dyn TokenGrammar, text: &str) -> (String, bool) {
    let mut grammar = grammar.boxed_clone();
    for (at, &token) in byte_tokens(text).iter().enumerate() {
        let next = grammar.next_tokens().expect("something comes next");
        if !next.allows(token) {
            assert!(grammar.boxed_clone().accept(token).is_err(), "the mask forbids it");
            return (text[..at].to_owned(), next.allows(END));
        }
        grammar.accept(token).expect("the mask allows it");
    }
    let next = grammar.next_tokens().expect("something comes next");
    assert_eq!(next.allows(END), next.allows(OTHER_END), "all ends are alike");
    (text.to_owned(), next.allows(END))
}

/// Holds texts that are whole completions, and texts that are not, against a grammar.
pub(crate) fn check(kind: GrammarKind, grammar: &str, whole: &[&str], not: &[&str]) {
    for (compiled, (name, _)) in compile(kind, grammar).iter().zip(backends_with(kind)) {
        for text in whole {
            let (taken, ends) = follow(&**compiled, text);
            assert!(taken == *text && ends, "{name}: {grammar}: {text} as far as {taken}");
        }
        for text in not {
            let (taken, ends) = follow(&**compiled, text);
            assert!(taken != *text || !ends, "{name}: {grammar}: {text}");
        }
    }
}
