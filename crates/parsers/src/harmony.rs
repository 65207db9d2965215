//! OpenAI's harmony format: messages on channels.
//!
//! `<|channel|>analysis<|message|>thought<|end|><|start|>assistant<|channel|>
//! commentary to=functions.name <|constrain|>json<|message|>{...}<|call|>`. The
//! prompt ends with `<|start|>assistant`, so an answer begins with a channel.
//!
//! Upstream: `sglang/srt/parser/harmony_parser.py`.

use crate::text::{Rest, Until};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const CONSTRAIN: &str = "<|constrain|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";

/// Who a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recipient {
    /// The one who asked.
    User,
    /// Nobody: it is thought.
    Nobody,
    /// A function, by its full name.
    Function(String),
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Harmony<'a> {
    /// Text outside messages.
    Loose(&'a str),
    /// A message begins; this is its header as written.
    Header(Recipient, &'a str),
    /// A part of the message.
    Body(&'a str),
    /// The message ends, with this marker or with another message's beginning.
    End(&'a str),
    /// Markup that means nothing here.
    Nothing,
}

/// Where in the format the text is.
#[derive(Debug, Default)]
pub(crate) struct HarmonyReader {
    place: Place,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Between,
    Header,
    Body,
}

impl HarmonyReader {
    /// Reads one part and says how many bytes it has; `None` if it needs more.
    pub(crate) fn read<'a>(&mut self, rest: &mut Rest<'a>) -> Option<(usize, Harmony<'a>)> {
        match self.place {
            Place::Between => self.between(rest),
            Place::Header => self.header(rest),
            Place::Body => self.body(rest),
        }
    }

    fn between<'a>(&mut self, rest: &mut Rest<'a>) -> Option<(usize, Harmony<'a>)> {
        let text = rest.text;
        let markers = [START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN];
        match rest.until(&markers) {
            Until::Safe(0) => None,
            Until::Marker { at: 0, marker: START | CHANNEL } => {
                self.place = Place::Header;
                Some((0, Harmony::Nothing))
            }
            Until::Marker { at: 0, marker } => Some((marker.len(), Harmony::Nothing)),
            Until::Marker { at: len, .. } | Until::Safe(len) => {
                Some((len, Harmony::Loose(&text[..len])))
            }
        }
    }

    fn header<'a>(&mut self, rest: &mut Rest<'a>) -> Option<(usize, Harmony<'a>)> {
        let at = match rest.find(MESSAGE) {
            Some(at) => at,
            // A header without a message is not worth keeping.
            None if rest.is_end => return Some((rest.text.len(), Harmony::Nothing)),
            None => return None,
        };
        let header = &rest.text[..at];
        self.place = Place::Body;
        Some((at + MESSAGE.len(), Harmony::Header(recipient(header), header)))
    }

    fn body<'a>(&mut self, rest: &mut Rest<'a>) -> Option<(usize, Harmony<'a>)> {
        let text = rest.text;
        match rest.until(&[START, CHANNEL, END, CALL, RETURN]) {
            Until::Safe(0) => None,
            Until::Marker { at: 0, marker } => {
                self.place = Place::Between;
                let begins_another = matches!(marker, START | CHANNEL);
                let len = if begins_another { 0 } else { marker.len() };
                Some((len, Harmony::End(&text[..len])))
            }
            Until::Marker { at: len, .. } | Until::Safe(len) => {
                Some((len, Harmony::Body(&text[..len])))
            }
        }
    }
}

/// From a header like `<|channel|>commentary to=functions.name <|constrain|>json`.
fn recipient(header: &str) -> Recipient {
    if let Some((_, to)) = header.split_once("to=") {
        let end = to.find(|c: char| c.is_whitespace() || c == '<').unwrap_or(to.len());
        return Recipient::Function(to[..end].to_owned());
    }
    match header.split_once(CHANNEL) {
        Some((_, channel)) if channel.trim_start().starts_with("analysis") => Recipient::Nobody,
        _ => Recipient::User,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_their_recipients() {
        let function = |name: &str| Recipient::Function(name.to_owned());
        for (header, expected) in [
            ("<|channel|>analysis", Recipient::Nobody),
            ("<|start|>assistant<|channel|>final", Recipient::User),
            ("<|start|>assistant<|channel|>commentary", Recipient::User),
            ("<|start|>user", Recipient::User),
            ("<|channel|>commentary to=functions.f <|constrain|>json", function("functions.f")),
            ("<|start|>assistant to=functions.f<|channel|>commentary", function("functions.f")),
            ("<|channel|>commentary to=f<|constrain|>json", function("f")),
        ] {
            assert_eq!(recipient(header), expected, "{header}");
        }
    }
}
