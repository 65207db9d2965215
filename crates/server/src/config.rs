//! What the command line decides about the server.

use std::{path::PathBuf, time::Duration};

use metrics::MetricsOptions;
use serde_json::{Map, Value};

use crate::{AnswerParsers, CompletionTemplate, GrammarConfig, TraceOptions};

/// Resolved options: every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// `--host`, for the log only: the caller binds the listener.
    pub host: String,
    /// `--port`, for the log only.
    pub port: u16,
    /// `--api-key`: required as a bearer token on all but the health routes.
    pub api_key: Option<String>,
    /// `--admin-api-key`: required instead of the other on routes that change the server.
    pub admin_api_key: Option<String>,
    /// `--served-model-name`.
    pub served_model_name: String,
    /// `--tokenizer-path`.
    pub tokenizer_path: String,
    /// `--weight-version`: how the first weights are called.
    pub weight_version: String,
    /// `--enable-metrics`: serve `/metrics`. Off upstream, on here.
    pub enable_metrics: bool,
    /// `--extra-metric-labels` and `--bucket-*`.
    pub metrics: MetricsOptions,
    /// `--enable-cache-report`: cached tokens in OpenAI's `usage`.
    pub enable_cache_report: bool,
    /// `--incremental-streaming-output`: `/generate` streams what is new
    /// instead of everything so far.
    pub incremental_streaming_output: bool,
    /// `--enable-deterministic-inference`: what requests without a seed get. `None`: the engine
    /// draws one for each.
    pub default_sampling_seed: Option<u64>,
    /// `--stream-interval`: tokens between two chunks, at least 1.
    pub stream_interval: usize,
    /// `--stream-response-default-include-usage`.
    pub stream_response_default_include_usage: bool,
    /// The model's own sampling parameters (`--sampling-defaults model`), used
    /// where a chat request leaves one out.
    pub sampling_defaults: SamplingDefaults,
    /// `--enable-strict-thinking`: neither an answer nor a tool call ends reasoning.
    pub enable_strict_thinking: bool,
    /// `--enable-streaming-session`: sessions whose requests go on from one another may be opened.
    pub enable_streaming_session: bool,
    /// `--default-chat-template-kwargs`; a request's own win.
    pub chat_template_kwargs: Map<String, Value>,
    /// `--completion-template`: what makes a prompt of one with a `suffix`.
    pub completion_template: Option<CompletionTemplate>,
    /// `--reasoning-parser` and `--tool-call-parser`.
    pub parsers: AnswerParsers,
    /// `--grammar-backend` and `--constrained-json-*`.
    pub grammar: GrammarConfig,
    /// False: `/health` answers 200 without asking the engine for a token.
    pub health_generation: bool,
    /// How long a health probe waits for a token.
    pub health_timeout: Duration,
    /// How long live requests may take to finish once the server is to stop; `None`: as long
    /// as they like.
    pub drain_timeout: Option<Duration>,
    /// Larger bodies are refused with 413.
    pub max_body_bytes: usize,
    /// Prompts rendered, tokenized or parsed at once, off the async threads.
    pub max_text_jobs: usize,
    /// `--crash-dump-folder`: where requests are written if the engine dies.
    pub crash_dump_folder: Option<PathBuf>,
    /// `--enable-trace`.
    pub trace: Option<TraceOptions>,
    /// All resolved arguments, as `/server_info` shows them.
    pub server_args: Map<String, Value>,
    /// Of this program.
    pub version: String,
}

/// Sampling parameters of `generation_config.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Instead of 1.
    pub temperature: Option<f64>,
    /// Instead of 1.
    pub top_p: Option<f64>,
    /// Instead of -1.
    pub top_k: Option<i64>,
    /// Instead of 0.
    pub min_p: Option<f64>,
    /// Instead of 1.
    pub repetition_penalty: Option<f64>,
}

impl ServerConfig {
    /// The arguments without keys, which are secrets even from those who know one of them.
    pub(crate) fn shown_args(&self) -> Map<String, Value> {
        let mut shown = self.server_args.clone();
        shown.retain(|name, _| !["api_key", "admin_api_key"].contains(&name.as_str()));
        shown
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 30000,
            api_key: None,
            admin_api_key: None,
            served_model_name: "default".to_owned(),
            tokenizer_path: String::new(),
            weight_version: "default".to_owned(),
            enable_metrics: true,
            metrics: MetricsOptions::default(),
            enable_cache_report: false,
            incremental_streaming_output: false,
            default_sampling_seed: None,
            stream_interval: 1,
            stream_response_default_include_usage: false,
            sampling_defaults: SamplingDefaults::default(),
            enable_strict_thinking: false,
            enable_streaming_session: false,
            chat_template_kwargs: Map::new(),
            completion_template: None,
            parsers: AnswerParsers::default(),
            grammar: GrammarConfig::default(),
            health_generation: true,
            health_timeout: Duration::from_secs(20),
            drain_timeout: None,
            max_body_bytes: 32 << 20,
            max_text_jobs: 4,
            crash_dump_folder: None,
            trace: None,
            server_args: Map::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
