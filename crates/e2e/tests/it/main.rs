//! The real binary with a real model, as its users meet it.
//!
//! One server is shared by most tests; see `e2e::shared`.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

mod bad_input;
mod batching;
mod cache;
mod command_line;
mod convert;
mod dialects;
mod grammars;
mod hybrid;
mod lifecycle;
mod load_errors;
mod openai;
mod parity;
mod streaming;
mod thinking_budget;
mod toy;
mod windows;
