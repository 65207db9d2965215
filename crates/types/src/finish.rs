//! Why a request ended, in SGLang's wire form.
//!
//! Upstream: `FINISH_*` in `sglang/srt/managers/schedule_batch.py`.

use serde::Serialize;

use crate::TokenId;

/// What a `stop` finish matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MatchedStop {
    /// An EOS or a `stop_token_ids` entry.
    Token(TokenId),
    /// A `stop` string.
    Text(String),
}

/// The end of a request. Serialises as SGLang's `finish_reason`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FinishReason {
    /// A stop token or a stop string.
    Stop {
        /// `null` on the wire if nothing in particular matched.
        matched: Option<MatchedStop>,
    },
    /// `max_new_tokens` or the context's end.
    Length {
        /// Number of tokens generated.
        length: usize,
    },
    /// Given up: by the client, by an operator, or for want of memory.
    Abort {
        /// For people.
        message: String,
        /// HTTP status that fits, for requests that have not answered yet.
        status_code: u16,
        /// Class of the error, e.g. `BadRequestError`.
        err_type: String,
    },
}

impl FinishReason {
    /// An abort on the client's or an operator's behalf.
    pub fn aborted() -> Self {
        Self::abort("Aborted", 499, "AbortedError")
    }

    /// An abort for what the client has sent.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::abort(message, 400, "BadRequestError")
    }

    /// An abort for want of a place; another time it may work.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::abort(message, 503, "ServiceUnavailableError")
    }

    /// An abort that is the server's fault.
    pub fn internal_error(message: impl Into<String>) -> Self {
        Self::abort(message, 500, "InternalServerError")
    }

    fn abort(message: impl Into<String>, status_code: u16, err_type: &str) -> Self {
        Self::Abort { message: message.into(), status_code, err_type: err_type.to_owned() }
    }

    /// OpenAI's word for it: `stop`, `length` or `abort`.
    pub fn openai_name(&self) -> &'static str {
        match self {
            Self::Stop { .. } => "stop",
            Self::Length { .. } => "length",
            Self::Abort { .. } => "abort",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_is_sglangs() {
        let json = |reason: &FinishReason| serde_json::to_string(reason).unwrap();
        assert_eq!(
            json(&FinishReason::Stop { matched: Some(MatchedStop::Token(2)) }),
            r#"{"type":"stop","matched":2}"#
        );
        assert_eq!(
            json(&FinishReason::Stop { matched: Some(MatchedStop::Text("\n".into())) }),
            r#"{"type":"stop","matched":"\n"}"#
        );
        assert_eq!(
            json(&FinishReason::Stop { matched: None }),
            r#"{"type":"stop","matched":null}"#
        );
        assert_eq!(json(&FinishReason::Length { length: 8 }), r#"{"type":"length","length":8}"#);
    }
}
