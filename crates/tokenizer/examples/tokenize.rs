//! Encodes and decodes texts, for `tools/acceptance/tokenizer_diff.py`.
//!
//! `tokenize FOLDER` reads lines of JSON strings and prints for each `{"ids", "text",
//! "special", "streamed"}`: the tokens, the text of the tokens without and with special
//! ones, and the text as a stream in pieces of random size gives it.

use std::{
    env,
    error::Error,
    io::{BufRead, Write, stdin, stdout},
    path::Path,
};

use serde_json::json;
use tokenizer::{IncrementalDecoder, Tokenizer};
use types::TokenId;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("usage: tokenize FOLDER")?;
    let tokenizer = Tokenizer::from_dir(Path::new(&folder))?;
    let mut out = stdout().lock();
    let mut random = 1_u64;
    for line in stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let ids = tokenizer.encode(&text, true)?;
        let answer = json!({
            "text": tokenizer.decode(&ids, true),
            "special": tokenizer.decode(&ids, false),
            "streamed": streamed(&tokenizer, &ids, &mut random),
            "ids": ids,
        });
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn streamed(tokenizer: &Tokenizer, ids: &[TokenId], random: &mut u64) -> String {
    let mut decoder = IncrementalDecoder::new(tokenizer, true);
    let (mut text, mut rest) = (String::new(), ids);
    while !rest.is_empty() {
        // Xorshift, by Marsaglia.
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let (piece, after) = rest.split_at((*random % 5) as usize % (rest.len() + 1));
        text.push_str(decoder.push(piece));
        rest = after;
    }
    text.push_str(decoder.flush());
    text
}
