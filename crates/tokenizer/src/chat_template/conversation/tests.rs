//! Conversations by name and by file, against SGLang's own code.

use std::{collections::BTreeMap, fs};

use serde::Deserialize;
use serde_json::json;

use super::super::{ChatTemplate, RenderOptions};
use super::*;
use crate::SpecialTokens;

/// Written by `tools/oracle/conversations.py`.
#[derive(Deserialize)]
struct Goldens {
    stop_strings: BTreeMap<String, Vec<String>>,
    cases: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    name: Option<String>,
    file: Option<Value>,
    case: String,
    messages: Vec<Value>,
    #[serde(default)]
    continued: bool,
    expected: String,
}

fn goldens() -> Goldens {
    let text = include_str!("../../../testdata/chat_templates/conversations.json");
    serde_json::from_str(text).unwrap()
}

fn template(argument: impl AsRef<Path>) -> Result<ChatTemplate, ChatTemplateError> {
    ChatTemplate::from_argument(argument.as_ref(), SpecialTokens::default())
}

/// The template of a JSON file.
fn of_file(file: &Value) -> Result<ChatTemplate, ChatTemplateError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.json");
    fs::write(&path, file.to_string()).unwrap();
    template(path)
}

#[test]
fn prompts_are_those_of_sglang() {
    for case in goldens().cases {
        let (template, what) = match (&case.name, &case.file) {
            (Some(name), None) => (template(name), name.clone()),
            (_, Some(file)) => (of_file(file), file["sep_style"].to_string()),
            (None, None) => panic!("{}: neither a name nor a file", case.case),
        };
        let options =
            RenderOptions { continue_final_message: case.continued, ..RenderOptions::default() };
        let prompt = template.unwrap().render(&case.messages, &options).unwrap();
        assert_eq!(prompt, case.expected, "{what}/{}", case.case);
    }
}

#[test]
fn names_and_stop_strings_are_those_of_sglang() {
    let goldens = goldens().stop_strings;
    assert_eq!(Conversation::names(), goldens.keys().cloned().collect::<Vec<_>>());
    for (name, stops) in goldens {
        let template = template(&name).unwrap();
        assert_eq!(template.stop_strings(), stops, "{name}");
        assert!(template.adds_special_tokens(), "{name}");
    }
}

#[test]
fn an_unknown_name_lists_the_known() {
    let error = template("llama-9").unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("no chat template file 'llama-9', and none of that name (known: chatml, "),
        "{text}"
    );
    assert!(text.ends_with(", vicuna_v1.1, whisper)") && !error.is_request_fault(), "{text}");
}

#[test]
fn incomplete_files_name_what_they_lack() {
    let whole = json!({"name": "mine", "system": "S", "user": "U", "assistant": "A",
        "sep_style": "LLAMA2", "sep2": "<2>", "stop_str": ["<stop>"]});
    assert_eq!(of_file(&whole).unwrap().stop_strings(), ["<stop>"]);
    let changed = |key: &str, value: Value| {
        let mut file = whole.clone();
        file[key] = value;
        of_file(&file).unwrap_err().to_string()
    };
    for (key, value, expected) in [
        ("sep_style", json!("llama2"), "mine.json: unknown sep_style 'llama2' (known: ADD_COLON_"),
        ("user", json!(5), "mine.json: user is not a string"),
        ("stop_str", json!([5]), "mine.json: stop_str is neither a string nor a list of strings"),
    ] {
        assert!(changed(key, value).contains(expected), "{key}");
    }
    for (key, expected) in [
        ("system", "mine.json: system is missing"),
        ("assistant", "mine.json: assistant is missing"),
        ("name", "mine.json: name is missing"),
        ("sep2", "mine.json: sep_style LLAMA2 needs a sep2"),
    ] {
        let mut file = whole.clone();
        file.as_object_mut().unwrap().remove(key);
        let text = of_file(&file).unwrap_err().to_string();
        assert!(text.ends_with(expected), "{text}");
    }
}

#[test]
fn roles_that_it_lacks_are_refused() {
    let messages = [json!({"role": "tool", "content": "x"})];
    let error = template("chatml").unwrap().render(&messages, &RenderOptions::default());
    assert_eq!(error.unwrap_err().to_string(), "Unknown role: tool");
}
