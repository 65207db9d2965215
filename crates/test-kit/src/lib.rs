//! What tests of several crates need: a small HTTP client, and a guard around
//! a running server process.
//!
//! It has no HTTP library on purpose: tests want to see what went over the
//! wire, send what no library would send, and hang up in the middle.

mod http;
mod process;

pub use http::{Client, Event, EventStream, Response};
pub use process::{Binary, ServerProcess, free_port};
