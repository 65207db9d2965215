//! Tries published chat templates against what transformers made of them.
//!
//!     python tools/oracle/chat_templates.py FOLDER
//!     cargo run -p tokenizer --example chat_templates FOLDER
//!
//! The first renders a battery of conversations with every `*.jinja` of the folder; this renders
//! them again and prints where the two differ.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of developers")]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value};
use tokenizer::{ChatTemplate, ChatTemplateError, RenderOptions, SpecialTokens};

/// 5 July 2024, 09:05:03.
const NOW: Duration = Duration::from_secs(1_720_170_303);

fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args().nth(1).expect("a folder"));
    let cases: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("cases.json")).unwrap()).unwrap();
    let special_tokens = cases["special_tokens"].as_object().unwrap();
    let mut templates = BTreeMap::new();
    let (mut same, mut failed) = (0, 0);
    for case in cases["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let template = templates.entry(name).or_insert_with(|| {
            let source = fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
            ChatTemplate::new(&source, SpecialTokens::default())
        });
        match difference(template, case, special_tokens) {
            None => same += 1,
            Some(difference) => {
                failed += 1;
                println!("{name}/{}: {difference}\n", case["name"].as_str().unwrap());
            }
        }
    }
    println!("{same} the same, {failed} not, of {} templates", templates.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where our rendering is another one.
fn difference(
    template: &Result<ChatTemplate, ChatTemplateError>,
    case: &Value,
    special_tokens: &Map<String, Value>,
) -> Option<String> {
    let mut kwargs = special_tokens.clone();
    kwargs.extend(case.get("kwargs").and_then(Value::as_object).cloned().unwrap_or_default());
    let options = RenderOptions {
        tools: case.get("tools").and_then(Value::as_array).cloned().unwrap_or_default(),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap_or(true),
        kwargs,
        now: SystemTime::UNIX_EPOCH + NOW,
        ..RenderOptions::default()
    };
    let rendered = match template {
        Ok(template) => template.render(case["messages"].as_array().unwrap(), &options),
        Err(error) => return Some(error.to_string()),
    };
    match (rendered, case["expected"].as_str(), case["error"].as_str()) {
        (Ok(prompt), Some(expected), _) if prompt == expected => None,
        (Ok(prompt), Some(expected), _) => Some(first_difference(&prompt, expected)),
        (Ok(_), None, None) => None, // More lenient than Python.
        (Ok(prompt), None, Some(error)) => Some(format!("{prompt:?} instead of error {error:?}")),
        (Err(error), None, Some(expected)) if error.to_string() != expected => {
            Some(format!("error {:?}, not {expected:?}", error.to_string()))
        }
        (Err(_), None, _) => None,
        (Err(error), Some(_), _) => Some(error.to_string()),
    }
}

fn first_difference(found: &str, expected: &str) -> String {
    let common = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
    let around =
        |text: &str| -> String { text.chars().skip(common.saturating_sub(60)).take(160).collect() };
    format!("at {common}:\n  found    {:?}\n  expected {:?}", around(found), around(expected))
}
