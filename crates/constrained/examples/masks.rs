//! Follows grammars, for `tools/acceptance/mask_differential.py`.
//!
//! `masks FOLDER BACKEND VOCAB_SIZE END` reads lines of `{"kind", "text", "tokens"}` and
//! answers each with a line of `{"masks", "accepted", "may_end", "error"}`, followed by as
//! many masks as it says, 4 bytes a word. There is a mask before each token and one after
//! the last; the first token that is refused ends the list.

use std::{
    env,
    error::Error,
    io::{BufRead, Write, stdin, stdout},
    path::Path,
    sync::Arc,
};

use constrained::{GrammarCompiler, GrammarKind, GrammarSpec, JsonOptions, Vocabulary, find};
use serde_json::{Value, json};
use tokenizer::Tokenizer;
use types::{NextTokens, TokenGrammar, TokenId};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let [_, folder, backend, vocab_size, end] = &args[..] else {
        return Err("usage: masks FOLDER BACKEND VOCAB_SIZE END".into());
    };
    let (vocab_size, end) = (vocab_size.parse()?, end.parse()?);
    let vocabulary = Vocabulary::new(&Tokenizer::from_dir(Path::new(folder))?, vocab_size, &[end])?;
    let new = find(backend)?.new.ok_or("this backend has no grammars")?;
    let compiler = GrammarCompiler::new(new(&Arc::new(vocabulary), JsonOptions::default())?);
    let mut out = stdout().lock();
    for line in stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let text = case["text"].as_str().ok_or("a case without text")?;
        let tokens: Vec<TokenId> = serde_json::from_value(case["tokens"].clone())?;
        let grammar = compiler.compile(&GrammarSpec::new(kind_of(&case)?, text));
        let followed = match grammar {
            Ok(mut grammar) => follow(&mut *grammar, &tokens),
            Err(error) => Followed { error: Some(error.to_string()), ..Followed::default() },
        };
        let Followed { masks, accepted, error } = followed;
        let may_end = masks.len() > accepted && is_set(&masks[accepted], end);
        let head = json!({
            "masks": masks.len(), "accepted": accepted, "may_end": may_end, "error": error,
        });
        writeln!(out, "{head}")?;
        for word in masks.into_iter().flatten() {
            out.write_all(&word.to_le_bytes())?;
        }
        out.flush()?;
    }
    Ok(())
}

fn kind_of(case: &Value) -> Result<GrammarKind, String> {
    match case["kind"].as_str() {
        Some("json_schema") => Ok(GrammarKind::JsonSchema),
        Some("regex") => Ok(GrammarKind::Regex),
        Some("ebnf") => Ok(GrammarKind::Ebnf),
        Some("structural_tag") => Ok(GrammarKind::StructuralTag),
        kind => Err(format!("no kind of grammar: {kind:?}")),
    }
}

#[derive(Default)]
struct Followed {
    masks: Vec<Vec<u32>>,
    accepted: usize,
    error: Option<String>,
}

fn follow(grammar: &mut dyn TokenGrammar, tokens: &[TokenId]) -> Followed {
    let mut followed = Followed::default();
    loop {
        let mask = match grammar.next_tokens() {
            Ok(NextTokens::Of(mask)) => mask,
            Ok(NextTokens::Any) => unreachable!("a grammar without reasoning has a mask"),
            Err(error) => return Followed { error: Some(error.to_string()), ..followed },
        };
        let next = tokens.get(followed.accepted).copied();
        let is_allowed = next.is_some_and(|token| is_set(&mask, token));
        followed.masks.push(mask);
        let Some(token) = next else { return followed };
        match grammar.accept(token) {
            Ok(()) if is_allowed => followed.accepted += 1,
            Err(_) if !is_allowed => return followed,
            result => {
                let error = format!("token {token}: in the mask {is_allowed}, accept {result:?}");
                return Followed { error: Some(error), ..followed };
            }
        }
    }
}

fn is_set(mask: &[u32], token: TokenId) -> bool {
    mask[token as usize / 32] >> (token % 32) & 1 == 1
}
