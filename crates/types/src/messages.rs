//! Messages between the server and the engine thread.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::{
    ControlMsg, FinishReason, LogprobParams, PooledModel, Pooling, ReqLogprobs, Rid,
    SamplingParams, SchedulerStats, StepProfiles, TokenGrammar, TokenId,
};

/// Answers a control message once.
pub type Reply<T> = oneshot::Sender<T>;

/// One sequence to generate. Batches and `n > 1` are several of these.
#[derive(Debug, Clone)]
pub struct GenerateReq {
    /// Unique among live requests.
    pub rid: Rid,
    /// Not empty, every id inside the vocabulary, shorter than the context.
    pub input_ids: Vec<TokenId>,
    /// Already [`SamplingParams::normalized`].
    pub sampling_params: SamplingParams,
    /// The model's EOS tokens, and those of the chat template. Empty: none.
    pub eos_token_ids: Vec<TokenId>,
    /// Log-probabilities to report.
    pub logprobs: Option<Arc<LogprobParams>>,
    /// What the completion has to follow, at its beginning.
    pub grammar: Option<Box<dyn TokenGrammar>>,
    /// Set: a vector is wanted and no token, and the model is a [`PooledModel`].
    pub pooling: Option<Pooling>,
    /// Of a prompt that is a pair of texts, where the second begins: an encoder may tell them
    /// apart.
    pub second_text: Option<usize>,
    /// Counts if the server schedules by priority.
    pub priority: Option<i64>,
}

/// To the engine thread, over a bounded channel: full means 503.
#[derive(Debug)]
pub enum EngineMsg {
    /// Queue a request. Dropping the receiver of `events` aborts it.
    Generate {
        /// What to generate.
        req: Box<GenerateReq>,
        /// Unbounded in type, bounded in fact by `max_new_tokens + 1` events.
        events: mpsc::UnboundedSender<ReqEvent>,
    },
    /// Abort one request, or all.
    Abort {
        /// `None`: every live request.
        rid: Option<Rid>,
    },
    /// Empty the radix tree. Refused (`false`) while requests are live.
    FlushCache(Reply<bool>),
    /// Ask what `/server_info` shows of a running engine.
    GetState(Reply<EngineState>),
    /// An operator's doing.
    Control(ControlMsg),
    /// Finish what is live, take nothing new, then end the thread.
    Drain,
}

/// Token counts of a request, as `meta_info` and `usage` report them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReqCounts {
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated so far.
    pub completion_tokens: usize,
    /// Prompt tokens that the radix tree already held.
    pub cached_tokens: usize,
    /// How often the request lost its pages and started over.
    pub num_retractions: usize,
    /// How long it waited for its first step; zero until then.
    pub queue_time: Duration,
}

/// From the engine to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct ReqEvent {
    /// New tokens since the last event; empty only on an abort, or when
    /// `max_new_tokens` is 0.
    pub token_ids: Vec<TokenId>,
    /// Counts after these tokens.
    pub counts: ReqCounts,
    /// Set on the last event.
    pub finish_reason: Option<FinishReason>,
    /// Set if the request asks for them and the event has any.
    pub logprobs: Option<Box<ReqLogprobs>>,
    /// Set on the last event of a request with [`GenerateReq::pooling`].
    pub pooled: Option<Vec<f32>>,
}

/// Live state of the engine, for `/server_info`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineState {
    /// The scheduler after its last step.
    pub scheduler: SchedulerStats,
    /// Generated tokens a second over the last decode-log interval.
    pub last_gen_throughput: f64,
    /// Bytes of weights on the device.
    pub weight_bytes: usize,
    /// Bytes of the K/V pool.
    pub kv_pool_bytes: usize,
    /// Bytes MLX holds now.
    pub active_memory_bytes: usize,
    /// The most MLX ever held.
    pub peak_memory_bytes: usize,
    /// Where the time of steps goes, with `--profile`.
    pub profile: Option<StepProfiles>,
}

/// How a long prompt shares the device with requests that run already. Between its
/// pieces they take a token each, or several, so the pieces bound the time between
/// tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PrefillSharing {
    /// Prompts with more tokens than this left to prefill come in pieces.
    pub above: usize,
    /// Tokens of a piece.
    pub chunk: usize,
}

/// What the engine made of the model and the options: fixed after start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelInfo {
    /// As the user named it.
    pub model_path: String,
    /// `config.json`'s `model_type`.
    pub model_type: String,
    /// `config.json`'s `architectures`.
    pub architectures: Vec<String>,
    /// Prompt and completion together.
    pub context_length: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Tokens in the K/V pool.
    pub max_total_num_tokens: usize,
    /// Tokens in a page of it.
    pub page_size: usize,
    /// Requests in one decode batch.
    pub max_running_requests: usize,
    /// Longest prompt that can be admitted.
    pub max_req_input_len: usize,
    /// `None`: a long prompt comes in no smaller pieces beside requests that run.
    pub prefill_sharing: Option<PrefillSharing>,
    /// EOS ids from generation_config.json or config.json.
    pub eos_token_ids: Vec<TokenId>,
    /// Set if it gives vectors instead of tokens.
    pub pooled: Option<PooledModel>,
    /// What the engine runs on, e.g. `cpu` or `Apple M3 Max`.
    pub device: String,
}
