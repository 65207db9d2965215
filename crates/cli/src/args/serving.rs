//! The HTTP side.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::GrammarArgs;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServingArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,

    /// Port to listen on; 0: any free one.
    #[arg(long, default_value_t = 30000)]
    pub(crate) port: u16,

    /// Required as `Authorization: Bearer` on every route but health and metrics.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) api_key: Option<String>,

    /// Required instead of the API key on routes that change the server (`/flush_cache`,
    /// `/abort_request`, ...).
    #[arg(long)]
    #[serde(skip)]
    pub(crate) admin_api_key: Option<String>,

    /// PEM file of the private key to serve HTTPS with; not encrypted.
    #[arg(long, value_name = "FILE", requires = "ssl_certfile")]
    pub(crate) ssl_keyfile: Option<PathBuf>,

    /// PEM file of the certificate chain that goes with it, the server's own first.
    #[arg(long, value_name = "FILE", requires = "ssl_keyfile")]
    pub(crate) ssl_certfile: Option<PathBuf>,

    /// Name in `/v1/models`; by default the model path.
    #[arg(long, value_name = "NAME")]
    pub(crate) served_model_name: Option<String>,

    /// Instead of the model's own chat template: the name of one of SGLang's (chatml, llama-2,
    /// vicuna_v1.1, ...; an unknown name lists them), a jinja file, or a JSON file in SGLang's
    /// conversation format.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) chat_template: Option<PathBuf>,

    /// Of a model with several chat templates, the one of this name (default, tool_use, rag, ...).
    #[arg(long, value_name = "NAME")]
    pub(crate) hf_chat_template_name: Option<String>,

    /// What makes a prompt of a completion's `prompt` and `suffix`: deepseek_coder, qwen_coder,
    /// star_coder, or a JSON file in SGLang's format.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) completion_template: Option<PathBuf>,

    /// Cuts reasoning out of answers: auto (as the chat template shows), none, or a parser's name.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(crate) reasoning_parser: String,

    /// Cuts tool calls out of answers: auto (as the chat template shows), none, or a parser's name.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(crate) tool_call_parser: String,

    /// Where sampling defaults come from: model (generation_config.json) or openai.
    #[arg(long, default_value = "model", value_name = "SOURCE")]
    pub(crate) sampling_defaults: String,

    /// Report cached tokens in OpenAI `usage`.
    #[arg(long)]
    pub(crate) enable_cache_report: bool,

    /// Serve `/metrics`: always on here, taken for compatibility.
    #[arg(long, default_value_t = true)]
    pub(crate) enable_metrics: bool,

    /// Tokens between two chunks of a stream.
    #[arg(long, default_value_t = 1, value_name = "TOKENS")]
    pub(crate) stream_interval: usize,

    /// Chunks of `/generate` carry new text only, not all text so far.
    #[arg(long)]
    pub(crate) incremental_streaming_output: bool,

    /// OpenAI streams end with `usage` unless the request says otherwise.
    #[arg(long)]
    pub(crate) stream_response_default_include_usage: bool,

    /// While a model reasons it can neither end its answer nor call a tool.
    #[arg(long)]
    pub(crate) enable_strict_thinking: bool,

    /// Sessions may be streaming: each request goes on from the last one that succeeded.
    #[arg(long)]
    pub(crate) enable_streaming_session: bool,

    /// JSON object of further variables for the chat template.
    #[arg(long, default_value = "{}", value_name = "JSON")]
    pub(crate) default_chat_template_kwargs: String,

    /// Reported by `/model_info`.
    #[arg(long, default_value = "default", value_name = "VERSION")]
    pub(crate) weight_version: String,

    /// Seconds that live requests may take to finish after SIGTERM, before they are aborted; by
    /// default as long as they like (ours).
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain_timeout: Option<f64>,

    /// Measure where the time of steps goes: tables in the log, `profile` in `/server_info` (ours).
    #[arg(long)]
    #[serde(skip)]
    pub(crate) profile: bool,

    /// Do not send a request to oneself before reporting readiness.
    #[arg(long)]
    pub(crate) skip_server_warmup: bool,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) grammar: GrammarArgs,
}
