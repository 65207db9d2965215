//! Every format against upstream's parser, and against itself in pieces.

use std::{sync::LazyLock, time::Instant};

use serde_json::{Map, Value, json};

use super::*;
use crate::fixtures::{cases, cuts, tools};

fn offered() -> Arc<Tools> {
    static TOOLS: LazyLock<Arc<Tools>> = LazyLock::new(|| Arc::new(Tools::new(&tools()).unwrap()));
    Arc::clone(&TOOLS)
}

fn in_pieces(entry: &ToolCallEntry, pieces: &[&str]) -> ParsedCalls {
    let mut stream = ToolCallStream::new(entry, offered());
    let mut events: Vec<ToolEvent> = pieces.iter().flat_map(|piece| stream.push(piece)).collect();
    events.extend(stream.finish());
    events.into_iter().collect()
}

/// Arguments as values: the ways to write one down are not compared.
fn found(parsed: &ParsedCalls) -> Value {
    let calls = parsed.calls.iter().map(|call| {
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
        json!([call.name, arguments])
    });
    json!({"text": parsed.text, "calls": calls.collect::<Vec<_>>()})
}

fn expected(case: &Value) -> Value {
    let mut expected = case.get("ours").unwrap_or(&case["upstream"]).clone();
    for call in expected["calls"].as_array_mut().unwrap() {
        call[1] = serde_json::from_str(call[1].as_str().unwrap()).unwrap();
    }
    expected
}

#[test]
fn outputs_are_understood_as_upstream_does() {
    for case in cases("tool_call") {
        let entry = find(case["parser"].as_str().unwrap()).unwrap();
        let parsed = ParsedCalls::of_text(entry, offered(), case["text"].as_str().unwrap());
        assert_eq!(found(&parsed), expected(&case), "{} {}", case["parser"], case["title"]);
    }
}

#[test]
fn it_does_not_matter_how_the_text_is_cut() {
    for case in cases("tool_call") {
        let entry = find(case["parser"].as_str().unwrap()).unwrap();
        let text = case["text"].as_str().unwrap();
        let whole = ParsedCalls::of_text(entry, offered(), text);
        for pieces in cuts(text) {
            assert_eq!(in_pieces(entry, &pieces), whole, "{} {pieces:?}", entry.name);
        }
    }
}

/// Nothing panics, and what is reported as complete is.
#[test]
fn unfinished_and_foreign_outputs_are_text() {
    let check = |entry, text: &str| {
        let whole = ParsedCalls::of_text(entry, offered(), text);
        let chars = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
        assert_eq!(in_pieces(entry, &chars.collect::<Vec<_>>()), whole, "{} {text:?}", entry.name);
        for call in &whole.calls {
            assert!(serde_json::from_str::<Map<_, _>>(&call.arguments).is_ok(), "{text:?}");
        }
    };
    for case in cases("tool_call") {
        let text = case["text"].as_str().unwrap();
        let entry = find(case["parser"].as_str().unwrap()).unwrap();
        text.char_indices().for_each(|(at, _)| check(entry, &text[..at]));
        TOOL_CALL_PARSERS.iter().for_each(|entry| check(entry, text));
    }
}

/// Outputs cut up and put together anew, for every format; the fuzz target does the same for longer.
#[test]
fn scrambled_outputs_are_the_same_in_pieces() {
    let cases = cases("tool_call");
    let texts: Vec<&str> = cases.iter().map(|case| case["text"].as_str().unwrap()).collect();
    let words = [
        "null", "\"", "{", "}", "[", "]", ":", ",", "\\", "\\ud83d", "-1e5", "\n", "é", "<", "```",
    ];
    let mut dice = Dice(1);
    for round in 0..1500 {
        let entry = &TOOL_CALL_PARSERS[round % TOOL_CALL_PARSERS.len()];
        let own: Vec<_> = cases.iter().filter(|case| case["parser"] == entry.name).collect();
        let mut text = String::new();
        for _ in 0..2 + dice.below(4) {
            let source = match dice.below(8) {
                0 => texts[dice.below(texts.len())],
                1 | 2 => words[dice.below(words.len())],
                _ if own.is_empty() => texts[dice.below(texts.len())],
                _ => own[dice.below(own.len())]["text"].as_str().unwrap(),
            };
            let places: Vec<usize> = source.char_indices().map(|(at, _)| at).collect();
            let end = places[dice.below(places.len())];
            let is_whole = dice.below(3) == 0;
            text.push_str(if is_whole { source } else { &source[..end] });
            if dice.below(4) == 0 {
                text.push_str(&source[places[dice.below(places.len())]..]);
            }
        }
        let whole = ParsedCalls::of_text(entry, offered(), &text);
        for call in &whole.calls {
            let arguments = serde_json::from_str::<Map<_, _>>(&call.arguments);
            assert!(arguments.is_ok(), "{} {text:?}: {call:?}", entry.name);
        }
        for longest in [1, 16] {
            let pieces = dice.cut(&text, longest);
            assert_eq!(in_pieces(entry, &pieces), whole, "{} {pieces:?}", entry.name);
        }
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }

    fn cut<'a>(&mut self, text: &'a str, longest: usize) -> Vec<&'a str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let len = 1 + self.below(longest);
            let at = rest.char_indices().nth(len).map_or(rest.len(), |(at, _)| at);
            let (piece, left) = rest.split_at(at);
            pieces.push(piece);
            rest = left;
        }
        pieces
    }
}

/// Found by fuzzing.
#[test]
fn odd_outputs_are_the_same_in_pieces() {
    let call = "<|channel|>commentary to=functions.fly<|message|>{}<|call.";
    for (name, text, expected) in [("gpt-oss", call, ""), ("gpt-oss", &call[..40], "")] {
        let entry = find(name).unwrap();
        let whole = ParsedCalls::of_text(entry, offered(), text);
        assert_eq!((whole.text.as_str(), whole.calls.len()), (expected, 0), "{text}");
        for pieces in cuts(text) {
            assert_eq!(in_pieces(entry, &pieces), whole, "{name} {pieces:?}");
        }
    }
}

/// Clients take arguments for an object.
#[test]
fn arguments_are_an_object_or_there_is_no_call() {
    let object = r#"{"city": "Bern", "days": 10000000000000000001}"#;
    let nested = |depth| format!(r#"{{"a": {}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    for (members, expected) in [
        (r#""arguments":null"#, Some("{}")),
        (r#""parameters": "" "#, Some("{}")),
        (r#""arguments": " {} ""#, Some("{}")),
        (r#""arguments": {}, "parameters": 5"#, Some("{}")),
        (r#""arguments": "{\"city\":\"Bern\",\"days\":10000000000000000001}""#, Some(object)),
        (
            r#""arguments": null, "parameters": {"city": "Bern","days":10000000000000000001}"#,
            Some(object),
        ),
        (r#""arguments": {"a": "\ud83d\ude00"}"#, Some(r#"{"a": "\ud83d\ude00"}"#)),
        (&format!(r#""arguments": {}"#, nested(126)), Some(nested(126).as_str())),
        (&format!(r#""arguments": {}"#, nested(127)), None),
        (r#""arguments": {"a": "\ud83d"}"#, None),
        (r#""arguments": "Bern""#, None),
        (r#""arguments": "null""#, None),
        (r#""arguments": "{}{}""#, None),
        (r#""arguments": "{""#, None),
        (r#""arguments": "\ud83d""#, None),
        (r#""arguments": 5"#, None),
        (r#""arguments": true"#, None),
        (r#""arguments": [{}]"#, None),
        (r#""arguments": nul"#, None),
    ] {
        for call in [
            format!(r#"{{"name": "get_weather", {members}}}"#),
            format!(r#"{{{members}, "name": "get_weather"}}"#),
        ] {
            let text = format!("<tool_call>[{call}]</tool_call>");
            let entry = find("hermes").unwrap();
            let whole = ParsedCalls::of_text(entry, offered(), &text);
            let calls: Vec<_> = whole.calls.iter().map(|call| &*call.arguments).collect();
            assert_eq!(calls, expected.into_iter().collect::<Vec<_>>(), "{text}");
            assert_eq!(whole.text, if expected.is_some() { "" } else { text.as_str() });
            for pieces in cuts(&text) {
                assert_eq!(in_pieces(entry, &pieces), whole, "{pieces:?}");
            }
        }
    }
}

#[test]
fn a_list_of_lfm2_with_odd_arguments_is_text() {
    let entry = find("lfm2").unwrap();
    let parse = |arguments: &str| {
        let call = format!(r#"{{"name": "now", "arguments": {arguments}}}"#);
        let text = format!("<|tool_call_start|>{call}<|tool_call_end|>");
        let parsed = ParsedCalls::of_text(entry, offered(), &text);
        let is_text = parsed.text == text;
        (parsed.calls.into_iter().map(|call| call.arguments).collect::<Vec<_>>(), is_text)
    };
    assert_eq!(parse("null"), (vec!["{}".to_owned()], false));
    assert_eq!(parse(r#""{\"a\": 1}""#), (vec![r#"{"a": 1}"#.to_owned()], false));
    assert_eq!(parse("5"), (vec![], true));
}

#[test]
fn a_stream_tells_the_name_first_and_arguments_as_they_come() {
    let mut stream = ToolCallStream::new(find("qwen25").unwrap(), offered());
    let mut push = |text: &str| stream.push(text);
    assert_eq!(push("Hm. \n<tool"), [ToolEvent::Text("Hm.".into())]);
    assert_eq!(push("_call>\n{\"name\": \"get_wea"), []);
    assert_eq!(push("ther\", \"argu"), [ToolEvent::Name("get_weather".into())]);
    assert_eq!(push("ments\":{\"city\""), [ToolEvent::Arguments("{\"city\"".into())]);
    assert_eq!(push(":\"Bern\"}"), [ToolEvent::Arguments(": \"Bern\"}".into())]);
    assert_eq!(push("}\n</tool_call>\n"), [ToolEvent::End]);
    assert_eq!(stream.finish(), []);
}

#[test]
fn a_stream_says_when_a_call_turns_out_malformed() {
    let text = "Hm. <tool_call>{\"name\": \"now\", \"arguments\": {]";
    let mut stream = ToolCallStream::new(find("hermes").unwrap(), offered());
    let events = stream.push(text);
    let broken = ToolEvent::Broken(text[3..text.len() - 1].to_owned());
    assert_eq!(events[..2], [ToolEvent::Text("Hm.".into()), ToolEvent::Name("now".into())]);
    assert_eq!(
        events[2..],
        [ToolEvent::Arguments("{".into()), broken, ToolEvent::Text("]".into())]
    );
    assert_eq!(events.into_iter().collect::<ParsedCalls>().text, text);
}

#[test]
fn unknown_functions_are_left_out_or_passed_on() {
    let text = "<tool_call>{\"name\": \"fly\", \"arguments\": {}}</tool_call>";
    let mut stream = ToolCallStream::new(find("qwen").unwrap(), offered());
    assert_eq!(stream.push(text), [ToolEvent::Unknown("fly".into())]);
    let text = "<tool_call><function=fly></function></tool_call>";
    let parsed = ParsedCalls::of_text(find("qwen3_coder").unwrap(), offered(), text);
    assert_eq!(parsed.calls, [ToolCall { name: "fly".into(), arguments: "{}".into() }]);
}

#[test]
fn tools_must_be_functions_with_names() {
    for (tool, problem) in [
        (json!({"type": "web_search"}), "tools[1] is not of type `function`"),
        (json!({"type": "function"}), "tools[1] has no `function`"),
        (json!({"function": {"name": ""}}), "tools[1] has a function without a name"),
        (json!({"function": {"name": "f", "parameters": []}}), "no JSON schema"),
    ] {
        let error = Tools::new(&[json!({"function": {"name": "f"}}), tool]).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn the_registry_is_sorted_and_every_format_has_outputs() {
    assert!(TOOL_CALL_PARSERS.is_sorted_by(|a, b| a.name < b.name));
    let cases = cases("tool_call");
    // Other names of parsers that have outputs.
    let aliases = ["glm", "nanbeige", "qwen", "step3p5"];
    for entry in TOOL_CALL_PARSERS.iter().filter(|entry| !aliases.contains(&entry.name)) {
        assert!(cases.iter().any(|case| case["parser"] == entry.name), "{}", entry.name);
    }
    let error = find("qwen26").unwrap_err().to_string();
    assert!(error.starts_with("unknown tool-call parser `qwen26`; known: deepseekv3, "), "{error}");
}

/// Markup that never becomes a call must not be walked through once for each of its tags.
#[test]
fn a_long_text_of_unfinished_calls_is_read_once() {
    const UNITS: &[&str] = &[
        "[",
        "[f(",
        "<tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [",
        "<tool_call>f<arg_key>a</arg_key><arg_value>",
        "<function=",
        "<function=f><parameter=a>",
        "<minimax:tool_call><invoke name=\"f\"><parameter name=\"a\">",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n",
        "<|tool_call_begin|>1<|tool_call_argument_begin|>",
        "<|channel|>commentary to=functions.f<|message|>",
    ];
    const ENDS: [&str; 3] = [">", "\n", "<|tool_call_end|>"];
    let tools = [json!({"type": "function", "function": {"name": "f"}})];
    let tools = Arc::new(Tools::new(&tools).unwrap());
    let began = Instant::now();
    for unit in UNITS {
        let text = unit.repeat(150_000 / unit.len()) + &ENDS.concat();
        for entry in TOOL_CALL_PARSERS {
            ParsedCalls::of_text(entry, Arc::clone(&tools), &text);
            let seconds = began.elapsed().as_secs();
            assert!(seconds < 30, "{}: {unit}: {seconds} s for all so far", entry.name);
        }
    }
}
