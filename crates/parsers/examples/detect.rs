//! Prints what a chat template says about the parsers, one line of JSON a file:
//! for `tools/acceptance/parser_detection.py`.

use std::{
    env, fs,
    io::{self, Write},
};

use serde_json::json;

fn main() -> io::Result<()> {
    for path in env::args().skip(1) {
        let template = fs::read_to_string(&path)?;
        // As if every token that the template names were in the vocabulary.
        let found = parsers::detect(&template, &|token| template.contains(token));
        let toggle = found.toggle.map(|toggle| format!("{toggle:?}"));
        let line = json!([toggle, found.reasoning, found.tool_call]);
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(())
}
