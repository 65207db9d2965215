//! Chat templates of strangers and messages of clients. The input is a template, a line
//! `----`, and JSON: a list of messages, or an object with `messages`, `tools` and `kwargs`.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tokenizer::{ChatTemplate, RenderOptions, SpecialTokens};

/// Four times what a template of a model with tools comes to.
const MAX_PROMPT_BYTES: usize = 64 << 20;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (source, json) = text.split_once("\n----\n").unwrap_or((text, ""));
    let mut input: Value = serde_json::from_str(json).unwrap_or_else(
        |_| json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": json}]),
    );
    if input.is_array() {
        input = json!({"messages": input});
    }
    let list = |name: &str| input[name].as_array().cloned().unwrap_or_default();
    let Ok(template) = ChatTemplate::new(source, SpecialTokens::default()) else { return };
    let options = RenderOptions {
        tools: list("tools"),
        kwargs: input["kwargs"].as_object().cloned().unwrap_or_else(Map::new),
        continue_final_message: input["continue"] == true,
        now: SystemTime::UNIX_EPOCH,
        ..RenderOptions::default()
    };
    if let Ok(prompt) = template.render(&list("messages"), &options) {
        assert!(prompt.len() <= MAX_PROMPT_BYTES, "a prompt of {} bytes", prompt.len());
    }
}
