//! The flags.

use std::{fmt, path::PathBuf, str::FromStr};

use anyhow::{Context, Result, ensure};
use bench_serving::{
    Backend, BaseUrl, BenchError, Load, RequestShape,
    dataset::{Dataset, Lengths},
};
use clap::Args;
use serde_json::{Value, json};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatasetName {
    RandomIds,
    SharedPrefix,
    MultiTurn,
}

/// Upstream's data sets that come from the network, or need more than text.
const DOWNLOADED: &[&str] = &[
    "burstgpt",
    "custom",
    "image",
    "longbench_v2",
    "mmmu",
    "mooncake",
    "openai",
    "random",
    "sharegpt",
];

impl FromStr for DatasetName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "random-ids" => Ok(Self::RandomIds),
            "generated-shared-prefix" | "shared-prefix" => Ok(Self::SharedPrefix),
            "multi-turn" => Ok(Self::MultiTurn),
            _ => {
                let known = "choose from random-ids, generated-shared-prefix, multi-turn";
                Err(if DOWNLOADED.contains(&name) {
                    format!("`{name}` needs data that sglang-mlx does not fetch ({known})")
                } else {
                    format!("no data set of that name ({known})")
                })
            }
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RandomIds => "random-ids",
            Self::SharedPrefix => "generated-shared-prefix",
            Self::MultiTurn => "multi-turn",
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchServingArgs {
    /// Kind of server: sglang (/generate), sglang-oai, vllm, llama-server, lmdeploy
    /// (/v1/completions), sglang-oai-chat, vllm-chat, mlx-lm, lmdeploy-chat
    /// (/v1/chat/completions).
    #[arg(long, default_value = "sglang", value_name = "BACKEND")]
    pub(crate) backend: Backend,

    /// The server's address; instead of host and port.
    #[arg(long, value_name = "URL")]
    base_url: Option<BaseUrl>,

    /// The server's host.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,

    /// The server's port; by default the one of its kind (sglang: 30000).
    #[arg(long)]
    port: Option<u16>,

    /// Sent as a bearer token.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,

    /// Model named in requests; by default the first of `/v1/models`.
    #[arg(long)]
    model: Option<String>,

    /// random-ids, generated-shared-prefix or multi-turn.
    #[arg(long, default_value_t = DatasetName::RandomIds, value_name = "NAME")]
    pub(crate) dataset_name: DatasetName,

    /// Conversations [default: 1000; generated-shared-prefix: all].
    #[arg(long, visible_alias = "num-prompt", value_name = "N")]
    pub(crate) num_prompts: Option<usize>,

    /// Tokens of each question at most (random-ids, multi-turn).
    #[arg(long, visible_alias = "random-input", default_value_t = 1024, value_name = "TOKENS")]
    pub(crate) random_input_len: usize,

    /// Tokens of each answer at most (random-ids, multi-turn).
    #[arg(long, visible_alias = "random-output", default_value_t = 1024, value_name = "TOKENS")]
    pub(crate) random_output_len: usize,

    /// Lengths are between this part of the longest and the longest.
    #[arg(long, default_value_t = 0.0, value_name = "RATIO")]
    pub(crate) random_range_ratio: f64,

    /// Requests in each conversation of multi-turn.
    #[arg(long, default_value_t = 4, value_name = "N")]
    num_turns: usize,

    /// Token ids are drawn from 0 up to this; every model of the server must know them.
    #[arg(long, default_value_t = 32_000, value_name = "N")]
    pub(crate) vocab_size: u32,

    /// Groups that share a prefix.
    #[arg(long, default_value_t = 64, value_name = "N")]
    gsp_num_groups: usize,

    /// Conversations in each group.
    #[arg(long, default_value_t = 16, value_name = "N")]
    gsp_prompts_per_group: usize,

    /// Tokens of each shared prefix.
    #[arg(long, default_value_t = 2048, value_name = "TOKENS")]
    gsp_system_prompt_len: usize,

    /// Tokens of each question behind it.
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    gsp_question_len: usize,

    /// Tokens of each answer.
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    gsp_output_len: usize,

    /// As --random-range-ratio, for this data set.
    #[arg(long, default_value_t = 1.0, value_name = "RATIO")]
    gsp_range_ratio: f64,

    /// Requests in each conversation.
    #[arg(long, default_value_t = 1, value_name = "N")]
    gsp_num_turns: usize,

    /// Group by group instead of shuffled.
    #[arg(long)]
    gsp_ordered: bool,

    /// Conversations begun a second, at random times (Poisson); inf: all at once.
    #[arg(long, default_value_t = f64::INFINITY, value_name = "RATE")]
    pub(crate) request_rate: f64,

    /// Conversations at once.
    #[arg(long, value_name = "N")]
    pub(crate) max_concurrency: Option<usize>,

    /// Decides prompts, lengths and arrival times.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// One answer at the end instead of a stream.
    #[arg(long)]
    disable_stream: bool,

    /// Let a model end its answer before its length.
    #[arg(long)]
    disable_ignore_eos: bool,

    /// A JSON object merged into every request.
    #[arg(long, value_name = "JSON")]
    extra_request_body: Option<String>,

    /// Prompts as token ids: what happens wherever the interface takes them.
    #[arg(long)]
    tokenize_prompt: bool,

    /// Requests that are not measured, before those that are.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) warmup_requests: usize,

    /// Empty the server's prefix cache after the warm-up (SGLang's servers).
    #[arg(long)]
    pub(crate) flush_cache: bool,

    /// Add a line of JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,

    /// Also every request's figures and text, in that line.
    #[arg(long, requires = "output_file")]
    pub(crate) output_details: bool,

    /// Write charts of TTFT, ITL and throughput to this file, as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,

    /// No progress bar.
    #[arg(long)]
    pub(crate) disable_tqdm: bool,
}

impl BenchServingArgs {
    pub(crate) fn url(&self) -> Result<BaseUrl, BenchError> {
        if let Some(url) = &self.base_url {
            return Ok(url.clone());
        }
        let port = self.port.unwrap_or_else(|| self.backend.default_port());
        // An IPv6 address goes in brackets.
        let host = if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!("http://{host}:{port}").parse()
    }

    pub(crate) fn dataset(&self) -> Result<Dataset> {
        ensure!(self.request_rate > 0.0, "--request-rate must be positive");
        ensure!(self.max_concurrency != Some(0), "--max-concurrency must be positive");
        let random = |full| Lengths { full, range_ratio: self.random_range_ratio };
        let gsp = |full| Lengths { full, range_ratio: self.gsp_range_ratio };
        Ok(match self.dataset_name {
            DatasetName::RandomIds | DatasetName::MultiTurn => Dataset::RandomIds {
                num_prompts: self.num_prompts.unwrap_or(1000),
                num_turns: match self.dataset_name {
                    DatasetName::MultiTurn => self.num_turns,
                    _ => 1,
                },
                input: random(self.random_input_len),
                output: random(self.random_output_len),
            },
            DatasetName::SharedPrefix => Dataset::SharedPrefix {
                num_groups: self.gsp_num_groups,
                prompts_per_group: self.gsp_prompts_per_group,
                num_prompts: self.num_prompts,
                num_turns: self.gsp_num_turns,
                system: Lengths { full: self.gsp_system_prompt_len, range_ratio: 1.0 },
                question: gsp(self.gsp_question_len),
                output: gsp(self.gsp_output_len),
                ordered: self.gsp_ordered,
            },
        })
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            request_rate: self.request_rate,
            max_concurrency: self.max_concurrency,
            seed: self.seed,
        }
    }

    /// Still without the model's name if none was given.
    pub(crate) fn request_shape(&self) -> Result<RequestShape> {
        ensure!(
            !self.tokenize_prompt || self.backend.takes_ids(),
            "--tokenize-prompt: `{}` takes text only",
            self.backend
        );
        let extra_request_body: Value = match &self.extra_request_body {
            Some(text) => serde_json::from_str(text).context("--extra-request-body is no JSON")?,
            None => json!({}),
        };
        ensure!(extra_request_body.is_object(), "--extra-request-body must be a JSON object");
        Ok(RequestShape {
            backend: self.backend,
            model: self.model.clone().unwrap_or_default(),
            stream: !self.disable_stream,
            ignore_eos: !self.disable_ignore_eos,
            extra_request_body,
        })
    }
}
