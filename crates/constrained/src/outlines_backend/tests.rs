//! Against what the schema says, and against the other backend.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use types::NextTokens;

use crate::{
    CompileError, GrammarKind, GrammarSpec, JsonOptions, find,
    llguidance_backend::tests::by_the_library,
    testing::{byte_tokens, follow, vocabulary},
};

fn compile(
    name: &str,
    kind: GrammarKind,
    text: &str,
) -> Result<Box<dyn types::TokenGrammar>, CompileError> {
    let new = find(name).unwrap().new.unwrap();
    let backend = new(&Arc::new(vocabulary()), JsonOptions::default()).unwrap();
    backend.compile(&GrammarSpec::new(kind, text))
}

/// Texts that are whole completions by the outlines backend, and texts that are not.
fn check(schema: serde_json::Value, whole: &[&str], not: &[&str]) {
    let text = schema.to_string();
    let grammar = compile("outlines", GrammarKind::JsonSchema, &text).unwrap();
    let takes = |text: &str| follow(&*grammar, text) == (text.to_owned(), true);
    for text in whole {
        assert!(takes(text), "{schema}: {text}");
    }
    for text in not {
        assert!(!takes(text), "{schema}: {text}");
    }
}

#[test]
fn properties_come_in_order_and_optional_ones_may_be_absent() {
    let integer = json!({"type": "integer"});
    let object = json!({"type": "object", "required": ["b"],
        "properties": {"a": integer, "b": integer, "c": integer}});
    check(
        object,
        &[r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#, r#"{ "b" : 2 , "c":3 }"#],
        &["{}", r#"{"a":1}"#, r#"{"b":2,}"#, r#"{"c":3,"b":2}"#, r#"{,"b":2}"#, r#"{"b":2,"x":1}"#],
    );
    let optional =
        json!({"properties": {"a": integer, "b": integer, "c": integer}, "type": "object"});
    check(
        optional,
        &["{}", r#"{"b":2}"#, r#"{"a":1,"c":3}"#, r#"{"c":3}"#],
        &["{,}", r#"{"a":1 "c":3}"#],
    );
    let map = json!({"type": "object", "additionalProperties": {"type": "boolean"}});
    check(map, &["{}", r#"{"x":true,"\n":false}"#], &[r#"{"x":1}"#, "{x:true}"]);
}

#[test]
fn strings_are_counted_matched_and_escaped() {
    let string = |key: &str, value: serde_json::Value| json!({"type": "string", key: value});
    check(
        string("maxLength", json!(2)),
        &[r#""""#, r#""aé""#, r#""\u00e9\n""#, r#""\ud83d\ude00a""#],
        &[r#""abc""#, r#""\ud83d""#, "\"\n\""],
    );
    check(
        string("pattern", json!("^a\"[\\d\\\\]$")),
        &[r#""a\"1""#, r#""a\"\\""#],
        &[r#""a"1""#, r#""a\"1 ""#],
    );
    check(
        string("pattern", json!("b")),
        &[r#""abc""#, r#""b""#, r#""\"b\"""#],
        &[r#""ac""#, r#""""#],
    );
    check(
        string("format", json!("date")),
        &[r#""2024-12-31""#],
        &[r#""2024-13-01""#, r#""2024-02-30""#],
    );
    check(
        json!({"enum": ["a.b", [1, {"k": null}], 2.5]}),
        &[r#""a.b""#, r#"[ 1,{"k": null} ]"#, "2.5"],
        &[r#""axb""#, "[1]", "2"],
    );
    check(json!({"type": "integer", "enum": [1, "x", 2.5]}), &["1"], &[r#""x""#, "2.5"]);
}

#[test]
fn arrays_are_counted_and_recursion_ends_after_a_few_levels() {
    let bits = json!({"type": "array", "items": {"enum": [0, 1]}, "minItems": 1, "maxItems": 3});
    check(bits, &["[0]", "[0, 1,1]"], &["[]", "[0,1,0,1]", "[0,]", "[2]"]);
    let pair =
        json!({"type": "array", "prefixItems": [{"const": "k"}], "items": {"type": "integer"}});
    check(pair, &[r#"["k"]"#, r#"["k",1,2]"#], &[r#"[1]"#, r#"["k","k"]"#]);
    let list = json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "required": ["v"],
        "properties": {"v": {"type": "null"}, "next": {"$ref": "#/$defs/n"}}}}});
    let deep = r#"{"v":null,"next":{"v":null,"next":{"v":null}}}"#;
    check(list, &[r#"{"v":null}"#, deep], &[&deep.replace("null}", r#"null,"next":{"v":null}}"#)]);
    check(json!({}), &["[[1],{\"a\":2}]", "null", "{}"], &["[[[[1]]]]", "[1,]"]);
}

#[test]
fn what_is_not_regular_is_refused_by_name() {
    for (schema, reason) in [
        (json!({"minimum": 3}), "`minimum` is not supported"),
        (json!({"items": {"not": {}}}), "`not` is not supported"),
        (json!({"anyOf": [{}], "type": "null"}), "`type` beside `anyOf` is not supported"),
        (json!({"type": "object", "required": ["a"], "properties": {"b": {}}}), "`a` is required"),
        (json!({"$ref": "#"}), "none within 3 levels of recursion"),
        (json!({"type": "string", "format": "email"}), "the format `email` is not supported"),
        (json!({"type": "string", "pattern": "a$b"}), "the pattern `a$b` is not supported"),
        (json!({"type": "string", "maxLength": 10_000_000}), "exceeded limit"),
        (json!({"type": "nothing"}), "there is no type `nothing`"),
    ] {
        let error = compile("outlines", GrammarKind::JsonSchema, &schema.to_string()).unwrap_err();
        assert!(error.to_string().contains(reason), "{schema}: {error}");
    }
    for kind in [GrammarKind::Ebnf, GrammarKind::StructuralTag] {
        let error = compile("outlines", kind, "root ::= \"a\"").unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("the grammar backend outlines does not support {kind}")),
            "{error}"
        );
    }
}

/// Plain regular expressions over a few characters.
fn regexes() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("é".to_owned()),
        Just("[a-c]".to_owned()),
        Just("[^a]".to_owned()),
        Just(".".to_owned()),
        Just(r"\d".to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let many = prop::collection::vec(inner.clone(), 1..4);
        let quantifier =
            prop_oneof![Just("*"), Just("+"), Just("?"), Just("{0,2}"), Just("{2}"), Just("{1,}")];
        prop_oneof![
            many.clone().prop_map(|parts| parts.concat()),
            many.prop_map(|parts| format!("({})", parts.join("|"))),
            (inner, quantifier).prop_map(|(inner, quantifier)| format!("(?:{inner}){quantifier}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn an_automaton_allows_the_tokens_that_llguidance_allows(regex in regexes(), text in "[abé1t]{0,6}") {
        let mut ours = compile("outlines", GrammarKind::Regex, &regex).unwrap();
        let mut theirs = by_the_library(&Arc::new(vocabulary()), &regex);
        for token in byte_tokens(&text) {
            let (mine, other) = (ours.next_tokens().unwrap(), theirs.next_tokens().unwrap());
            prop_assert_eq!(&mine, &other, "{} in {}", regex, text);
            let NextTokens::Of(mask) = mine else { unreachable!() };
            let is_allowed = mask[token as usize / 32] >> (token % 32) & 1 == 1;
            prop_assert_eq!(ours.accept(token).is_ok(), is_allowed);
            prop_assert_eq!(theirs.accept(token).is_ok(), is_allowed);
            if !is_allowed {
                break;
            }
        }
    }
}
