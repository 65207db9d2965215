//! Every model of the registry against goldens and against itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod contract;
mod convert;
mod dummy;
mod encoders;
mod gguf;
mod goldens;
mod llama4;
mod page;
mod pooled;
mod refusals;
mod runner;
mod tiny;
