//! One step for the device, as the host sees it.
//!
//! Flat vectors over tokens, like the tensors they become; a settled batch is
//! kept and refilled, so steady decoding allocates nothing here.
//!
//! Upstream: `ScheduleBatch` in `sglang/srt/managers/schedule_batch.py`.

use std::{ops::Range, sync::Arc};

use mem_cache::{MemCache, Piece, Snapshot, StateFlow};
use types::{LogprobParams, Penalties, SamplingParams, SlotId, StateId, TokenId};

use crate::ReqId;

/// The kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardMode {
    /// Prompts, or chunks of them, over a cached prefix; behind them, with mixed chunks, one
    /// token for each request that runs.
    Extend,
    /// One token for each row.
    Decode,
}

/// An input token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputId {
    /// Known to the host.
    Host(TokenId),
    /// Sampled by the batch launched just before, and not read by the host yet.
    Previous {
        /// Index among that batch's sampled rows.
        row: usize,
    },
}

/// How to sample a row's token. A function of the request alone, so a token
/// does not depend on the batch it is sampled in.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingRow {
    /// 0 for greedy.
    pub temperature: f32,
    /// `types::TOP_K_ALL` for no limit.
    pub top_k: u32,
    /// In (0, 1].
    pub top_p: f32,
    /// In [0, 1].
    pub min_p: f32,
    /// The request's `sampling_seed`; 0 if it has none.
    pub seed: u64,
    /// Index of the token to sample within the request's completion. Retraction
    /// does not change it: a token is sampled once.
    pub token_index: usize,
    /// Tokens that must not be sampled here: EOS and stop tokens before
    /// `min_new_tokens`.
    pub suppress: Option<Arc<[TokenId]>>,
    /// What tokens cost that the completion has already.
    pub penalties: Option<RowPenalties>,
    /// Added to the logits of these tokens, each named once.
    pub logit_bias: Option<Arc<[(TokenId, f32)]>>,
    /// Log-probabilities wanted of the sampled token and others.
    pub logprobs: Option<Arc<LogprobParams>>,
    /// It follows a grammar: which tokens may come is known when the batch before is read.
    pub is_constrained: bool,
}

/// Penalties, and the completion that they are for.
#[derive(Debug, Clone, PartialEq)]
pub struct RowPenalties {
    /// What a token costs.
    pub penalties: Penalties,
    /// How often each token was sampled, as far as the host has read. Ascending.
    pub counts: Vec<(TokenId, u32)>,
    /// Where a token that the host has not read is among the sampled rows of the batch
    /// launched just before. It counts too.
    pub pending: Option<usize>,
}

/// Positions of a prompt whose logits say how likely its next tokens were.
#[derive(Debug, Clone, PartialEq)]
pub struct InputLogprobs {
    /// Index of the first among the row's tokens of this step; the others follow it.
    pub first: usize,
    /// The prompt's token after each of them.
    pub targets: Vec<TokenId>,
    /// What is wanted of each.
    pub params: Arc<LogprobParams>,
}

impl SamplingRow {
    pub(crate) fn new(params: &SamplingParams, token_index: usize) -> Self {
        Self {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            seed: params.sampling_seed.unwrap_or(0),
            token_index,
            suppress: None,
            penalties: None,
            logit_bias: (!params.logit_bias.is_empty()).then(|| Arc::clone(&params.logit_bias)),
            logprobs: None,
            is_constrained: false,
        }
    }
}

/// One request's part of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRow {
    /// Whose.
    pub req: ReqId,
    /// Its row of the page tables. The pages reach to `prefix_len + extend_len`
    /// tokens at least.
    pub table_row: usize,
    /// Tokens before this step's. Whole pages for a prompt or a chunk of one.
    pub prefix_len: usize,
    /// This step's tokens; 1 for a request that runs.
    pub extend_len: usize,
    /// Whether a token is sampled after the last. False for a chunk that is not
    /// the prompt's last, and for `max_new_tokens` 0.
    pub sampled: bool,
    /// Means nothing unless `sampled`.
    pub sampling: SamplingRow,
    /// Log-probabilities wanted of the prompt's own tokens.
    pub input_logprobs: Option<InputLogprobs>,
    /// Those of this step's tokens, not none, whose outputs are wanted, as their sum.
    pub pooled: Option<Range<usize>>,
    /// Of a prompt that is a pair of texts, where the second begins.
    pub second_text: Option<usize>,
    /// Which states of the state pool it reads and writes; `None` for a model without
    /// recurrent layers.
    pub state: Option<StateFlow>,
    /// Index of its first page with a window page, which is no later than any of its tokens
    /// looks; all pages from there to its last token have one. `None` for a model without
    /// window pages.
    pub first_window_page: Option<usize>,
}

/// A copy of a row's recurrent state that a step leaves on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSnapshot {
    /// Index of the batch's token after which it is taken.
    pub token: usize,
    /// Where it goes.
    pub state: StateId,
}

/// One step. The token vectors are the rows' tokens end to end.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleBatch {
    /// What its first row is.
    pub mode: ForwardMode,
    /// At least one.
    pub rows: Vec<BatchRow>,
    /// How many rows at the end of an extend batch are of requests that run.
    pub num_decode_rows: usize,
    /// `[num_tokens]`.
    pub input_ids: Vec<InputId>,
    /// `[num_tokens]`, from 0 at the start of a request.
    pub positions: Vec<u32>,
    /// `[num_tokens]`, where each token's K/V goes.
    pub out_cache_loc: Vec<SlotId>,
    /// `[num_tokens]`, the same for layers with a window; empty without window pages.
    pub window_out_cache_loc: Vec<SlotId>,
    /// Ascending by token. No state twice, and none that a row reads or writes.
    pub snapshots: Vec<BatchSnapshot>,
    /// Reused.
    taken: Vec<Snapshot>,
}

impl ScheduleBatch {
    pub(crate) fn empty() -> Self {
        Self {
            mode: ForwardMode::Decode,
            rows: Vec::new(),
            num_decode_rows: 0,
            input_ids: Vec::new(),
            positions: Vec::new(),
            out_cache_loc: Vec::new(),
            window_out_cache_loc: Vec::new(),
            snapshots: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Empties the vectors and keeps their memory.
    pub(crate) fn clear(&mut self, mode: ForwardMode) {
        self.mode = mode;
        self.rows.clear();
        self.num_decode_rows = 0;
        self.input_ids.clear();
        self.positions.clear();
        self.out_cache_loc.clear();
        self.window_out_cache_loc.clear();
        self.snapshots.clear();
    }

    /// Enters a row, whose token ids were entered last: where they stand, where their K/V
    /// goes, how the row's state passes through the step.
    pub(crate) fn push_row(&mut self, cache: &mut MemCache, piece: Piece, row: BatchRow) {
        let positions = piece.start..piece.start + piece.len;
        self.positions.extend(positions.clone().map(|position| position as u32));
        self.taken.clear();
        let state = cache.advance(row.table_row, piece, &mut self.taken);
        let first = self.num_tokens() - piece.len;
        self.snapshots.extend(self.taken.iter().map(|taken| BatchSnapshot {
            token: first + taken.seq_len - piece.start - 1,
            state: taken.state,
        }));
        let tables = cache.tables();
        self.out_cache_loc.extend(tables.slots(row.table_row, positions.clone()));
        let first_window_page = cache.first_window_page(row.table_row);
        if first_window_page.is_some() {
            self.window_out_cache_loc.extend(tables.window_slots(row.table_row, positions));
        }
        self.rows.push(BatchRow { state, first_window_page, ..row });
    }

    /// Tokens in all rows.
    pub fn num_tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether sampling has to wait for [`Executor::sample`](crate::Executor::sample).
    pub fn is_constrained(&self) -> bool {
        self.sampled_rows().any(|row| row.sampling.is_constrained)
    }

    /// The rows of prompts and chunks of them, if the mode is extend.
    pub fn prefill_rows(&self) -> &[BatchRow] {
        match self.mode {
            ForwardMode::Extend => &self.rows[..self.rows.len() - self.num_decode_rows],
            ForwardMode::Decode => &[],
        }
    }

    /// The rows that a token is sampled for, in order.
    pub fn sampled_rows(&self) -> impl Iterator<Item = &BatchRow> {
        self.rows.iter().filter(|row| row.sampled)
    }
}
