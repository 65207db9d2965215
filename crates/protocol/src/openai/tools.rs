//! Tool calls as answers carry them.

use serde::Serialize;

/// A call, or in a stream a piece of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolCall<'a> {
    /// In a stream only in the call's first piece.
    pub id: Option<&'a str>,
    /// Its number in the answer.
    pub index: usize,
    /// Always `function`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Of which function, and with what.
    pub function: FunctionCall<'a>,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionCall<'a> {
    /// In a stream only in the call's first piece.
    pub name: Option<&'a str>,
    /// A JSON text, or in a stream a piece of it.
    pub arguments: &'a str,
}
