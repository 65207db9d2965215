//! The error body.

use serde::Serialize;

/// Flat on plain answers; nested under `error` inside a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorResponse {
    /// Always `error`.
    pub object: &'static str,
    /// For people.
    pub message: String,
    /// Class, e.g. `BadRequestError`.
    #[serde(rename = "type")]
    pub err_type: String,
    /// The field at fault, if there is one.
    pub param: Option<String>,
    /// HTTP status.
    pub code: u16,
}
