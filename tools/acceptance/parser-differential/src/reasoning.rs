//! Reasoning.

use parsers::reasoning::{Begins, ReasoningOptions, ReasoningStream, Separated, find};
use reasoning_parser::{ParserFactory, ParserResult, ReasoningParser};
use serde_json::Value;

use crate::{Found, Outcome, Sides, Table, cases};

/// Our names beside theirs.
const FAMILIES: &[(&str, &str)] = &[
    ("deepseek-r1", "deepseek_r1"),
    ("deepseek-v3", "deepseek_v31"),
    ("gemma4", "gemma4"),
    ("glm45", "glm45"),
    ("kimi", "kimi"),
    ("kimi_k2", "kimi_k25"),
    ("minimax-append-think", "minimax"),
    ("nemotron_3", "nano_v3"),
    ("qwen3", "qwen3"),
    ("qwen3-thinking", "qwen3_thinking"),
    ("step3", "step3"),
];

pub(crate) fn compare(outputs: &Value, table: &mut Table, shows_all: bool) {
    let factory = ParserFactory::new();
    for (mut case, recorded) in cases(outputs, "reasoning") {
        let Some((_, name)) = FAMILIES.iter().find(|(ours, _)| *ours == case.family) else {
            continue;
        };
        let entry = find(&case.family).expect("a parser of ours");
        let begins = recorded["forced"].as_bool().map_or(Begins::ByHabit, Begins::IfAsked);
        let new = || {
            let mut parser = factory.registry().create_parser(name).expect("a parser of theirs");
            if begins == Begins::IfAsked(true) {
                parser.mark_reasoning_started();
            }
            parser
        };
        case.family = format!("reasoning {}", case.family);
        table.compare(
            &case,
            &Sides {
                ours: &|pieces| {
                    let options = ReasoningOptions { begins, streams: true, continued: "" };
                    let mut stream = ReasoningStream::new(entry, options);
                    let mut all = Separated::default();
                    let parts = pieces.iter().map(|piece| stream.push(piece)).collect::<Vec<_>>();
                    for part in parts.into_iter().chain([stream.finish()]) {
                        all.reasoning.push_str(&part.reasoning);
                        all.content.push_str(&part.content);
                    }
                    Found { texts: vec![all.reasoning, all.content], calls: Vec::new() }
                },
                theirs_whole: &|text| {
                    let parsed = new().detect_and_parse_reasoning(text);
                    parsed.map(found).map_err(|error| error.to_string())
                },
                theirs_streamed: &|pieces| streamed(new(), pieces),
            },
            shows_all,
        );
    }
}

fn found(parsed: ParserResult) -> Found {
    Found { texts: vec![parsed.reasoning_text, parsed.normal_text], calls: Vec::new() }
}

fn streamed(mut parser: Box<dyn ReasoningParser>, pieces: &[&str]) -> Outcome {
    let mut all = ParserResult::default();
    let mut add = |part: ParserResult| {
        all.reasoning_text.push_str(&part.reasoning_text);
        all.normal_text.push_str(&part.normal_text);
    };
    for piece in pieces {
        add(parser.parse_reasoning_streaming_incremental(piece).map_err(|e| e.to_string())?);
    }
    add(parser.flush().map_err(|error| error.to_string())?);
    Ok(found(all))
}
