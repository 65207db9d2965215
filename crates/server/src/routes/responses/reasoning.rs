//! Reasoning as an item of a response, and of the conversation that comes back.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use protocol::responses::{
    ENCRYPTED_REASONING, InputItem, OutputItem, OutputPart, PartIndex, ReasoningOutput,
    ResponsesRequest, Status,
};

use super::translate::{text_of, text_of_parts};
use crate::error::ApiError;

/// Tells our `encrypted_content` from other servers'. It is encoded and no secret: it lets
/// clients carry what the server does not store.
const PREFIX: &str = "sglang-mlx-reasoning-v1.";

/// What else there is beside the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReasoningForm {
    with_summary: bool,
    is_encrypted: bool,
}

/// What the events are called that tell of the text.
pub(super) struct ReasoningEvents {
    pub(super) part_added: &'static str,
    pub(super) delta: &'static str,
    pub(super) done: &'static str,
    pub(super) part_done: &'static str,
}

static OF_CONTENT: ReasoningEvents = ReasoningEvents {
    part_added: "response.content_part.added",
    delta: "response.reasoning_text.delta",
    done: "response.reasoning_text.done",
    part_done: "response.content_part.done",
};

/// Clients that ask for a summary show nothing else.
static OF_SUMMARY: ReasoningEvents = ReasoningEvents {
    part_added: "response.reasoning_summary_part.added",
    delta: "response.reasoning_summary_text.delta",
    done: "response.reasoning_summary_text.done",
    part_done: "response.reasoning_summary_part.done",
};

impl ReasoningForm {
    pub(super) fn new(request: &ResponsesRequest) -> Self {
        let reasoning = request.reasoning.as_ref();
        let include = request.include.as_deref().unwrap_or_default();
        Self {
            with_summary: reasoning.is_some_and(|reasoning| reasoning.summary.is_some()),
            is_encrypted: include.iter().any(|name| name == ENCRYPTED_REASONING),
        }
    }

    /// The item so far, or as a whole.
    pub(super) fn item(self, id: String, text: String, status: Status) -> OutputItem {
        let mut item = ReasoningOutput {
            id,
            summary: Vec::new(),
            content: Vec::new(),
            encrypted_content: None,
            status,
        };
        if status != Status::InProgress {
            item.encrypted_content = self.is_encrypted.then(|| encrypted(&text));
            let summary = self.with_summary.then(|| OutputPart::SummaryText { text: text.clone() });
            item.summary = summary.into_iter().collect();
            item.content = vec![OutputPart::ReasoningText { text }];
        }
        OutputItem::Reasoning(item)
    }

    pub(super) fn events(self) -> &'static ReasoningEvents {
        if self.with_summary { &OF_SUMMARY } else { &OF_CONTENT }
    }

    pub(super) fn index(self) -> PartIndex {
        match self.with_summary {
            true => PartIndex::Summary { summary_index: 0 },
            false => PartIndex::Content { content_index: 0 },
        }
    }

    pub(super) fn part(self, text: String) -> OutputPart {
        match self.with_summary {
            true => OutputPart::SummaryText { text },
            false => OutputPart::ReasoningText { text },
        }
    }
}

fn encrypted(text: &str) -> String {
    format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(text))
}

fn decrypted(content: &str) -> Option<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(content.strip_prefix(PREFIX)?).ok()?;
    String::from_utf8(bytes).ok()
}

/// The text of reasoning that a client sent back. Its forms say the same: one is enough. `None`
/// if there is none, or another server wrote it: a conversation goes on without, as upstream.
///
/// # Errors
/// A part that is not supported.
pub(super) fn sent_back(item: &InputItem) -> Result<Option<String>, ApiError> {
    let summary = text_of_parts(item.summary.as_deref().unwrap_or_default(), "summary")?;
    let content = text_of(item.content.as_ref(), "content")?;
    let encrypted = || item.encrypted_content.as_deref().and_then(decrypted);
    let texts = [summary, content].into_iter().chain(encrypted());
    Ok(texts.into_iter().find(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_comes_back() {
        let sent = |content: &str| {
            let item = InputItem { encrypted_content: Some(content.into()), ..Default::default() };
            sent_back(&item).unwrap()
        };
        assert_eq!(sent(&encrypted("Hm… né?")).as_deref(), Some("Hm… né?"));
        for foreign in ["", "gAAAAAB", "sglang-mlx-reasoning-v1.!", "sglang-mlx-reasoning-v1._w"] {
            assert_eq!(sent(foreign), None, "{foreign}");
        }
    }
}
