//! Tool calls in generated text: the first byte picks the parser, the second where the text
//! is cut. In pieces as whole, and what is complete is JSON.

use std::sync::{Arc, LazyLock};

use parsers::tool_call::{JSON_ARRAY, ParsedCalls, TOOL_CALL_PARSERS, ToolCallStream, Tools};
use serde_json::{Map, Value};

use crate::{Dice, head};

static TOOLS: LazyLock<Arc<Tools>> = LazyLock::new(|| {
    let outputs = include_str!("../../parsers/testdata/outputs.json");
    let outputs: Value = serde_json::from_str(outputs).expect("JSON");
    Arc::new(Tools::new(outputs["tools"].as_array().expect("a list")).expect("tools"))
});

/// Runs one input.
pub fn run(data: &[u8]) {
    let ([parser, seed], text) = head(data);
    let text = String::from_utf8_lossy(text);
    let parsers: Vec<_> = TOOL_CALL_PARSERS.iter().chain([&JSON_ARRAY]).collect();
    let entry = parsers[usize::from(parser) % parsers.len()];
    let whole = ParsedCalls::of_text(entry, Arc::clone(&TOOLS), &text);
    for call in &whole.calls {
        let arguments = serde_json::from_str::<Map<String, Value>>(&call.arguments);
        assert!(arguments.is_ok(), "{}: {text:?}: {call:?}", entry.name);
    }
    let mut stream = ToolCallStream::new(entry, Arc::clone(&TOOLS));
    let pieces = Dice::new(seed.into()).cut(&text);
    let mut events: Vec<_> = pieces.iter().flat_map(|piece| stream.push(piece)).collect();
    events.extend(stream.finish());
    let streamed: ParsedCalls = events.into_iter().collect();
    assert_eq!(streamed, whole, "{}: {pieces:?}", entry.name);
}
