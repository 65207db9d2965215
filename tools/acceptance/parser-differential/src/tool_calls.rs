//! Tool calls.

use std::{cell::RefCell, sync::Arc};

use parsers::tool_call::{ParsedCalls, ToolCallStream, ToolEvent, Tools, find};
use serde_json::Value;
use tool_parser::{ParserFactory, ToolParser};

use crate::{Found, Outcome, Sides, Table, cases};

/// Our names beside theirs.
const FAMILIES: &[(&str, &str)] = &[
    ("deepseekv3", "deepseek"),
    ("deepseekv31", "deepseek31"),
    ("gemma4", "gemma4"),
    ("glm45", "glm45_moe"),
    ("glm47", "glm47_moe"),
    ("hermes", "qwen"),
    ("kimi_k2", "kimik2"),
    ("llama3", "llama"),
    ("minimax-m2", "minimax_m2"),
    ("mistral", "mistral"),
    ("pythonic", "pythonic"),
    ("qwen25", "qwen"),
    ("qwen3_coder", "qwen_coder"),
];

/// Empty pieces after a piece, at most.
const MAX_MORE: usize = 200;

pub(crate) fn compare(outputs: &Value, table: &mut Table, shows_all: bool) {
    let list = outputs["tools"].as_array().expect("a list");
    let tools = Arc::new(Tools::new(list).expect("tools"));
    let their_tools: Vec<_> =
        list.iter().map(|tool| serde_json::from_value(tool.clone()).expect("a tool")).collect();
    let factory = ParserFactory::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for (case, _) in cases(outputs, "tool_call") {
        let Some((_, name)) = FAMILIES.iter().find(|(ours, _)| *ours == case.family) else {
            continue;
        };
        let entry = find(&case.family).expect("a parser of ours");
        let parser = factory.registry().create_parser(name).expect("a parser of theirs");
        let theirs = RefCell::new(parser);
        table.compare(
            &case,
            &Sides {
                ours: &|pieces| {
                    let mut stream = ToolCallStream::new(entry, Arc::clone(&tools));
                    let mut events: Vec<ToolEvent> =
                        pieces.iter().flat_map(|piece| stream.push(piece)).collect();
                    events.extend(stream.finish());
                    ours(events.into_iter().collect())
                },
                theirs_whole: &|text| {
                    let parsed = runtime
                        .block_on(theirs.borrow().parse_complete_with_tools(text, &their_tools))
                        .map_err(|error| error.to_string())?;
                    let calls = parsed.1.into_iter().map(|call| call.function);
                    let calls = calls.map(|call| (call.name, json_of(&call.arguments)));
                    Ok(Found { texts: vec![parsed.0], calls: calls.collect() })
                },
                theirs_streamed: &|pieces| {
                    let mut parser = theirs.borrow_mut();
                    parser.reset();
                    runtime.block_on(streamed(&mut **parser, pieces, &their_tools))
                },
            },
            shows_all,
        );
    }
}

fn ours(parsed: ParsedCalls) -> Found {
    let calls = parsed.calls.into_iter().map(|call| (call.name, json_of(&call.arguments)));
    Found { texts: vec![parsed.text], calls: calls.collect() }
}

/// Arguments as a value: the ways to write one down are not compared.
fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(format!("not JSON: {text}")))
}

/// Their parsers report one thing a call, as if text came in small pieces; so each piece is
/// followed by empty ones until nothing comes any more.
async fn streamed(
    parser: &mut dyn ToolParser,
    pieces: &[&str],
    tools: &[openai_protocol::common::Tool],
) -> Outcome {
    let mut text = String::new();
    let mut calls: Vec<(String, String)> = Vec::new();
    let mut items = Vec::new();
    for &piece in pieces {
        let mut num_silent = 0;
        let mut num_more = 0;
        let mut piece = piece;
        while num_silent < 3 {
            num_more += 1;
            if num_more > MAX_MORE {
                return Err("says something new at every empty piece".to_owned());
            }
            let result = parser.parse_incremental(piece, tools).await.map_err(|e| e.to_string())?;
            let is_silent = result.normal_text.is_empty() && result.calls.is_empty();
            num_silent = if is_silent { num_silent + 1 } else { 0 };
            text.push_str(&result.normal_text);
            items.extend(result.calls);
            piece = "";
        }
    }
    items.extend(parser.get_unstreamed_tool_args().unwrap_or_default());
    text.push_str(&parser.take_unstreamed_normal_text());
    for item in items {
        if calls.len() <= item.tool_index {
            calls.resize(item.tool_index + 1, Default::default());
        }
        let call = &mut calls[item.tool_index];
        call.0.push_str(&item.name.unwrap_or_default());
        call.1.push_str(&item.parameters);
    }
    let calls = calls.into_iter().map(|(name, arguments)| (name, json_of(&arguments)));
    Ok(Found { texts: vec![text], calls: calls.collect() })
}
