//! Chat templates: goldens, message forms, bounds.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::*;

/// Written by `tools/oracle/chat_templates.py`.
#[derive(Deserialize)]
struct Goldens {
    special_tokens: Map<String, Value>,
    cases: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    template: String,
    name: String,
    messages: Vec<Value>,
    #[serde(default)]
    tools: Vec<Value>,
    #[serde(default = "yes")]
    add_generation_prompt: bool,
    #[serde(default)]
    kwargs: Map<String, Value>,
    expected: Option<String>,
    error: Option<String>,
}

fn yes() -> bool {
    true
}

/// The goldens' 5 July 2024, 09:05:03.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_720_170_303)
}

fn testdata(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/chat_templates");
    std::fs::read_to_string(dir.join(name)).unwrap()
}

fn special_tokens() -> SpecialTokens {
    let mut tokens = SpecialTokens::default();
    tokens.set("bos_token", "<s>");
    tokens.set("eos_token", "</s>");
    tokens
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, special_tokens()).unwrap()
}

fn user(content: &str) -> Value {
    json!({"role": "user", "content": content})
}

fn render(source: &str, messages: &[Value]) -> Result<String, ChatTemplateError> {
    template(source).render(messages, &RenderOptions { now: now(), ..Default::default() })
}

#[test]
fn prompts_equal_those_of_transformers() {
    let goldens: Goldens = serde_json::from_str(&testdata("cases.json")).unwrap();
    let mut tokens = SpecialTokens::default();
    tokens.merge_json(&goldens.special_tokens);
    for case in goldens.cases {
        let source = testdata(&format!("{}.jinja", case.template));
        let template = ChatTemplate::new(&source, tokens.clone()).unwrap();
        let options = RenderOptions {
            tools: case.tools,
            add_generation_prompt: case.add_generation_prompt,
            kwargs: case.kwargs,
            now: now(),
            ..RenderOptions::default()
        };
        let name = format!("{}/{}", case.template, case.name);
        match (template.render(&case.messages, &options), case.expected, case.error) {
            (Ok(prompt), Some(expected), None) => assert_eq!(prompt, expected, "{name}"),
            (Err(error), None, Some(expected)) => {
                assert!(matches!(error, ChatTemplateError::Raised(_)), "{name}: {error:?}");
                assert_eq!(error.to_string(), expected, "{name}");
                assert!(error.is_request_fault());
            }
            (result, expected, error) => panic!("{name}: {result:?}, not {expected:?} {error:?}"),
        }
    }
}

#[test]
fn content_format_is_found_by_trying() {
    for (name, expected) in [
        ("smollm2", ContentFormat::String),
        ("header_ids", ContentFormat::String),
        ("inst", ContentFormat::String),
        ("chatml_tools", ContentFormat::String),
        ("parts", ContentFormat::Openai),
    ] {
        let template = template(&testdata(&format!("{name}.jinja")));
        assert_eq!(template.content_format(), expected, "{name}");
    }
    for (source, expected) in [
        ("{{ messages[0].content }}", ContentFormat::String),
        ("{{ messages[0].content | tojson }}", ContentFormat::String),
        ("{% for part in messages[0].content %}{{ part.text }}{% endfor %}", ContentFormat::Openai),
        ("{{ raise_exception('no') }}", ContentFormat::String),
    ] {
        assert_eq!(template(source).content_format(), expected, "{source}");
    }
}

#[test]
fn text_parts_are_joined_where_the_template_wants_a_string() {
    let parts = json!({"role": "user", "content": [
        {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]});
    assert_eq!(render("{{ messages[0].content }}", std::slice::from_ref(&parts)).unwrap(), "a b");
    let source = "{% for part in messages[0].content %}<{{ part.text }}>{% endfor %}";
    assert_eq!(render(source, &[parts]).unwrap(), "<a><b>");
}

#[test]
fn missing_content_is_empty_and_arguments_are_parsed() {
    let call = |arguments| json!({"function": {"name": "f", "arguments": arguments}});
    let message = json!({"role": "assistant", "content": null,
        "tool_calls": [call(json!("{\"b\": 1, \"a\": \"<\"}")), call(json!("{broken")), call(json!({"c": 2}))]});
    let source = "[{{ messages[0].content }}]{% for call in messages[0].tool_calls %}{{ call.function.arguments | tojson }}{% endfor %}";
    assert_eq!(render(source, &[message]).unwrap(), r#"[]{"b": 1, "a": "<"}"{broken"{"c": 2}"#);
    assert_eq!(render(source, &[json!({"role": "assistant"})]).unwrap(), "[]");
}

#[test]
fn bad_messages_are_named() {
    for (message, expected) in [
        (json!("text"), "messages[1] is not an object"),
        (json!({"content": "x"}), "messages[1] has no role"),
        (json!({"role": 1}), "messages[1] has no role"),
        (
            json!({"role": "user", "content": 5}),
            "messages[1] has a content that is neither text nor a list of parts",
        ),
        (json!({"role": "user", "content": [5]}), "messages[1] has a content part without a type"),
        (
            json!({"role": "user", "content": [{"type": "text"}]}),
            "messages[1] has a text part without text",
        ),
        (
            json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}),
            "messages[1] has a content part of unsupported type 'image_url'",
        ),
    ] {
        let error = render("{{ messages }}", &[user("fine"), message]).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(error.is_request_fault());
    }
}

#[test]
fn the_final_message_is_continued() {
    let source = testdata("chatml_tools.jinja");
    let messages = [user("Count."), json!({"role": "assistant", "content": "One, "})];
    let options = RenderOptions {
        continue_final_message: true,
        add_generation_prompt: false,
        ..RenderOptions::default()
    };
    let prompt = template(&source).render(&messages, &options).unwrap();
    assert!(prompt.ends_with("Count.<|im_end|>\n<|im_start|>assistant\nOne, "), "{prompt}");
    // Nothing to continue.
    let prompt = template(&source).render(&messages[..1], &options).unwrap();
    assert!(prompt.ends_with("Count.<|im_end|>\n"), "{prompt}");
}

#[test]
fn arguments_win_over_kwargs_and_kwargs_over_special_tokens() {
    let kwargs = json!({"messages": "x", "bos_token": "<kw>", "depth": {"b": 1, "a": [2]}});
    let options =
        RenderOptions { kwargs: kwargs.as_object().unwrap().clone(), ..RenderOptions::default() };
    let source =
        "{{ bos_token }}{{ eos_token }}{{ messages | length }}{{ depth }}{{ tools is none }}";
    let prompt = template(source).render(&[user("a")], &options).unwrap();
    assert_eq!(prompt, "<kw></s>1{'b': 1, 'a': [2]}True");
}

#[test]
fn broken_templates_are_errors() {
    let error = ChatTemplate::new("{% if %}", SpecialTokens::default()).unwrap_err();
    assert!(matches!(error, ChatTemplateError::Syntax(_)));
    assert!(!error.is_request_fault());
    let error = render("{{ messages[0].content.nothing.more }}", &[user("a")]).unwrap_err();
    assert!(matches!(error, ChatTemplateError::Render(_)), "{error:?}");
}

#[test]
fn hostile_templates_run_out_of_budget() {
    let loops =
        "{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}{% endfor %}";
    let doubling = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    let shared = "{% set ns = namespace(x=['aaaaaaaa']) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}";
    for source in [loops, doubling, shared] {
        let error = render(source, &[user("a")]).unwrap_err();
        assert!(matches!(error, ChatTemplateError::OutOfBudget), "{error:?}");
    }
    let recursion = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
    let error = render(recursion, &[user("a")]).unwrap_err();
    assert!(matches!(error, ChatTemplateError::Render(_)), "{error:?}");
}

#[test]
fn a_long_chat_stays_within_the_budget() {
    let source = testdata("chatml_tools.jinja");
    let messages: Vec<_> = (0..2000)
        .map(|turn| json!({"role": if turn % 2 == 0 { "user" } else { "assistant" }, "content": "word ".repeat(500)}))
        .collect();
    let prompt = template(&source).render(&messages, &RenderOptions::default()).unwrap();
    assert!(prompt.len() > 2000 * 2500);
}
