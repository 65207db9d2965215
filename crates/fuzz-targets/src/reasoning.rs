//! Reasoning in generated text: the first byte picks the parser, the second where the text
//! is cut and how it begins. In pieces as whole, and no character is made up.

use parsers::reasoning::{Begins, REASONING_PARSERS, ReasoningOptions, ReasoningStream, Separated};

use crate::{Dice, head};

/// Runs one input.
pub fn run(data: &[u8]) {
    let ([parser, seed], text) = head(data);
    let text = String::from_utf8_lossy(text);
    let entry = &REASONING_PARSERS[usize::from(parser) % REASONING_PARSERS.len()];
    let begins = match seed >> 5 {
        0 => Begins::ByHabit,
        1 => Begins::IfAsked(true),
        2 => Begins::IfAsked(false),
        3 => Begins::Known(true),
        _ => Begins::Known(false),
    };
    let whole = Separated::of_text(entry, begins, &text);
    let pieces = Dice::new(seed.into()).cut(&text);
    for streams in [true, false] {
        let options = ReasoningOptions { begins, streams, continued: "" };
        let mut stream = ReasoningStream::new(entry, options);
        let mut all = Separated::default();
        let mut add = |part: Separated| {
            all.reasoning.push_str(&part.reasoning);
            all.content.push_str(&part.content);
        };
        pieces.iter().for_each(|piece| add(stream.push(piece)));
        add(stream.finish());
        assert_eq!(all, whole, "{} {begins:?}: {pieces:?}", entry.name);
    }
}
