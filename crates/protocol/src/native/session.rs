//! Sessions: `/open_session`, `/close_session`, and `session_params` of requests.
//!
//! Upstream: `OpenSessionReqInput` in `sglang/srt/managers/io_struct.py`.

use serde::Deserialize;

use crate::unsupported::Table;

/// `/open_session`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct OpenSessionRequest {
    /// Must be there; as upstream, nothing is held against it.
    pub capacity_of_str_len: i64,
    /// Its name, instead of one made up.
    pub session_id: Option<String>,
    /// Each request goes on from the one before, and there is one at a time.
    pub streaming: Option<bool>,
    /// Seconds without a request after which it is closed.
    pub timeout: Option<f64>,
}

/// `/close_session`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct CloseSessionRequest {
    /// Its name.
    pub session_id: String,
}

/// `session_params`: what a request goes on from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, expecting = "session parameters as an object")]
pub struct SessionParams {
    /// The session; `None`: the request is in none.
    pub id: Option<String>,
    /// A request of the session.
    pub rid: Option<String>,
    /// How many of that one's tokens are kept, prompt and completion counted together; from the
    /// end if negative. 0: all.
    pub offset: Option<i64>,
    /// Takes the place of all that goes on from that request, or of all there is.
    pub replace: Option<bool>,
    /// That request's completion is left out.
    pub drop_previous_output: Option<bool>,
}

/// What `session_params` may set.
pub static SESSION_TABLE: Table = Table {
    unsupported: &[],
    supported: Some(&["id", "rid", "offset", "replace", "drop_previous_output"]),
    nested: &[],
};
