//! Messages as clients send them to messages as templates expect them.

use serde_json::{Map, Value, json};

use super::{ChatTemplateError, ContentFormat};

/// Joins lists of text parts where the template takes strings only, turns a
/// missing content into an empty one and the JSON text of tool call arguments
/// into the value it spells, leaves out what is null and names thoughts.
pub(super) fn normalize(
    messages: &[Value],
    format: ContentFormat,
) -> Result<Vec<Value>, ChatTemplateError> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| normalize_one(index, message, format))
        .collect()
}

fn normalize_one(
    index: usize,
    message: &Value,
    format: ContentFormat,
) -> Result<Value, ChatTemplateError> {
    let problem = |problem| ChatTemplateError::Message { index, problem };
    let mut message = message.as_object().ok_or(problem("is not an object"))?.clone();
    if !message.get("role").is_some_and(Value::is_string) {
        return Err(problem("has no role"));
    }
    let content = match message.get("content") {
        None | Some(Value::Null) => json!(""),
        Some(Value::String(text)) => json!(text),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().map(|part| part_text(index, part));
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            match format {
                ContentFormat::String => json!(texts.join(" ")),
                ContentFormat::Openai => {
                    texts.iter().map(|text| json!({"type": "text", "text": text})).collect()
                }
            }
        }
        Some(_) => return Err(problem("has a content that is neither text nor a list of parts")),
    };
    message.insert("content".to_owned(), content);
    message.retain(|_, value| !value.is_null());
    name_thoughts(&mut message);
    parse_arguments(&mut message);
    Ok(Value::Object(message))
}

fn part_text(index: usize, part: &Value) -> Result<&str, ChatTemplateError> {
    let problem = |problem| ChatTemplateError::Message { index, problem };
    match part.get("type").and_then(Value::as_str) {
        Some("text") => {
            let text = part.get("text").and_then(Value::as_str);
            text.ok_or(problem("has a text part without text"))
        }
        Some(kind) => Err(ChatTemplateError::UnsupportedPart { index, kind: kind.to_owned() }),
        None => Err(problem("has a content part without a type")),
    }
}

/// Thoughts have the name that most templates read, and the one that gpt-oss' reads, whichever
/// of them the client used.
fn name_thoughts(message: &mut Map<String, Value>) {
    const NAMES: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let Some(thoughts) = NAMES.iter().find_map(|name| message.get(*name)).cloned() else { return };
    message.entry("thinking").or_insert_with(|| thoughts.clone());
    message.insert("reasoning_content".to_owned(), thoughts);
}

/// Templates print the arguments as JSON themselves. Text that is none stays.
fn parse_arguments(message: &mut Map<String, Value>) {
    let Some(Value::Array(calls)) = message.get_mut("tool_calls") else { return };
    for call in calls {
        let arguments = call.get_mut("function").and_then(|call| call.get_mut("arguments"));
        if let Some(arguments) = arguments
            && let Some(parsed) =
                arguments.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *arguments = parsed;
        }
    }
}

pub(super) fn is_assistant(message: &Value) -> bool {
    message["role"] == "assistant"
}

/// The text of a normalized message.
pub(super) fn text(message: &Value) -> String {
    match &message["content"] {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        content => content.as_str().unwrap_or_default().to_owned(),
    }
}
