//! Who gets how much memory.

use clap::Args;
use serde::Serialize;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Memory")]
pub(crate) struct MemoryArgs {
    /// Share of the device's memory for weights and K/V pool.
    #[arg(long, value_name = "FRACTION")]
    pub(crate) mem_fraction_static: Option<f64>,

    /// Requests in one decode batch.
    #[arg(long, value_name = "N")]
    pub(crate) max_running_requests: Option<usize>,

    /// Tokens in the K/V pool.
    #[arg(long, value_name = "TOKENS", value_parser = super::token_count::parse)]
    pub(crate) max_total_tokens: Option<usize>,

    /// Tokens of one prefill step; -1: prompts are not split. By default by
    /// device and memory.
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS")]
    pub(crate) chunked_prefill_size: Option<i64>,

    /// Tokens in a page of the K/V pool.
    #[arg(long, default_value_t = 16, value_name = "TOKENS")]
    pub(crate) page_size: usize,

    /// Tokens that layers with a sliding window keep, for one that the others keep: above 0, at
    /// most 1. By default 0.8, or a window for each context if all layers have one.
    #[arg(long, value_name = "RATIO")]
    pub(crate) swa_full_tokens_ratio: Option<f64>,

    /// Layers with a sliding window keep every token, as the others do.
    #[arg(long)]
    pub(crate) disable_hybrid_swa_memory: bool,

    /// Forget the K/V of finished requests.
    #[arg(long)]
    pub(crate) disable_radix_cache: bool,

    /// Which cached prefix goes first when the pool is full: lru (least recently used), lfu
    /// (least frequently), slru (what few requests used before what more did, each part as
    /// lru) or priority (lowest first).
    #[arg(long, default_value = "lru", value_name = "POLICY")]
    pub(crate) radix_eviction_policy: String,

    /// JSON object of the policy's parameters: slru takes protected_threshold, the requests
    /// from which on a prefix is kept (2).
    #[arg(long, value_name = "JSON")]
    pub(crate) radix_eviction_policy_config: Option<String>,
}
