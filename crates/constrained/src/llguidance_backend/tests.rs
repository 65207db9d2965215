//! Masks that are kept are those that the library gives.

use std::sync::Arc;

use llguidance::earley::BiasComputer;
use proptest::{collection, prelude::*, test_runner::TestRunner};
use types::{NextTokens, TokenId};

use super::*;
use crate::{
    GrammarKind::{Ebnf, JsonSchema, Regex, StructuralTag},
    testing::{SPECIAL, VOCAB_SIZE, byte_tokens, vocabulary},
};

/// Keeps this many bytes of masks, all that come.
fn backend(max_bytes: usize, min_nodes: usize) -> LlGuidance {
    let mut backend = LlGuidance::new(&Arc::new(vocabulary()), JsonOptions::default()).unwrap();
    backend.masks =
        Arc::new(MaskStore::with_limits(backend.factory.slicer(), max_bytes, min_nodes));
    backend
}

/// How the library computes masks.
pub(super) fn library() -> Arc<dyn BiasComputer> {
    backend(0, 0).factory.slicer()
}

fn grammar(backend: &LlGuidance, kind: GrammarKind, text: &str) -> LlGrammar {
    let readable = backend.readable(&GrammarSpec::new(kind, text)).unwrap();
    backend.followed(readable).unwrap()
}

/// A regular expression by the library alone.
pub(crate) fn by_the_library(vocabulary: &Arc<Vocabulary>, regex: &str) -> Box<dyn TokenGrammar> {
    let backend = LlGuidance::new(vocabulary, JsonOptions::default()).unwrap();
    Box::new(grammar(&backend, Regex, regex))
}

/// What follows a regular expression in the library.
pub(super) fn parser(regex: &str) -> LlParser {
    let backend = backend(0, usize::MAX);
    LlParser::new(backend.factory.create_parser(TopLevelGrammar::from_regex(regex)))
}

/// A grammar, and a text that it takes.
const CASES: &[(GrammarKind, &str, &str)] = &[
    (Regex, r"[^\n]{1,40}", "é and on, and on. And é, on"),
    (Regex, r"(a|b)*c[a-c]{2,5}", "ababcabab"),
    (JsonSchema, r#"{"type":"object"}"#, r#"{"a": [1, {"b": "é\n"}, true], "c": "x" }"#),
    (
        JsonSchema,
        r##"{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","required":["v"],"additionalProperties":false,
            "properties":{"v":{"type":"integer","maximum":120},"n":{"$ref":"#/$defs/n"}}}}}"##,
        r#"{"v":119,"n": {"v":  7,"n":{"v":-1}}}"#,
    ),
    (Ebnf, "root ::= s\ns ::= t (\"+\" t)*\nt ::= [0-9]+ | \"(\" s \")\"", "(12+3)+((4)+55)+6"),
    (
        Ebnf,
        "root ::= i (\"\\n\" i)*\ni ::= \"'\" [^'\\n]* \"'\" | \"[\" i \"]\"",
        "'a b'\n'c'\n['d']\n[['']]\n'a b'",
    ),
    (
        StructuralTag,
        r#"{"triggers":["<f"],"structures":[{"begin":"<f>","end":"</f>","schema":{"type":"object"}},
            {"begin":"<fn>","end":".","schema":{"type":"integer"}}]}"#,
        "so <<f>{}</f>\n<fn>12. <f>{\"a\":1}</f><f>{}</f> < <f",
    ),
    (
        StructuralTag,
        r#"{"triggers":["<|im_start|>"],"structures":[{"begin":"<|im_start|>f","end":"<|im_end|>",
            "schema":{"type":"boolean"}},{"begin":"<|im_start|>g","end":"!","schema":{"type":"integer"}}]}"#,
        "one \u{1}ffalse and \u{1}g12! two",
    ),
    (
        StructuralTag,
        r#"{"format":{"type":"triggered_tags","triggers":["<"],"at_least_one":true,"tags":[
            {"type":"tag","begin":"<t","content":{"type":"any_text"},"end":"<"},
            {"type":"tag","begin":"<j","content":{"type":"json_schema","json_schema":{}},"end":""}]}}"#,
        "<j12 and <ta<b<j{} <tc<",
    ),
];

/// The tokens of a text; the special one for U+0001.
fn tokens(text: &str) -> Vec<TokenId> {
    let parts = text.split('\u{1}').map(byte_tokens).collect::<Vec<_>>();
    parts.join(&SPECIAL)
}

/// Follows both in step, by the text and by other tokens at random; takes some back. Returns
/// how many masks were known.
fn compare(kept: &mut LlGrammar, library: &mut LlGrammar, text: &str, picks: &[u16]) -> usize {
    let text = tokens(text);
    let (mut at, mut num_known) = (0, 0);
    for (step, &pick) in picks.iter().enumerate() {
        num_known += usize::from(kept.known_mask().is_some());
        let masks = (kept.next_tokens(), library.next_tokens());
        let (Ok(mask), Ok(expected)) = masks else { panic!("{masks:?} at {step}") };
        assert_eq!(mask, expected, "at {step}");
        assert_eq!(NextTokens::Of(kept.new_mask().unwrap()), expected, "anew at {step}");
        let allowed = (0..VOCAB_SIZE as TokenId).filter(|&token| mask.allows(token));
        let allowed: Vec<_> = allowed.collect();
        let token = match text.get(at) {
            Some(&token) if pick % 8 != 0 && mask.allows(token) => token,
            _ => allowed[usize::from(pick) / 8 % allowed.len()],
        };
        at += 1;
        assert_eq!(kept.accept(token), library.accept(token), "{token} at {step}");
        if kept.is_terminated() || pick % 32 == 1 {
            let num_tokens =
                usize::from(pick / 32) % (kept.taken.len() + 1) + usize::from(kept.is_terminated());
            assert_eq!(kept.rollback(num_tokens), library.rollback(num_tokens));
            at -= num_tokens;
        }
    }
    num_known
}

#[test]
fn kept_masks_are_those_of_the_library() {
    let (keeping, library) = (backend(usize::MAX, 0), backend(0, usize::MAX));
    let grammars: Vec<_> = CASES
        .iter()
        .map(|&(kind, text, _)| (grammar(&keeping, kind, text), grammar(&library, kind, text)))
        .collect();
    let picks = collection::vec(any::<u16>(), 1..80);
    let mut num_known = vec![0; CASES.len()];
    let mut runner = TestRunner::new(ProptestConfig::with_cases(300));
    let num_known_of = std::cell::RefCell::new(&mut num_known);
    let strategy = (0..CASES.len(), collection::vec(picks, 1..4));
    let result = runner.run(&strategy, |(case, rows)| {
        let (kept, library) = &grammars[case];
        for picks in rows {
            let (mut kept, mut library) = (kept.fresh(), library.fresh());
            num_known_of.borrow_mut()[case] +=
                compare(&mut kept, &mut library, CASES[case].2, &picks);
        }
        Ok(())
    });
    result.unwrap();
    assert!(num_known.iter().all(|&count| count > 100), "{num_known:?}");
}

#[test]
fn text_after_a_call_is_known_from_text_before_it() {
    for (kind, text, taken) in [
        (StructuralTag, CASES[6].1, "so <f>{\"a\":1}</f>"),
        (StructuralTag, CASES[7].1, "one \u{1}g12!"),
    ] {
        let backend = backend(usize::MAX, 0);
        let mut grammar = grammar(&backend, kind, text);
        let beginning = grammar.place();
        for token in tokens(taken) {
            grammar.next_tokens().unwrap();
            grammar.accept(token).unwrap();
        }
        assert_eq!(grammar.place(), beginning, "{text}");
        assert!(grammar.known_mask().is_some(), "{text}");
    }
}

#[test]
fn a_mask_before_tokens_were_taken_back_is_not_that_of_others_in_their_place() {
    let backend = backend(0, usize::MAX);
    let lark = "start: \"q\" \"t\" \"rue\" | \"z\" \"t\" \"x\"";
    let grammar = TopLevelGrammar::from_lark(lark.to_owned());
    let mut grammar = backend.followed(grammar.into()).unwrap();
    let true_token = (0..VOCAB_SIZE as TokenId).find(|&token| vocabulary().bytes(token) == b"true");
    let true_token = true_token.unwrap();
    for (first, is_allowed) in [("q", true), ("z", false)] {
        grammar.accept(tokens(first)[0]).unwrap();
        assert_eq!(grammar.next_tokens().unwrap().allows(true_token), is_allowed, "{first}");
        grammar.rollback(1).unwrap();
    }
}

/// With more states than the lexer may have, it gives up under one request; whoever shares it goes
/// on with a lexer of its own.
#[test]
fn a_lexer_that_gives_up_refuses_nobody() {
    let a = byte_tokens("a")[0];
    let mut num_given_up = 0;
    for max_states in (40..1000).step_by(20) {
        let mut backend = backend(usize::MAX, 0);
        backend.factory.limits_mut().max_lexer_states = max_states;
        let Ok(readable) = backend.readable(&GrammarSpec::new(Regex, r"([^\n]{1,40}z)+")) else {
            continue;
        };
        let Ok(mut one) = backend.followed(readable) else { continue };
        if one.next_tokens().and_then(|_| one.accept(a)).is_err() {
            continue;
        }
        let mut other = one.boxed_clone();
        for _ in 0..30 {
            if one.next_tokens().and_then(|_| one.accept(a)).is_err() {
                break;
            }
        }
        if one.place().is_none() {
            num_given_up += 1;
            assert_eq!(other.accept(a), Ok(()), "with {max_states} states");
        }
    }
    assert!(num_given_up > 0);
}
