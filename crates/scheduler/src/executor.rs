//! The seam between scheduling and the device.
//!
//! Upstream: `forward_batch_generation` of `sglang/srt/managers/tp_worker.py`.

use mem_cache::PageTables;
use types::{TokenId, TokenLogprobs};

use crate::ScheduleBatch;

/// What a batch gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchOutput {
    /// One for each sampled row, in the order of the rows; none if no row is sampled.
    pub token_ids: Vec<TokenId>,
    /// Of the rows that asked, in the order of the rows.
    pub logprobs: Vec<RowLogprobs>,
    /// Of the rows with [`BatchRow::pooled`](crate::BatchRow::pooled), in their order:
    /// the sum of the model's outputs for these tokens.
    pub pooled: Vec<Vec<f32>>,
}

/// Log-probabilities of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowLogprobs {
    /// Its index in the batch.
    pub row: usize,
    /// For [`InputLogprobs`](crate::InputLogprobs), one for each target.
    pub input: Vec<TokenLogprobs>,
    /// Of the sampled token.
    pub output: Option<TokenLogprobs>,
}

impl From<Vec<TokenId>> for BatchOutput {
    fn from(token_ids: Vec<TokenId>) -> Self {
        Self { token_ids, ..Self::default() }
    }
}

/// Which tokens one row may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowMask {
    /// Its index among the batch's sampled rows.
    pub sampled_row: usize,
    /// `[ceil(vocab / 32)]`: token `t` may come if bit `t % 32` of word `t / 32` is set.
    pub words: Vec<u32>,
}

/// Runs batches in the order of their launches.
///
/// That order is a promise the scheduler builds on: it hands pages on while a
/// batch that writes to them is queued, and lets requests read K/V that a batch
/// launched earlier has yet to write.
pub trait Executor {
    /// A batch on its way.
    type Handle;
    /// What may go wrong on the device.
    type Error;

    /// Enqueues a batch; must not wait for it. Whatever it needs of `batch` and
    /// `tables` it takes now: both change after the return. Of a batch with
    /// [constrained](ScheduleBatch::is_constrained) rows the logits are computed and no
    /// token is sampled: that is left to [`Self::sample`].
    fn launch(
        &mut self,
        batch: &ScheduleBatch,
        tables: &PageTables,
    ) -> Result<Self::Handle, Self::Error>;

    /// Samples the tokens of the constrained batch launched last, once the one before it
    /// was waited for. `batch` is that of the launch; rows without a mask may get any
    /// token.
    fn sample(
        &mut self,
        handle: &mut Self::Handle,
        batch: &ScheduleBatch,
        masks: &[RowMask],
    ) -> Result<(), Self::Error>;

    /// Blocks until the batch is done.
    fn wait(&mut self, handle: Self::Handle) -> Result<BatchOutput, Self::Error>;
}
