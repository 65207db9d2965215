//! A configuration and a list of happenings, from a seed.

use std::{sync::Arc, time::Duration};

use mem_cache::{EvictionPolicy, StateConfig, WindowConfig};
use types::{
    GenerateReq, LogprobParams, Penalties, Pooling, Rid, SamplingParams, SplitMix64, TokenGrammar,
    TokenId, splitmix64,
};

use super::{fake_grammar::FakeGrammar, oracle::VOCAB_SIZE};
use crate::{
    PrefillSharing, PriorityRules, QueueRules, RetractionPolicy, SchedulePolicy, SchedulerLimits,
};

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Send the request of this index.
    Send(usize),
    Abort(usize),
    AbortAll,
    Flush,
}

#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) decodes_per_piece: usize,
    pub(super) limits: SchedulerLimits,
    /// A request's `sampling_seed` is its index here.
    pub(super) reqs: Vec<GenerateReq>,
    /// By step, ascending.
    pub(super) actions: Vec<(usize, Action)>,
}

/// Draws.
#[derive(Debug, Clone)]
pub(super) struct Rng(SplitMix64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(splitmix64(seed)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// In `low..=high`.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    /// True once in `n`.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.between(0, from.len() - 1)]
    }

    fn tokens(&mut self, len: usize) -> Vec<TokenId> {
        (0..len).map(|_| (self.next() % VOCAB_SIZE) as TokenId).collect()
    }
}

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let is_storm = rng.one_in(3);
        let limits = limits(&mut rng, is_storm);
        let reqs = reqs(&mut rng, &limits, is_storm);
        let actions = actions(&mut rng, &reqs, is_storm);
        Self { decodes_per_piece: rng.between(1, 4), limits, reqs, actions }
    }
}

/// In a storm many requests with long completions are admitted into little
/// memory, as nothing is kept free for what they will generate: retractions.
fn limits(rng: &mut Rng, is_storm: bool) -> SchedulerLimits {
    let page_size = 1 << rng.between(0, if is_storm { 4 } else { 6 });
    let context_length = if is_storm { rng.between(80, 240) } else { rng.between(8, 100) };
    // From less than one request needs to more than all of them do.
    let pool = if is_storm {
        rng.between(context_length * 2 / 3, context_length)
    } else {
        rng.between(context_length / 3, context_length * 4)
    };
    let chunk = page_size + rng.between(0, 2 * page_size) + rng.between(0, 12);
    let max_running_requests = rng.between(1, 10);
    // A model with recurrent layers now and then, from no room for snapshots to plenty.
    let states = rng.one_in(3).then(|| StateConfig {
        num_states: max_running_requests + 1 + rng.between(0, 12),
        snapshot_interval: page_size * rng.between(1, 4),
    });
    let limits = SchedulerLimits {
        max_running_requests,
        max_prefill_tokens: rng.between(1, 200),
        chunked_prefill_size: (!rng.one_in(3)).then_some(chunk),
        prefill_sharing: (!rng.one_in(3)).then(|| PrefillSharing {
            above: rng.between(0, 2 * page_size),
            chunk: page_size + rng.between(0, page_size),
        }),
        page_size,
        num_pages: pool.div_ceil(page_size),
        context_length,
        queue: queue_rules(rng),
        schedule_conservativeness: if is_storm { 0.001 } else { rng.pick(&[0.01, 0.3, 1.0, 2.0]) },
        disable_radix_cache: rng.one_in(4),
        eviction_policy: rng.pick(&[
            EvictionPolicy::Lru,
            EvictionPolicy::Lfu,
            EvictionPolicy::Slru { protected_threshold: 2 },
            EvictionPolicy::Priority,
        ]),
        mixed_chunk: rng.one_in(3),
        overlap: !rng.one_in(4),
        states,
        windows: None,
    };
    let windows = rng.one_in(2).then(|| windows(rng, &limits));
    SchedulerLimits { windows, ..limits }
}

const POLICIES: [SchedulePolicy; 7] = [
    SchedulePolicy::Fcfs,
    SchedulePolicy::Lpm,
    SchedulePolicy::DfsWeight,
    SchedulePolicy::Hrrn,
    SchedulePolicy::ShortestPrefillFirst,
    SchedulePolicy::Lof,
    SchedulePolicy::Random,
];

/// A second is a step.
fn queue_rules(rng: &mut Rng) -> QueueRules {
    let priority = rng.one_in(2).then(|| PriorityRules {
        low_values_first: rng.one_in(2),
        default_value: rng.one_in(2).then_some(1),
        preemption_threshold: (!rng.one_in(3)).then(|| rng.next() % 3),
        retraction: rng.pick(&[RetractionPolicy::Length, RetractionPolicy::Priority]),
    });
    QueueRules {
        policy: rng.pick(&POLICIES),
        random_seed: rng.next(),
        max_queued_requests: rng.one_in(6).then(|| rng.between(1, 5)),
        prefill_max_requests: rng.one_in(4).then(|| rng.between(1, 3)),
        priority,
        refuses_priority: false,
        waiting_timeout: rng.one_in(8).then(|| Duration::from_secs(rng.next() % 60)),
        running_timeout: rng.one_in(8).then(|| Duration::from_secs(5 + rng.next() % 60)),
    }
}

/// From one request's window to plenty.
fn windows(rng: &mut Rng, limits: &SchedulerLimits) -> WindowConfig {
    let largest = rng.pick(&[limits.context_length, limits.context_length.div_ceil(4)]);
    let window = rng.between(1, largest);
    let lens = (limits.context_length, limits.max_step_tokens());
    let least = WindowConfig::least_pages(window, limits.page_size, lens).min(limits.num_pages);
    let num_pages = if rng.one_in(2) { least } else { rng.between(least, limits.num_pages) };
    WindowConfig { window, num_pages }
}

fn reqs(rng: &mut Rng, limits: &SchedulerLimits, is_storm: bool) -> Vec<GenerateReq> {
    let longest = limits.context_length + 1;
    let bases: Vec<_> = (0..rng.between(1, 3)).map(|_| rng.tokens(longest)).collect();
    let num_reqs = if is_storm { rng.between(6, 16) } else { rng.between(1, 10) };
    let longest_new = if is_storm { limits.context_length / 2 } else { 30 };
    let longest_prompt = (limits.context_length - 1) / if is_storm { 12 } else { 1 };
    let mut reqs: Vec<GenerateReq> = Vec::new();
    for index in 0..num_reqs {
        let base = &bases[rng.between(0, bases.len() - 1)];
        let num_shared = rng.between(0, longest);
        let num_own = if rng.one_in(3) { 0 } else { rng.between(0, 12) };
        let mut input_ids = base[..num_shared].to_vec();
        input_ids.extend(rng.tokens(num_own));
        // Too long, or empty, only now and then.
        if !rng.one_in(12) {
            input_ids.truncate(rng.between(1, longest_prompt));
        }
        // Where the queue may be full, whether a name is free is not known beforehand.
        let is_duplicate =
            index > 0 && limits.queue.max_queued_requests.is_none() && rng.one_in(20);
        let rid = if is_duplicate { rng.between(0, index - 1) } else { index };
        let logprobs = rng.one_in(4).then(|| {
            let start_len = rng.one_in(2).then(|| rng.between(0, input_ids.len()));
            Arc::new(LogprobParams { start_len, ..LogprobParams::default() })
        });
        let grammar = grammar(rng.clone(), is_storm);
        let sampling_params = sampling_params(rng, index, longest_new);
        let poolings = [Some(Pooling::Last), Some(Pooling::First), Some(Pooling::Mean), None];
        let is_prefill_only = sampling_params.max_new_tokens == Some(0);
        reqs.push(GenerateReq {
            grammar,
            second_text: None,
            priority: (!rng.one_in(3)).then(|| rng.between(0, 4) as i64 - 1),
            logprobs,
            pooling: poolings[index % 4].filter(|_| is_prefill_only),
            rid: Rid::new(format!("r{rid}")),
            input_ids,
            sampling_params,
            eos_token_ids: if is_storm || rng.one_in(4) { Vec::new() } else { vec![0] },
        });
    }
    reqs
}

/// In a storm grammars do not end: completions have to be long.
fn grammar(mut rng: Rng, is_storm: bool) -> Option<Box<dyn TokenGrammar>> {
    let num_free = rng.between(0, 2);
    rng.one_in(5).then(|| Box::new(FakeGrammar::new(num_free, !is_storm)) as _)
}

fn sampling_params(rng: &mut Rng, index: usize, longest_new: usize) -> SamplingParams {
    // Those without a limit run alone, so a storm has few.
    let max_new_tokens = match rng.between(0, longest_new) {
        0 => None,
        1 => Some(0),
        2 => Some(1),
        _ => Some(rng.between(longest_new / 3, longest_new)),
    };
    SamplingParams {
        max_new_tokens,
        min_new_tokens: if rng.one_in(4) { rng.between(0, max_new_tokens.unwrap_or(9)) } else { 0 },
        stop_token_ids: if rng.one_in(4) { vec![1, 5] } else { Vec::new() },
        ignore_eos: rng.one_in(3),
        temperature: rng.pick(&[0.0, 1.0]),
        sampling_seed: Some(index as u64),
        penalties: Penalties { presence: rng.pick(&[0.0, 0.0, 1.0]), ..Penalties::default() },
        ..Default::default()
    }
}

fn actions(rng: &mut Rng, reqs: &[GenerateReq], is_storm: bool) -> Vec<(usize, Action)> {
    // All at once, or spread until the first are done.
    let span = rng.pick(if is_storm { &[0, 3, 20] } else { &[0, 3, 20, 120] });
    let mut actions = Vec::new();
    for index in 0..reqs.len() {
        let step = rng.between(0, span);
        actions.push((step, Action::Send(index)));
        if rng.one_in(8) {
            actions.push((step + rng.between(0, 30), Action::Abort(index)));
        }
    }
    if rng.one_in(10) {
        actions.push((rng.between(0, span + 20), Action::AbortAll));
    }
    for _ in 0..rng.between(0, 2) {
        actions.push((rng.between(0, span + 100), Action::Flush));
    }
    actions.sort_by_key(|&(step, _)| step);
    actions
}
