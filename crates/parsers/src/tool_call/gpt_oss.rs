//! gpt-oss: messages to functions.
//!
//! Usually this reads what the reasoning parser of the same name leaves: the
//! messages to functions as they were written. On its own it leaves thought out.
//!
//! Upstream: `sglang/srt/function_call/gpt_oss_detector.py`.

use super::{
    Calls, ToolCallParser,
    object::{Arguments, Fed},
};
use crate::{
    harmony::{Harmony, HarmonyReader, Recipient},
    text::Rest,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GptOss {
    reader: HarmonyReader,
    message: Message,
    arguments: Arguments,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Message {
    /// To the user.
    #[default]
    Content,
    Thought,
    /// To a function: its arguments.
    Call,
    /// To a function, after its arguments.
    CallDone,
}

impl GptOss {
    fn begin(&mut self, recipient: &Recipient, calls: &mut Calls) {
        self.message = match recipient {
            Recipient::User => Message::Content,
            Recipient::Nobody => Message::Thought,
            Recipient::Function(name) => {
                calls.open();
                calls.call(name.rsplit('.').next().unwrap_or(name));
                self.arguments = Arguments::default();
                Message::Call
            }
        };
    }

    fn body(&mut self, text: &str, calls: &mut Calls) {
        match self.message {
            Message::Content => calls.text(text),
            Message::Thought | Message::CallDone => {}
            Message::Call => match self.arguments.feed(text, calls) {
                Fed::More => {}
                Fed::Done(_) => {
                    calls.end_call();
                    // What follows up to the message's end means nothing.
                    calls.close();
                    self.message = Message::CallDone;
                }
                Fed::Broken(_) => {
                    calls.give_up(text);
                    self.message = Message::Content;
                }
            },
        }
    }
}

impl ToolCallParser for GptOss {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let (len, part) = self.reader.read(rest)?;
        match part {
            Harmony::Loose(text) => calls.text(text),
            Harmony::Header(recipient, _) => self.begin(&recipient, calls),
            Harmony::Body(text) => self.body(text, calls),
            Harmony::End(_) if self.message == Message::Call => calls.give_up(""),
            Harmony::End(_) => calls.close(),
            Harmony::Nothing => {}
        }
        Some(len)
    }
}
