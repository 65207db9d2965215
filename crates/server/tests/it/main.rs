//! The real router over a fake engine.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod abort;
mod chat;
mod completions;
mod console;
mod embeddings;
mod errors;
mod extras;
mod generate;
mod grammars;
mod info;
mod keys;
mod logprobs;
mod messages;
mod ollama;
mod operate;
mod reasoning;
mod responses;
mod scoring;
mod scrambled;
mod serving;
mod sessions;
mod support;
mod thinking_budget;
mod tls;
mod tools;
mod unsupported;
