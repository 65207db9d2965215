//! What the scheduler knows about itself after a step.

/// Counters and gauges; tokens are slots of the K/V pool.
///
/// `num_free_tokens + num_evictable_tokens + num_protected_tokens +
/// num_private_tokens == max_total_num_tokens` holds after every step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SchedulerStats {
    /// Requests that take a token per decode batch.
    pub num_running_reqs: usize,
    /// Requests that wait for their (next) prefill.
    pub num_waiting_reqs: usize,
    /// Size of the pool.
    pub max_total_num_tokens: usize,
    /// In no use.
    pub num_free_tokens: usize,
    /// Cached in the radix tree, used by no live request.
    pub num_evictable_tokens: usize,
    /// Cached in the radix tree and used by live requests.
    pub num_protected_tokens: usize,
    /// Held by live requests outside the tree.
    pub num_private_tokens: usize,
    /// Tokens in the window pages of layers with a sliding window; 0 if they have none.
    pub max_total_num_tokens_swa: usize,
    /// Of those, in no use.
    pub num_free_tokens_swa: usize,
    /// Of those, cached in the radix tree, seen by no live request.
    pub num_evictable_tokens_swa: usize,
    /// Retractions since start.
    pub num_retractions: u64,
    /// Of those, for the sake of requests with a higher priority.
    pub num_preemptions: u64,
    /// Aborted requests since start.
    pub num_aborted_reqs: u64,
    /// Prompt tokens of admitted requests since start.
    pub prompt_tokens: u64,
    /// Of those, found in the radix tree.
    pub cached_tokens: u64,
    /// Generated tokens since start.
    pub generation_tokens: u64,
    /// Tokens evicted from the radix tree since start.
    pub evicted_tokens: u64,
    /// Estimated share of `max_new_tokens` that running requests will use.
    pub new_token_ratio: f64,
}

impl SchedulerStats {
    /// Slots that live requests hold, shared ones counted once.
    pub fn num_used_tokens(&self) -> usize {
        self.num_protected_tokens + self.num_private_tokens
    }

    /// `num_used_tokens` over the pool's size, in [0, 1].
    pub fn token_usage(&self) -> f64 {
        if self.max_total_num_tokens == 0 {
            return 0.0;
        }
        self.num_used_tokens() as f64 / self.max_total_num_tokens as f64
    }

    /// Slots of window pages that live requests hold.
    pub fn num_used_tokens_swa(&self) -> usize {
        self.max_total_num_tokens_swa - self.num_free_tokens_swa - self.num_evictable_tokens_swa
    }

    /// `num_used_tokens_swa` over their number, in [0, 1]; 0 if there are none.
    pub fn token_usage_swa(&self) -> f64 {
        match self.max_total_num_tokens_swa {
            0 => 0.0,
            total => self.num_used_tokens_swa() as f64 / total as f64,
        }
    }

    /// Share of prompt tokens found in the cache since start, in [0, 1].
    pub fn cache_hit_rate(&self) -> f64 {
        if self.prompt_tokens == 0 {
            return 0.0;
        }
        self.cached_tokens as f64 / self.prompt_tokens as f64
    }
}
