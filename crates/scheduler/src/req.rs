//! A live request: its tokens, its pages, its state.
//!
//! Upstream: `Req` in `sglang/srt/managers/schedule_batch.py`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use slotmap::new_key_type;
use types::{
    FinishReason, GenerateReq, GrammarError, LogprobParams, MatchedStop, ReqCounts, Rid,
    SamplingParams, TokenGrammar, TokenId, TokenLogprobs,
};

use crate::{BatchRow, InputLogprobs, RowPenalties, SamplingRow, pooled::PooledSum};

new_key_type! {
    /// A live request. Never reused: the id of a finished one finds nothing.
    pub struct ReqId;
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReqState {
    /// In the waiting queue, without pages.
    Waiting,
    /// Part of its prompt is prefilled. At most one request at a time, and no
    /// decoding meanwhile: the pages that its prompt needs stay available.
    Chunked,
    /// Its prompt is prefilled (or launched); takes part in decode batches.
    Running,
    /// Gone.
    Finished,
}

/// Every move a request may make.
const LEGAL_MOVES: &[(ReqState, ReqState)] = &[
    (ReqState::Waiting, ReqState::Chunked),  // admitted in part
    (ReqState::Waiting, ReqState::Running),  // admitted whole
    (ReqState::Waiting, ReqState::Finished), // aborted; retracted as its last token was in flight
    (ReqState::Chunked, ReqState::Running),  // last chunk launched
    (ReqState::Chunked, ReqState::Waiting),  // retracted
    (ReqState::Chunked, ReqState::Finished), // aborted
    (ReqState::Running, ReqState::Waiting),  // retracted
    (ReqState::Running, ReqState::Finished), // done or aborted
];

#[derive(Debug)]
pub(crate) struct Req {
    pub(crate) rid: Rid,
    /// The prompt and all tokens read back so far.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_len: usize,
    /// Clipped to the context and the pool. The prompt alone if 0.
    pub(crate) max_new_tokens: usize,
    /// Row of the page tables, while it has pages.
    pub(crate) table_row: Option<usize>,
    /// Tokens whose K/V is written by batches launched so far.
    pub(crate) kv_len: usize,
    /// Tokens sampled by launched batches and not read back. At most 1 while a
    /// batch is planned.
    pub(crate) num_pending: usize,
    /// Where the newest pending token is among its batch's sampled rows.
    pub(crate) pending_row: usize,
    /// Set on the first admission.
    pub(crate) cached_tokens: Option<usize>,
    pub(crate) num_retractions: usize,
    /// Higher goes first; equal for all where priorities do not count.
    pub(crate) rank: i64,
    /// Tokens that the scheduler had prefilled when it came.
    pub(crate) arrived_after: u64,
    /// From its arrival to its first admission.
    pub(crate) queue_time: Duration,
    /// When it last joined the queue.
    pub(crate) waiting_since: Duration,
    /// When it was first admitted.
    pub(crate) running_since: Option<Duration>,
    sampling_params: SamplingParams,
    eos_token_ids: Vec<TokenId>,
    /// EOS and stop tokens; set if `min_new_tokens` asks for it.
    suppress: Option<Arc<[TokenId]>>,
    /// How often each token was generated; kept only if there are penalties.
    token_counts: BTreeMap<TokenId, u32>,
    logprobs: Option<Arc<LogprobParams>>,
    /// Has accepted all tokens read back so far. Away while its next mask is computed.
    pub(crate) grammar: Option<Box<dyn TokenGrammar>>,
    /// Of the prompt, read so far; `None`: not wanted, or given out.
    input_logprobs: Option<Vec<TokenLogprobs>>,
    /// If a vector is wanted of the prompt.
    pub(crate) pooled: Option<PooledSum>,
    second_text: Option<usize>,
    state: ReqState,
}

/// What the scheduler notes of a request when it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) rank: i64,
    pub(crate) time: Duration,
    /// Tokens prefilled so far.
    pub(crate) prefilled_tokens: u64,
}

impl Req {
    /// The prompt must be shorter than `max_req_len`.
    pub(crate) fn new(req: GenerateReq, max_req_len: usize, arrival: Arrival) -> Self {
        let GenerateReq {
            rid,
            input_ids,
            sampling_params,
            eos_token_ids,
            logprobs,
            pooling,
            second_text,
            grammar,
            ..
        } = req;
        let room = match pooling {
            None => max_req_len - input_ids.len(),
            Some(_) => 0,
        };
        let suppress = (sampling_params.min_new_tokens > 0)
            .then(|| ended_by(&eos_token_ids, &sampling_params.stop_token_ids))
            .filter(|ids| !ids.is_empty());
        Self {
            rid,
            prompt_len: input_ids.len(),
            tokens: input_ids,
            max_new_tokens: sampling_params.max_new_tokens.unwrap_or(room).min(room),
            table_row: None,
            kv_len: 0,
            num_pending: 0,
            pending_row: 0,
            cached_tokens: None,
            num_retractions: 0,
            rank: arrival.rank,
            arrived_after: arrival.prefilled_tokens,
            queue_time: Duration::ZERO,
            waiting_since: arrival.time,
            running_since: None,
            sampling_params,
            eos_token_ids,
            suppress,
            token_counts: BTreeMap::new(),
            grammar,
            input_logprobs: logprobs
                .as_ref()
                .and_then(|params| params.start_len)
                .map(|_| Vec::new()),
            logprobs,
            pooled: pooling.map(PooledSum::new),
            second_text,
            state: ReqState::Waiting,
        }
    }

    pub(crate) fn state(&self) -> ReqState {
        self.state
    }

    /// # Panics
    /// In debug builds, if the move is not a legal one.
    pub(crate) fn move_to(&mut self, state: ReqState) {
        debug_assert!(
            LEGAL_MOVES.contains(&(self.state, state)),
            "{}: {:?} -> {state:?}",
            self.rid,
            self.state
        );
        self.state = state;
    }

    /// Tokens generated and read back.
    pub(crate) fn output_len(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Tokens still to be sampled at most, pending ones not counted.
    pub(crate) fn num_remaining(&self) -> usize {
        self.max_new_tokens - self.output_len() - self.num_pending
    }

    /// The tokens whose K/V is written and whose ids are known.
    pub(crate) fn written(&self) -> &[TokenId] {
        &self.tokens[..self.kv_len.min(self.tokens.len())]
    }

    /// Prompt and completion at most.
    pub(crate) fn max_len(&self) -> usize {
        self.prompt_len + self.max_new_tokens
    }

    /// Its row of a batch with its next `extend_len` tokens.
    pub(crate) fn batch_row(&self, id: ReqId, extend_len: usize, sampled: bool) -> BatchRow {
        BatchRow {
            req: id,
            table_row: self.table_row.expect("an admitted request has a row"),
            prefix_len: self.kv_len,
            extend_len,
            sampled,
            sampling: self.sampling_row(),
            input_logprobs: None,
            pooled: None,
            second_text: self.second_text,
            state: None,
            first_window_page: None,
        }
    }

    /// How to sample the next token that is not pending.
    pub(crate) fn sampling_row(&self) -> SamplingRow {
        let token_index = self.output_len() + self.num_pending;
        let too_early = token_index < self.sampling_params.min_new_tokens;
        SamplingRow {
            suppress: if too_early { self.suppress.clone() } else { None },
            penalties: self.sampling_params.penalties.is_some().then(|| self.row_penalties()),
            logprobs: self.logprobs.clone(),
            is_constrained: self.grammar.is_some(),
            ..SamplingRow::new(&self.sampling_params, token_index)
        }
    }

    fn row_penalties(&self) -> RowPenalties {
        RowPenalties {
            penalties: self.sampling_params.penalties,
            counts: self.token_counts.iter().map(|(&token, &count)| (token, count)).collect(),
            pending: (self.num_pending > 0).then_some(self.pending_row),
        }
    }

    /// The first position of the prompt whose logits are still to be read; what comes
    /// from the cache must end before it.
    pub(crate) fn first_logprob(&self) -> Option<usize> {
        let num_read = self.input_logprobs.as_ref()?.len();
        let start = self.logprobs.as_ref()?.start_len?.min(self.prompt_len - 1);
        Some(start + num_read)
    }

    /// How many of its tokens may be taken from the cache; the last of all is computed in
    /// any case.
    pub(crate) fn num_cacheable(&self) -> usize {
        let end = match &self.pooled {
            Some(sum) if !sum.wants_last_only() => 0,
            _ => self.first_logprob().unwrap_or(self.tokens.len() - 1),
        };
        end.min(self.tokens.len() - 1)
    }

    /// What a step over these positions has to tell of the prompt.
    pub(crate) fn input_logprobs(&self, piece: std::ops::Range<usize>) -> Option<InputLogprobs> {
        let start = self.first_logprob()?.max(piece.start);
        let end = piece.end.min(self.prompt_len - 1);
        let targets = self.tokens.get(start + 1..end + 1).filter(|targets| !targets.is_empty())?;
        Some(InputLogprobs {
            first: start - piece.start,
            targets: targets.to_vec(),
            params: Arc::clone(self.logprobs.as_ref()?),
        })
    }

    /// Takes what a step has told of the prompt from `position` on. A retracted request
    /// may hear some of it twice.
    pub(crate) fn push_input_logprobs(&mut self, position: usize, logprobs: Vec<TokenLogprobs>) {
        let Some(next) = self.first_logprob() else { return };
        if let (Some(read), Some(known)) = (&mut self.input_logprobs, next.checked_sub(position)) {
            read.extend(logprobs.into_iter().skip(known));
        }
    }

    /// All that was read of the prompt, once.
    pub(crate) fn take_input_logprobs(&mut self) -> Option<Vec<TokenLogprobs>> {
        self.input_logprobs.take()
    }

    /// Appends a token read back; the reason if the request ends with it.
    pub(crate) fn push_token(&mut self, token: TokenId) -> Option<FinishReason> {
        self.num_pending -= 1;
        self.tokens.push(token);
        if self.sampling_params.penalties.is_some() {
            *self.token_counts.entry(token).or_default() += 1;
        }
        let length = self.output_len();
        if let Some(Err(error)) = self.grammar.as_mut().map(|grammar| grammar.accept(token)) {
            return Some(grammar_failed(&error));
        }
        let may_stop =
            !self.sampling_params.ignore_eos && length > self.sampling_params.min_new_tokens;
        let is_stop = self.eos_token_ids.contains(&token)
            || self.sampling_params.stop_token_ids.contains(&token);
        let stop = FinishReason::Stop { matched: Some(MatchedStop::Token(token)) };
        // In the last place too: the completion is whole.
        if may_stop && is_stop {
            return Some(stop);
        }
        if length >= self.max_new_tokens {
            return Some(FinishReason::Length { length });
        }
        let is_terminated = self.grammar.as_ref().is_some_and(|grammar| grammar.is_terminated());
        is_terminated.then_some(stop)
    }

    pub(crate) fn counts(&self) -> ReqCounts {
        ReqCounts {
            prompt_tokens: self.prompt_len,
            completion_tokens: self.output_len(),
            cached_tokens: self.cached_tokens.unwrap_or(0),
            num_retractions: self.num_retractions,
            queue_time: self.queue_time,
        }
    }
}

/// All tokens that end a completion, each once.
fn ended_by(eos_token_ids: &[TokenId], stop_token_ids: &[TokenId]) -> Arc<[TokenId]> {
    let ids: BTreeSet<TokenId> = eos_token_ids.iter().chain(stop_token_ids).copied().collect();
    ids.into_iter().collect()
}

/// The end of a request whose grammar takes more than there is.
pub(crate) fn grammar_failed(error: &GrammarError) -> FinishReason {
    FinishReason::bad_request(error.to_string())
}
