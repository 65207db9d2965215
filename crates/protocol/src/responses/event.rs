//! What a stream of `/v1/responses` consists of.

use serde::Serialize;

use super::{OutputItem, OutputPart, Response};
use crate::openai::ChatTokenLogprob;

/// One event.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    /// Its name too.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Counts the events of a stream from 0.
    pub sequence_number: u64,
    /// The rest.
    #[serde(flatten)]
    pub data: EventData<'a>,
}

/// Where an item's only part of its kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PartIndex {
    /// In the content.
    Content {
        /// Always 0.
        content_index: usize,
    },
    /// In the summary.
    Summary {
        /// Always 0.
        summary_index: usize,
    },
}

/// What an event says besides its kind.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum EventData<'a> {
    /// Of the response as a whole.
    Response {
        /// So far.
        response: &'a Response,
    },
    /// An item begins or ends.
    Item {
        /// Its place in the output.
        output_index: usize,
        /// So far.
        item: &'a OutputItem,
    },
    /// The only part of an item begins or ends.
    Part {
        /// The item.
        item_id: &'a str,
        /// The item's place.
        output_index: usize,
        /// The part's place.
        #[serde(flatten)]
        index: PartIndex,
        /// So far.
        part: OutputPart,
    },
    /// A text goes on.
    TextDelta {
        /// The item.
        item_id: &'a str,
        /// The item's place.
        output_index: usize,
        /// The part's place.
        #[serde(flatten)]
        index: PartIndex,
        /// The new part.
        delta: &'a str,
        /// Of `output_text`: always empty.
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<[ChatTokenLogprob; 0]>,
    },
    /// A text ends.
    TextDone {
        /// The item.
        item_id: &'a str,
        /// The item's place.
        output_index: usize,
        /// The part's place.
        #[serde(flatten)]
        index: PartIndex,
        /// All of it.
        text: &'a str,
        /// Of `output_text`: always empty.
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<[ChatTokenLogprob; 0]>,
    },
    /// The arguments of a call go on.
    ArgumentsDelta {
        /// The item.
        item_id: &'a str,
        /// The item's place.
        output_index: usize,
        /// The new part.
        delta: &'a str,
    },
    /// The arguments of a call end.
    ArgumentsDone {
        /// The item.
        item_id: &'a str,
        /// The item's place.
        output_index: usize,
        /// The function's.
        name: &'a str,
        /// All of them.
        arguments: &'a str,
    },
}
