//! Grammars of each kind, by each backend that has the kind.

use std::time::{Duration, Instant};

use serde_json::json;
use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

use crate::{
    AfterReasoning, CompileError, GrammarBackend, GrammarCompiler,
    GrammarKind::{Ebnf, JsonSchema, Regex, StructuralTag},
    GrammarSpec, JsonOptions, Vocabulary, VocabularyError,
    testing::{
        END, SPECIAL, VOCAB_SIZE, backends, byte_tokens, check, compile, follow, refusals,
        tokenizer,
    },
};

#[test]
fn a_regular_expression_is_for_the_whole_completion() {
    check(Regex, r"\d{3}-[a-c]+", &["123-a", "000-cab"], &["12-a", "123-", "123-d", "1234-a"]);
    check(Regex, "^[0-9]+$", &["5", "12"], &["^5", "5$", ""]);
    check(Regex, r"a\$", &["a$"], &["a", r"a\"]);
    check(Regex, "(yes|no|é)", &["yes", "no", "é"], &["ye", "maybe", "yesno"]);
}

#[test]
fn a_schema_decides_on_keys_types_and_order() {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 4}, "age": {"type": "integer"}},
        "required": ["name", "age"], "additionalProperties": false,
    });
    check(
        JsonSchema,
        &schema.to_string(),
        &[r#"{"name":"Ada","age":36}"#, r#"{"name": "", "age": -1}"#],
        &[
            r#"{"name":"Ada"}"#,
            r#"{"age":36,"name":"Ada"}"#,
            r#"{"name":"Ada","age":3.5}"#,
            r#"{"name":"Augusta","age":1}"#,
            r#"{"name":"Ada","age":36,"x":1}"#,
            r#"{"name":"Ada","age":36"#,
        ],
    );
    let choice = json!({"enum": ["red", 5, null]}).to_string();
    check(JsonSchema, &choice, &[r#""red""#, "5", "null"], &["red", "6", "nul", r#""re""#]);
}

#[test]
fn any_object_and_any_json() {
    let object = r#"{"type": "object"}"#;
    let texts = [r#"{"a":[1,{"b":"é\n"}]}"#, "{}"];
    check(JsonSchema, object, &texts, &["[1]", "1", "{a:1}", r#"{"a":}"#]);
    check(JsonSchema, GrammarSpec::ANY_JSON, &["[1, true]", "null", "{}"], &["nul", "[1,]"]);
}

#[test]
fn recursive_schemas_and_references() {
    let schema = json!({
        "$ref": "#/$defs/node",
        "$defs": {"node": {
            "type": "object", "required": ["v"], "additionalProperties": false,
            "properties": {"v": {"type": "boolean"}, "next": {"$ref": "#/$defs/node"}},
        }},
    });
    let texts = [r#"{"v":true}"#, r#"{"v":true,"next":{"v":false,"next":{"v":true}}}"#];
    check(JsonSchema, &schema.to_string(), &texts, &[r#"{"v":true,"next":{}}"#, r#"{"next":1}"#]);
}

#[test]
fn white_space_is_as_the_options_say() {
    let spec = GrammarSpec::new(JsonSchema, r#"{"type":"array","items":{"type":"integer"}}"#);
    let takes = |options: JsonOptions, text: &str| {
        let mut grammars = backends(&options).into_iter().map(|(_, b)| b.compile(&spec).unwrap());
        grammars.all(|grammar| follow(&*grammar, text) == (text.to_owned(), true))
    };
    let any = JsonOptions::default;
    assert!(takes(any(), "[1,\n  2]") && takes(any(), "[1,2]"));
    let fixed = || JsonOptions { disable_any_whitespace: true, ..any() };
    assert!(takes(fixed(), "[1, 2]") && !takes(fixed(), "[1,2]") && !takes(fixed(), "[ 1, 2]"));
}

#[test]
fn tokens_that_end_come_only_where_the_grammar_may_end() {
    for mut grammar in compile(Regex, "ab?") {
        assert!(!grammar.next_tokens().unwrap().allows(END));
        assert_eq!(grammar.accept(END), Err(GrammarError::Refused(END)));
        grammar.accept(byte_tokens("a")[0]).unwrap();
        let next = grammar.next_tokens().unwrap();
        assert!(next.allows(END) && !next.allows(SPECIAL), "{next:?}");
        grammar.accept(byte_tokens("b")[0]).unwrap();
        let NextTokens::Of(mask) = grammar.next_tokens().unwrap() else { panic!("a mask") };
        let num_allowed: u32 = mask.iter().map(|word| word.count_ones()).sum();
        assert_eq!(num_allowed, 2, "both ends and nothing else: {mask:?}");
        assert!(!grammar.is_terminated());
        grammar.accept(END).unwrap();
        assert!(grammar.is_terminated());
        assert!(grammar.accept(END).is_err(), "nothing comes after the end");
    }
}

#[test]
fn rolling_back_gives_the_masks_there_were() {
    let text = r#"{"a":[true,"x"]}"#;
    for mut grammar in compile(JsonSchema, r#"{"type":"object"}"#) {
        let mut masks = Vec::new();
        for token in byte_tokens(text) {
            masks.push(grammar.next_tokens().unwrap());
            grammar.accept(token).unwrap();
        }
        grammar.accept(END).unwrap();
        grammar.rollback(1).unwrap();
        assert!(!grammar.is_terminated());
        for (count, mask) in masks.iter().rev().enumerate() {
            grammar.rollback(1).unwrap();
            assert_eq!(grammar.next_tokens().unwrap(), *mask, "{count} tokens from the end");
        }
        assert_eq!(grammar.rollback(1), Err(GrammarError::Rollback));
    }
}

#[test]
fn a_copy_goes_its_own_way() {
    for mut grammar in compile(Regex, "ab|cd") {
        let mut copy = grammar.boxed_clone();
        grammar.accept(byte_tokens("a")[0]).unwrap();
        copy.accept(byte_tokens("c")[0]).unwrap();
        assert!(grammar.next_tokens().unwrap().allows(byte_tokens("b")[0]));
        assert!(copy.next_tokens().unwrap().allows(byte_tokens("d")[0]));
    }
}

#[test]
fn a_grammar_waits_for_the_end_of_reasoning() {
    for grammar in compile(Regex, "[0-9]") {
        let end = byte_tokens("</t>");
        let mut grammar = AfterReasoning::new(end.into(), grammar);
        let grammar: &mut dyn types::TokenGrammar = &mut grammar;
        for token in byte_tokens("so </</t") {
            assert_eq!(grammar.next_tokens().unwrap(), NextTokens::Any);
            grammar.accept(token).unwrap();
        }
        grammar.accept(byte_tokens(">")[0]).unwrap();
        let next = grammar.next_tokens().unwrap();
        assert!(next.allows(byte_tokens("5")[0]) && !next.allows(byte_tokens("a")[0]));
        grammar.accept(byte_tokens("5")[0]).unwrap();
        grammar.rollback(2).unwrap();
        assert_eq!(grammar.next_tokens().unwrap(), NextTokens::Any);
        for token in byte_tokens(">7") {
            grammar.accept(token).unwrap();
        }
        grammar.accept(END).unwrap();
        assert!(grammar.is_terminated());
        assert_eq!(grammar.rollback(100), Err(GrammarError::Rollback));
    }
}

#[test]
fn what_is_malformed_is_refused_with_its_kind() {
    for (kind, text) in [
        (Regex, "(a"),
        (Regex, "a{5,2}"),
        (JsonSchema, "{"),
        (JsonSchema, "[]"),
        (JsonSchema, r#"{"type":"nothing"}"#),
        (JsonSchema, r##"{"$ref":"#/$defs/absent"}"##),
    ] {
        for error in refusals(kind, text) {
            let message = error.to_string();
            assert!(
                message.starts_with(&format!("Failed to compile {kind} grammar: ")),
                "{message}"
            );
            assert!(!message.contains('\n') && message.len() < 600, "{message}");
        }
    }
}

/// Each must come to an end soon: compiled, refused, or given up while it is followed.
#[test]
fn hostile_grammars_end_soon() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}{}{}", open.repeat(depth), "1", close.repeat(depth))
    };
    let const_string =
        |value: String| json!({"format": {"type": "const_string", "value": value}}).to_string();
    let chain_of_rules = |count: usize, end: &str| {
        let rules: String = (0..count).map(|n| format!("r{n} ::= r{}{end}\n", n + 1)).collect();
        format!("root ::= r0\n{rules}r{count} ::= \"a\"")
    };
    let chain_of_refs = |count: usize| {
        let link = |to: usize| json!({"anyOf": [{"$ref": format!("#/$defs/{to}")}, true]});
        let defs = (0..count)
            .map(|n| (n.to_string(), if n + 1 < count { link(n + 1) } else { json!(true) }));
        let defs: serde_json::Map<_, _> = defs.collect();
        json!({"$ref": "#/$defs/0", "$defs": defs}).to_string()
    };
    let hostile = [
        (Regex, "((a{1,1000}){1,1000}){1,1000}".to_owned()),
        (Regex, "(a|aa|aaa|b?){1,20000}".to_owned()),
        (Regex, "(.*a.{30})".to_owned()),
        (Regex, nested("(", ")", 50_000)),
        (Regex, format!("({})", vec!["a.*b"; 2000].join("|"))),
        (JsonSchema, nested(r#"{"a":"#, "}", 50_000)),
        (JsonSchema, nested(r#"{"type":"array","items":"#, "}", 120)),
        (JsonSchema, r#"{"type":"string","minLength":1000000}"#.to_owned()),
        (JsonSchema, r#"{"type":"array","minItems":100000000}"#.to_owned()),
        (JsonSchema, r##"{"$ref":"#"}"##.to_owned()),
        (JsonSchema, r##"{"allOf":[{"$ref":"#"},{"$ref":"#"}]}"##.to_owned()),
        (StructuralTag, const_string("<|im_start|>".repeat(80_000))),
        (Ebnf, chain_of_rules(50_000, "")),
        (Ebnf, chain_of_rules(15_000, "")),
        (Ebnf, chain_of_rules(20_000, " | \"x\" root")),
        (JsonSchema, chain_of_refs(15_000)),
        (JsonSchema, chain_of_refs(2600)),
    ];
    for (name, backend) in backends(&JsonOptions::default()) {
        let compiler = GrammarCompiler::new(backend);
        for (kind, text) in &hostile {
            let started = Instant::now();
            if let Ok(mut grammar) = compiler.compile(&GrammarSpec::new(*kind, text.as_str())) {
                for token in byte_tokens("aaaaaaaaaaaaaaaaaaaaaaaa") {
                    let Ok(next) = grammar.next_tokens() else { break };
                    if !next.allows(token) || grammar.accept(token).is_err() {
                        break;
                    }
                }
            }
            let elapsed = started.elapsed();
            let head: String = text.chars().take(60).collect();
            assert!(elapsed < Duration::from_secs(10), "{name}: {elapsed:?} for {head}");
        }
    }
}

#[test]
fn a_compiled_grammar_is_kept_and_so_is_a_failure() {
    for (_, backend) in backends(&JsonOptions::default()) {
        let compiler = GrammarCompiler::new(backend);
        let (good, bad) = (GrammarSpec::new(Regex, "a+"), GrammarSpec::new(Regex, "(a"));
        assert!(compiler.cached(&good).is_none());
        compiler.compile(&good).unwrap().accept(byte_tokens("a")[0]).unwrap();
        let kept = compiler.cached(&good).unwrap().unwrap();
        assert!(!follow(&*kept, "").1, "it is at its beginning");
        let error = compiler.compile(&bad).unwrap_err();
        assert_eq!(compiler.cached(&bad).unwrap().unwrap_err(), error);
        let long = GrammarSpec::new(Regex, "a".repeat(2 << 20));
        assert!(matches!(compiler.compile(&long), Err(CompileError::TooLong { .. })));
        for index in 0..300 {
            let _ = compiler.compile(&GrammarSpec::new(Regex, format!("(a{index}")));
        }
        assert!(compiler.cached(&good).is_none(), "the oldest are forgotten");
    }
}

/// Panics in the way its grammar's text says.
#[derive(Debug)]
struct Panicking;

impl GrammarBackend for Panicking {
    fn compile(&self, spec: &GrammarSpec) -> Result<Box<dyn TokenGrammar>, CompileError> {
        match &*spec.text {
            "now" => panic!("at once"),
            _ => Ok(Box::new(PanicsWhenCopied)),
        }
    }
}

#[derive(Debug)]
struct PanicsWhenCopied;

impl TokenGrammar for PanicsWhenCopied {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        Ok(NextTokens::Any)
    }
    fn accept(&mut self, _: TokenId) -> Result<(), GrammarError> {
        Ok(())
    }
    fn rollback(&mut self, _: usize) -> Result<(), GrammarError> {
        Ok(())
    }
    fn is_terminated(&self) -> bool {
        false
    }
    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        panic!("no copy")
    }
}

#[test]
fn a_panic_is_a_refusal_that_is_kept() {
    let compiler = GrammarCompiler::new(Box::new(Panicking));
    for text in ["now", "when copied"] {
        let spec = GrammarSpec::new(Regex, text);
        let error = compiler.compile(&spec).unwrap_err();
        assert_eq!(error, CompileError::Panicked { kind: Regex }, "{text}");
        assert_eq!(compiler.cached(&spec).unwrap().unwrap_err(), error);
    }
}

#[test]
fn a_vocabulary_needs_a_tokenizer_and_an_end() {
    let of = |tokenizer, end: &[u32]| Vocabulary::new(&tokenizer, VOCAB_SIZE, end).map(drop);
    assert_eq!(of(tokenizer(), &[]), Err(VocabularyError::NoEnd));
    assert_eq!(of(tokenizer(), &[5000]), Err(VocabularyError::NoEnd));
    let skipped = tokenizer::Tokenizer::skipped();
    assert_eq!(of(skipped, &[END]), Err(VocabularyError::NoTokenizer));
}
