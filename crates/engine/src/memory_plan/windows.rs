//! How layers with and without a window share the K/V pool.
//!
//! A layer with a window keeps the window of each request that runs, and some of what the tree
//! remembers: fewer tokens than the layers that keep all. How many fewer is a share of theirs,
//! `--swa-full-tokens-ratio`, but never less than one request needs.
//!
//! Upstream: `set_num_tokens_hybrid_swa` in
//! `sglang/srt/model_executor/model_runner_kv_cache_mixin.py`.

use mem_cache::WindowConfig;

use super::{ModelShape, PlanError, out_of_range};
use crate::MemoryOptions;

/// Upstream's default.
const FULL_TOKENS_RATIO: f64 = 0.8;

/// Bytes of a pool of so many pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct KvBytes {
    page_size: usize,
    /// Of one token, in the layers that keep all tokens.
    full: usize,
    windows: Option<WindowShare>,
}

#[derive(Debug, Clone, Copy)]
struct WindowShare {
    window: usize,
    /// Of one token, in the layers with a window.
    bytes: usize,
    /// Window pages for a page.
    ratio: f64,
    /// Window pages that one request needs.
    least: usize,
}

impl KvBytes {
    /// For requests of up to `context_length` tokens, in steps of up to `step_tokens`.
    pub(super) fn new(
        model: &ModelShape,
        options: &MemoryOptions,
        page_size: usize,
        (context_length, step_tokens): (usize, usize),
    ) -> Result<Self, PlanError> {
        let given = options.swa_full_tokens_ratio;
        if let Some(ratio) = given.filter(|ratio| !(*ratio > 0.0 && *ratio <= 1.0)) {
            return Err(out_of_range("--swa-full-tokens-ratio", "above 0 and at most 1", ratio));
        }
        let all = model.kv_bytes_per_token;
        // A window as long as the context never lets a token go.
        let window = model.window.filter(|&window| window < context_length);
        let Some(window) = window.filter(|_| !options.disable_hybrid_swa_memory) else {
            return Ok(Self { page_size, full: all, windows: None });
        };
        let (full, bytes) = (all - model.window_bytes_per_token, model.window_bytes_per_token);
        let per_row = WindowConfig::pages_per_row(window, page_size, context_length);
        // Where nobody keeps all tokens, pages beyond the windows cost nothing.
        let of_context = per_row as f64 / context_length.div_ceil(page_size) as f64;
        let default = if full == 0 { of_context.min(FULL_TOKENS_RATIO) } else { FULL_TOKENS_RATIO };
        let ratio = given.unwrap_or(default);
        let least = WindowConfig::least_pages(window, page_size, (context_length, step_tokens));
        Ok(Self { page_size, full, windows: Some(WindowShare { window, bytes, ratio, least }) })
    }

    /// The window pages that go with so many pages; `None` if those layers keep as much as
    /// the others.
    pub(super) fn windows(&self, num_pages: usize) -> Option<WindowConfig> {
        let WindowShare { window, ratio, least, .. } = self.windows?;
        let share = (num_pages as f64 * ratio).ceil() as usize;
        let window_pages = share.max(least);
        (window_pages < num_pages).then_some(WindowConfig { window, num_pages: window_pages })
    }

    /// Bytes of all layers.
    pub(super) fn bytes_of(&self, num_pages: usize) -> usize {
        let window_pages = self.windows(num_pages).map_or(num_pages, |windows| windows.num_pages);
        let window_bytes = self.windows.map_or(0, |windows| windows.bytes);
        self.page_size * (num_pages * self.full + window_pages * window_bytes)
    }

    /// The most pages in so many bytes, as slots are counted in an int32.
    pub(super) fn pages_in(&self, bytes: usize) -> usize {
        let (mut fits, mut too_many) = (0, i32::MAX as usize / self.page_size + 1);
        while too_many - fits > 1 {
            let middle = fits.midpoint(too_many);
            if self.bytes_of(middle) <= bytes { fits = middle } else { too_many = middle }
        }
        fits
    }
}
