//! Load on a server, and what its clients saw: the machinery of `bench-serving`.
//!
//! It speaks to any server with SGLang's or OpenAI's HTTP interface and needs no
//! tokenizer: prompts go out as token ids, or as common words where only text is
//! taken, and tokens are counted by the server. Metrics are defined and named as
//! upstream does, so that figures compare.
//!
//! Upstream: `sglang/benchmark/serving.py`.

mod backend;
mod client;
mod connect;
pub mod dataset;
mod error;
mod history;
mod load;
mod metrics;
mod output;
mod plot;
mod report;
mod sse;
mod svg;

pub use backend::Backend;
pub use client::{Client, RequestShape};
pub use connect::{BaseUrl, Connect, Tcp};
pub use error::BenchError;
pub use load::{Load, Recording, apply};
pub use metrics::{Metrics, Spread};
pub use output::{Arrival, RequestOutput};
pub use plot::plot;
pub use report::{details, json, table};
