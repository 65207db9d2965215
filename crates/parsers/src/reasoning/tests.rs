//! Every format against upstream's parser, and against itself in pieces.

use serde_json::{Map, Value, json};

use super::*;
use crate::fixtures::{cases, cuts};

fn in_pieces(entry: &ReasoningEntry, case: &Value, streams: bool, pieces: &[&str]) -> Separated {
    let options = ReasoningOptions { begins: begins(case), streams, continued: "" };
    let mut stream = ReasoningStream::new(entry, options);
    let mut all = Separated::default();
    let mut add = |part: Separated| {
        all.reasoning.push_str(&part.reasoning);
        all.content.push_str(&part.content);
    };
    pieces.iter().for_each(|piece| add(stream.push(piece)));
    add(stream.finish());
    all
}

fn begins(case: &Value) -> Begins {
    case["forced"].as_bool().map_or(Begins::ByHabit, Begins::IfAsked)
}

fn entry_of(case: &Value) -> &'static ReasoningEntry {
    find(case["parser"].as_str().unwrap()).unwrap()
}

#[test]
fn outputs_are_separated_as_upstream_does() {
    for case in cases("reasoning") {
        let text = case["text"].as_str().unwrap();
        let separated = Separated::of_text(entry_of(&case), begins(&case), text);
        let found = json!({"reasoning": separated.reasoning, "content": separated.content});
        let expected = case.get("ours").unwrap_or(&case["upstream"]);
        assert_eq!(found, *expected, "{} {}", case["parser"], case["title"]);
    }
}

#[test]
fn it_does_not_matter_how_the_text_is_cut() {
    for case in cases("reasoning") {
        let (entry, text) = (entry_of(&case), case["text"].as_str().unwrap());
        let whole = Separated::of_text(entry, begins(&case), text);
        for pieces in cuts(text) {
            for streams in [true, false] {
                assert_eq!(in_pieces(entry, &case, streams, &pieces), whole, "{pieces:?}");
            }
        }
    }
}

#[test]
fn reasoning_that_is_not_streamed_comes_at_its_end() {
    let begins = Begins::IfAsked(true);
    let options = ReasoningOptions { begins, streams: false, continued: "" };
    let mut stream = ReasoningStream::new(find("qwen3").unwrap(), options);
    assert_eq!(stream.push("<think>I th"), Separated::default());
    assert_eq!(stream.push("ink</thi"), Separated::default());
    assert_eq!(stream.push("nk>").reasoning, "I think");
    assert_eq!(stream.push("Yes").content, "Yes");
}

#[test]
fn a_continued_message_says_whether_its_reasoning_is_over() {
    let rest_of = |continued| {
        let begins = Begins::IfAsked(true);
        let options = ReasoningOptions { begins, streams: true, continued };
        let mut stream = ReasoningStream::new(find("qwen3").unwrap(), options);
        let separated = stream.push("and</think>so");
        (separated.reasoning, separated.content)
    };
    assert_eq!(rest_of("<think>I think"), ("and".to_owned(), "so".to_owned()));
    assert_eq!(rest_of("<think>x</think>Well"), (String::new(), "and</think>so".to_owned()));
    assert_eq!(rest_of("Well"), ("and".to_owned(), "so".to_owned()));
}

#[test]
fn what_the_prompt_shows_wins_over_habit() {
    let reasoning_of = |name: &str, begins| {
        Separated::of_text(find(name).unwrap(), begins, "x</think>y").reasoning
    };
    for (name, by_habit, asked, not_asked) in
        [("deepseek-r1", "x", "x", "x"), ("qwen3", "", "x", ""), ("kimi", "", "", "")]
    {
        assert_eq!(reasoning_of(name, Begins::ByHabit), by_habit, "{name}");
        assert_eq!(reasoning_of(name, Begins::IfAsked(true)), asked, "{name}");
        assert_eq!(reasoning_of(name, Begins::IfAsked(false)), not_asked, "{name}");
        assert_eq!(reasoning_of(name, Begins::Known(false)), "", "{name}");
    }
    assert_eq!(reasoning_of("qwen3", Begins::Known(true)), "x");
}

#[test]
fn toggles_read_the_request() {
    let kwargs = |json: Value| json.as_object().unwrap().clone();
    let on = Toggle::Kwarg { name: "enable_thinking", default: true };
    let off = Toggle::Kwarg { name: "enable_thinking", default: false };
    for (variables, expected) in [
        (json!({}), (true, false)),
        (json!({"enable_thinking": false}), (false, false)),
        (json!({"enable_thinking": true}), (true, true)),
        (json!({"enable_thinking": null, "thinking": false}), (true, false)),
    ] {
        let kwargs = kwargs(variables);
        assert_eq!((on.is_on(&kwargs, false), off.is_on(&kwargs, false)), expected);
    }
    let effort = |has_effort| Toggle::Effort.is_on(&Map::new(), has_effort);
    assert_eq!([effort(false), effort(true)], [false, true]);
    assert!(Toggle::Always.is_on(&Map::new(), false));
}

#[test]
fn the_registry_is_sorted() {
    assert!(REASONING_PARSERS.is_sorted_by(|a, b| a.name < b.name));
    let error = find("qwen").unwrap_err().to_string();
    assert!(error.starts_with("unknown reasoning parser `qwen`; known: deepseek-r1, "), "{error}");
}
