//! Sizes and choices, fixed for a scheduler's life.
//!
//! Upstream: the memory and scheduling section of `sglang/srt/server_args.py`.

use mem_cache::{EvictionPolicy, StateConfig, WindowConfig};
use thiserror::Error;
use types::PrefillSharing;

use crate::QueueRules;

/// What a [`crate::Scheduler`] is built with.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerLimits {
    /// Requests that hold pages at a time. Sizes the decode batch.
    pub max_running_requests: usize,
    /// Tokens in an extend batch; a single longer prompt still runs, alone.
    pub max_prefill_tokens: usize,
    /// Longest piece of a prompt in one extend batch; `None` never splits.
    pub chunked_prefill_size: Option<usize>,
    /// Smaller pieces while requests run; `None`: long prompts are not treated in a
    /// way of their own.
    pub prefill_sharing: Option<PrefillSharing>,
    /// Tokens in a page; a power of two.
    pub page_size: usize,
    /// Pages in the K/V pool.
    pub num_pages: usize,
    /// Prompt and completion together.
    pub context_length: usize,
    /// Who waits, and who goes first.
    pub queue: QueueRules,
    /// Larger admits less at a time and retracts less; 1 is upstream's default.
    pub schedule_conservativeness: f64,
    /// Share no prefixes.
    pub disable_radix_cache: bool,
    /// Which cached prefix goes first when pages run out.
    pub eviction_policy: EvictionPolicy,
    /// Those that run take a token in every prefill batch, too.
    pub mixed_chunk: bool,
    /// Launch a batch before the one before it is read.
    pub overlap: bool,
    /// The state pool of a model with recurrent layers.
    pub states: Option<StateConfig>,
    /// The window pages of a model with layers that see a window.
    pub windows: Option<WindowConfig>,
}

impl Default for SchedulerLimits {
    /// Upstream's defaults, over a pool of 4096 tokens.
    fn default() -> Self {
        Self {
            max_running_requests: 256,
            max_prefill_tokens: 16_384,
            chunked_prefill_size: Some(2048),
            prefill_sharing: None,
            page_size: 16,
            num_pages: 256,
            context_length: 4096,
            queue: QueueRules::default(),
            schedule_conservativeness: 1.0,
            disable_radix_cache: false,
            eviction_policy: EvictionPolicy::Lru,
            mixed_chunk: false,
            overlap: true,
            states: None,
            windows: None,
        }
    }
}

/// A limit that no scheduler can run with.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum LimitsError {
    /// Something that must not be zero is.
    #[error("{name} must be at least 1")]
    Zero {
        /// The field.
        name: &'static str,
    },
    /// Pages are halved and shifted.
    #[error("page_size must be a power of two, got {0}")]
    PageSize(usize),
    /// Chunks are whole pages.
    #[error("{name} must be at least page_size ({page_size}), got {value}")]
    BelowPageSize {
        /// The field.
        name: &'static str,
        /// Its value.
        value: usize,
        /// Tokens in a page.
        page_size: usize,
    },
    /// Slots are 32-bit signed on the device.
    #[error("{num_pages} pages of {page_size} tokens are more slots than an int32 counts")]
    TooManySlots {
        /// Pages asked for.
        num_pages: usize,
        /// Tokens in a page.
        page_size: usize,
    },
    /// Each running request has a state, and prefixes need some as well.
    #[error("num_states must be more than max_running_requests ({rows}), got {num_states}")]
    TooFewStates {
        /// States in the pool.
        num_states: usize,
        /// Requests that hold one.
        rows: usize,
    },
    /// Snapshots are taken at page boundaries.
    #[error("snapshot_interval must be a multiple of page_size ({page_size}), got {interval}")]
    SnapshotInterval {
        /// Tokens between two snapshots.
        interval: usize,
        /// Tokens in a page.
        page_size: usize,
    },
    /// A request would wait for window pages for ever.
    #[error(
        "window pages must be at least {least}, or as many as pages ({num_pages}); got {given}"
    )]
    TooFewWindowPages {
        /// What one request needs.
        least: usize,
        /// Pages in the pool.
        num_pages: usize,
        /// Window pages in their pool.
        given: usize,
    },
    /// Zero, negative or not a number.
    #[error("schedule_conservativeness must be positive, got {0}")]
    Conservativeness(f64),
}

impl SchedulerLimits {
    /// Checks every field against the others.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let page_size = self.page_size;
        let positive = [
            ("max_running_requests", self.max_running_requests),
            ("max_prefill_tokens", self.max_prefill_tokens),
            ("num_pages", self.num_pages),
            ("context_length", self.context_length),
        ];
        let queue = [
            ("max_queued_requests", self.queue.max_queued_requests),
            ("prefill_max_requests", self.queue.prefill_max_requests),
        ];
        let given = queue.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut sizes = positive.into_iter().chain(given);
        if let Some((name, _)) = sizes.find(|&(_, value)| value == 0) {
            return Err(LimitsError::Zero { name });
        }
        if !page_size.is_power_of_two() {
            return Err(LimitsError::PageSize(page_size));
        }
        let chunks = [
            ("chunked_prefill_size", self.chunked_prefill_size),
            ("prefill_sharing.chunk", self.prefill_sharing.map(|sharing| sharing.chunk)),
        ];
        for (name, chunk) in chunks {
            if let Some(value) = chunk.filter(|&size| size < page_size) {
                return Err(LimitsError::BelowPageSize { name, value, page_size });
            }
        }
        let num_slots = self.num_pages.checked_mul(page_size);
        if num_slots.is_none_or(|slots| slots > i32::MAX as usize) {
            return Err(LimitsError::TooManySlots { num_pages: self.num_pages, page_size });
        }
        if self.schedule_conservativeness.is_nan() || self.schedule_conservativeness <= 0.0 {
            return Err(LimitsError::Conservativeness(self.schedule_conservativeness));
        }
        self.validate_states()?;
        self.validate_windows()
    }

    fn validate_windows(&self) -> Result<(), LimitsError> {
        let Some(WindowConfig { window, num_pages: given }) = self.windows else {
            return Ok(());
        };
        if window == 0 {
            return Err(LimitsError::Zero { name: "windows.window" });
        }
        let lens = (self.context_length, self.max_step_tokens());
        let least = WindowConfig::least_pages(window, self.page_size, lens);
        let num_pages = self.num_pages;
        if given < least.min(num_pages) {
            return Err(LimitsError::TooFewWindowPages { least, num_pages, given });
        }
        Ok(())
    }

    /// Requests of `max_len` tokens that may run at a time, as far as window pages limit them;
    /// `None` if they do not.
    pub fn windows_for(&self, max_len: usize) -> Option<usize> {
        let WindowConfig { window, num_pages } =
            self.windows.filter(|w| w.num_pages < self.num_pages)?;
        let each = WindowConfig::pages_per_row(window, self.page_size, max_len);
        let step = self.max_step_tokens().div_ceil(self.page_size);
        Some(num_pages.saturating_sub(step) / each.max(1))
    }

    /// Tokens of a request at most, prompt and completion together: as many as the context
    /// takes, or as the pool holds and one more, since the last needs no slot.
    pub fn max_req_len(&self) -> usize {
        self.context_length.min(self.max_total_num_tokens() + 1)
    }

    /// Tokens in one step at most.
    pub fn max_step_tokens(&self) -> usize {
        let whole = self.max_prefill_tokens.max(self.context_length);
        self.chunked_prefill_size.unwrap_or(whole)
    }

    fn validate_states(&self) -> Result<(), LimitsError> {
        let Some(StateConfig { num_states, snapshot_interval: interval }) = self.states else {
            return Ok(());
        };
        let (rows, page_size) = (self.max_running_requests, self.page_size);
        if num_states <= rows {
            return Err(LimitsError::TooFewStates { num_states, rows });
        }
        if interval == 0 || !interval.is_multiple_of(page_size) {
            return Err(LimitsError::SnapshotInterval { interval, page_size });
        }
        Ok(())
    }

    /// Tokens in the K/V pool.
    pub fn max_total_num_tokens(&self) -> usize {
        self.num_pages * self.page_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_value_is_named() {
        let base = SchedulerLimits::default;
        assert_eq!(base().validate(), Ok(()));
        let text = |limits: SchedulerLimits| limits.validate().unwrap_err().to_string();
        assert_eq!(
            text(SchedulerLimits { num_pages: 0, ..base() }),
            "num_pages must be at least 1"
        );
        assert_eq!(
            text(SchedulerLimits { page_size: 12, ..base() }),
            "page_size must be a power of two, got 12"
        );
        assert_eq!(
            text(SchedulerLimits { chunked_prefill_size: Some(15), ..base() }),
            "chunked_prefill_size must be at least page_size (16), got 15"
        );
        let prefill_sharing = Some(PrefillSharing { above: 100, chunk: 8 });
        assert_eq!(
            text(SchedulerLimits { prefill_sharing, ..base() }),
            "prefill_sharing.chunk must be at least page_size (16), got 8"
        );
        assert_eq!(
            text(SchedulerLimits { num_pages: 1 << 27, ..base() }),
            "134217728 pages of 16 tokens are more slots than an int32 counts"
        );
        let states = |num_states, snapshot_interval| SchedulerLimits {
            states: Some(StateConfig { num_states, snapshot_interval }),
            ..base()
        };
        assert_eq!(states(257, 32).validate(), Ok(()));
        assert_eq!(
            text(states(256, 32)),
            "num_states must be more than max_running_requests (256), got 256"
        );
        assert_eq!(
            text(states(257, 40)),
            "snapshot_interval must be a multiple of page_size (16), got 40"
        );
        // A window of 33 tokens: two pages before a boundary, two more, and 128 of a chunk.
        let windows = |num_pages| SchedulerLimits {
            windows: Some(WindowConfig { window: 33, num_pages }),
            ..base()
        };
        assert_eq!(windows(132).validate(), Ok(()));
        assert_eq!(windows(140).windows_for(1000), Some(3));
        assert_eq!(windows(256).windows_for(1000), None);
        assert_eq!(
            text(windows(131)),
            "window pages must be at least 132, or as many as pages (256); got 131"
        );
        assert_eq!(SchedulerLimits { num_pages: 100, ..windows(100) }.validate(), Ok(()));
        for bad in [0.0, -1.0, f64::NAN] {
            let limits = SchedulerLimits { schedule_conservativeness: bad, ..base() };
            assert!(matches!(limits.validate(), Err(LimitsError::Conservativeness(_))));
        }
    }
}
