//! gpt-oss: the analysis channel is reasoning.
//!
//! Messages to functions stay as they are written, for the tool-call parser of
//! the same name.

use super::{ReasoningParser, Separated};
use crate::{
    harmony::{Harmony, HarmonyReader, Recipient},
    text::Rest,
};

/// See the module.
#[derive(Debug)]
pub(super) struct GptOss {
    reader: HarmonyReader,
    recipient: Recipient,
}

impl Default for GptOss {
    fn default() -> Self {
        Self { reader: HarmonyReader::default(), recipient: Recipient::User }
    }
}

impl ReasoningParser for GptOss {
    fn step(&mut self, rest: &mut Rest<'_>, out: &mut Separated) -> Option<usize> {
        if rest.text.is_empty() {
            return None;
        }
        let text = rest.text;
        let (len, part) = self.reader.read(rest)?;
        let is_call = matches!(self.recipient, Recipient::Function(_));
        match part {
            Harmony::Header(recipient, _) => {
                if matches!(recipient, Recipient::Function(_)) {
                    out.content.push_str(&text[..len]);
                }
                self.recipient = recipient;
            }
            Harmony::Body(text) if self.recipient == Recipient::Nobody => {
                out.reasoning.push_str(text);
            }
            Harmony::Body(text) | Harmony::Loose(text) => out.content.push_str(text),
            Harmony::End(marker) => {
                if is_call {
                    out.content.push_str(marker);
                }
                self.recipient = Recipient::User;
            }
            Harmony::Nothing => {}
        }
        Some(len)
    }

    fn is_reasoning(&self) -> bool {
        self.recipient == Recipient::Nobody
    }
}
