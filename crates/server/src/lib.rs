//! SGLang's HTTP API over an engine that is reached by messages alone.
//!
//! One file per endpoint in `routes`. All three ways to generate meet in
//! `generation`: a request becomes sequences, each sequence owns the receiver
//! of its tokens, and dropping it (the client left, a stop string was found)
//! is what aborts it. So no handler needs to clean up.
//!
//! Upstream: `sglang/srt/entrypoints/http_server.py`.

mod answer;
mod answer_parsers;
mod auth;
mod body;
mod completion_template;
mod config;
mod console;
mod error;
mod generation;
mod http_metrics;
mod requests;
mod response_store;
mod route_table;
mod router;
mod routes;
mod serve;
mod sessions;
mod sse;
mod state;
mod tls;
mod trace;
mod utc;
mod warmup;

pub use answer_parsers::AnswerParsers;
pub use completion_template::{CompletionTemplate, CompletionTemplateError};
pub use config::{SamplingDefaults, ServerConfig};
pub use generation::GrammarConfig;
pub use metrics::{LatencyBuckets, MetricsOptions};
pub use requests::{LogFormat, LogTarget, LogTargetError, RequestLog, RequestLogOptions};
pub use router::router;
pub use serve::{serve, serve_tls};
pub use state::{AppState, LogLevelSetter};
pub use tls::{TlsError, TlsIdentity};
pub use trace::TraceOptions;
pub use utc::Utc;
pub use warmup::{WarmupError, warmup};
