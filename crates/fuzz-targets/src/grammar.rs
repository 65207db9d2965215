//! Grammars of strangers: the first byte picks the language and the backend, the second which
//! tokens are taken, the rest is the grammar. Whatever compiles can be followed: what a mask
//! allows is accepted, and taking a token back leads to the same mask.

use std::sync::{Arc, LazyLock};

use constrained::{
    CompileError, GRAMMAR_BACKENDS, GrammarBackend, GrammarCompiler, GrammarKind, GrammarSpec,
    JsonOptions, Vocabulary,
};
use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

use crate::{Dice, head, support};

/// With ids that the tokenizer does not have.
const VOCAB_SIZE: usize = 270;
const END: TokenId = 257;
const KINDS: [GrammarKind; 4] =
    [GrammarKind::JsonSchema, GrammarKind::Regex, GrammarKind::Ebnf, GrammarKind::StructuralTag];
const MAX_TOKENS: usize = 48;

static BACKENDS: LazyLock<Vec<Box<dyn GrammarBackend>>> = LazyLock::new(|| {
    let vocabulary = Vocabulary::new(&support::tokenizer(), VOCAB_SIZE, &[END]).expect("bytes");
    let vocabulary = Arc::new(vocabulary);
    let new = GRAMMAR_BACKENDS.iter().filter_map(|entry| entry.new);
    new.map(|new| new(&vocabulary, JsonOptions::default()).expect("a backend")).collect()
});

/// Runs one input.
pub fn run(data: &[u8]) {
    let ([choice, seed], text) = head(data);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let choice = usize::from(choice);
    let spec = GrammarSpec::new(KINDS[choice % KINDS.len()], text);
    // A new compiler each time: its cache would hide what compiling costs, but it brings the
    // thread with much stack and the limits that the server relies on.
    let backend = Backend(choice / KINDS.len() % BACKENDS.len());
    let compiler = GrammarCompiler::new(Box::new(backend));
    if let Ok(mut grammar) = compiler.compile(&spec) {
        follow(&mut *grammar, Dice::new(seed.into()));
    }
}

/// One of [`BACKENDS`].
#[derive(Debug)]
struct Backend(usize);

impl GrammarBackend for Backend {
    fn compile(&self, spec: &GrammarSpec) -> Result<Box<dyn TokenGrammar>, CompileError> {
        BACKENDS[self.0].compile(spec)
    }
}

fn follow(grammar: &mut dyn TokenGrammar, mut dice: Dice) {
    for _ in 0..MAX_TOKENS {
        let Some(allowed) = allowed(grammar) else { return };
        let token = allowed[dice.below(allowed.len())];
        assert!((token as usize) < VOCAB_SIZE, "an id that the model does not have");
        match grammar.accept(token) {
            Ok(()) => {}
            Err(GrammarError::Backend(_)) => return,
            Err(error) => panic!("the mask allows {token}: {error}"),
        }
        if grammar.is_terminated() {
            assert_eq!(token, END);
            return;
        }
        if dice.below(4) == 0 {
            grammar.rollback(1).expect("a token was accepted");
            let again = self::allowed(grammar).expect("as before");
            assert_eq!(again, allowed, "after taking {token} back");
            grammar.accept(token).expect("as before");
        }
    }
}

/// `None` where the grammar gives up.
fn allowed(grammar: &mut dyn TokenGrammar) -> Option<Vec<TokenId>> {
    match grammar.next_tokens() {
        Ok(NextTokens::Any) => panic!("a grammar that allows everything"),
        Ok(NextTokens::Of(mask)) => {
            let is_set = |id: &TokenId| mask[*id as usize / 32] >> (id % 32) & 1 == 1;
            let ids: Vec<_> = (0..mask.len() as TokenId * 32).filter(is_set).collect();
            assert!(!ids.is_empty(), "a mask that allows nothing");
            Some(ids)
        }
        Err(_) => None,
    }
}
