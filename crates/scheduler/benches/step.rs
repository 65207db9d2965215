//! What scheduling costs per step on the host, next to a device that costs
//! nothing: 256 running requests and a pool of 256 k slots.
//!
//! The bar: a step under 100 us, so that it hides behind any decode batch.

use std::{convert::Infallible, hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mem_cache::{EvictionPolicy, MemCache, MemCacheConfig, PageTables};
use scheduler::{
    BatchOutput, Executor, RowMask, ScheduleBatch, Scheduler, SchedulerLimits, SchedulerMsg,
};
use types::{GenerateReq, Rid, SamplingParams, TokenId};

const NUM_SLOTS: usize = 256 * 1024;
const NUM_REQS: usize = 256;
const PROMPT_LEN: usize = 512;

/// Answers at once.
struct NoDevice;

impl Executor for NoDevice {
    type Handle = usize;
    type Error = Infallible;

    fn launch(&mut self, batch: &ScheduleBatch, _: &PageTables) -> Result<usize, Infallible> {
        Ok(batch.sampled_rows().count())
    }

    fn sample(
        &mut self,
        _: &mut Self::Handle,
        _: &ScheduleBatch,
        _: &[RowMask],
    ) -> Result<(), Infallible> {
        unreachable!("no request follows a grammar")
    }

    fn wait(&mut self, num_sampled: usize) -> Result<BatchOutput, Infallible> {
        Ok(vec![1; num_sampled].into())
    }
}

/// A prompt that shares 128 tokens with all others.
fn prompt(index: usize) -> Vec<TokenId> {
    let own = (0..PROMPT_LEN - 128).map(|i| (index * 7919 + i * 31) as TokenId % 50_000);
    (0..128).chain(own).collect()
}

fn req(index: usize) -> SchedulerMsg {
    SchedulerMsg::Generate(Box::new(GenerateReq {
        rid: Rid::new(format!("r{index}")),
        input_ids: prompt(index),
        sampling_params: SamplingParams { max_new_tokens: None, ..Default::default() },
        eos_token_ids: vec![0],
        logprobs: None,
        grammar: None,
        pooling: None,
        second_text: None,
        priority: None,
    }))
}

/// All requests prefilled and decoding.
fn decoding(page_size: usize) -> Scheduler<NoDevice> {
    let limits = SchedulerLimits {
        max_running_requests: NUM_REQS,
        page_size,
        num_pages: NUM_SLOTS / page_size,
        context_length: 1 << 20,
        schedule_conservativeness: 0.001,
        ..Default::default()
    };
    let mut scheduler = Scheduler::new(NoDevice, limits).expect("good limits");
    let mut out = Vec::new();
    let Ok(_) = scheduler.step((0..NUM_REQS).map(req), &mut out);
    while scheduler.stats().num_running_reqs < NUM_REQS {
        let Ok(_) = scheduler.step([], &mut out);
    }
    scheduler
}

fn decode_step(c: &mut Criterion) {
    for page_size in [1, 16] {
        let mut scheduler = decoding(page_size);
        let mut out = Vec::new();
        c.bench_function(&format!("decode step, 256 running, page size {page_size}"), |b| {
            b.iter(|| {
                // Before the pool is full, which would measure retraction.
                if scheduler.stats().num_free_tokens < NUM_SLOTS / 8 {
                    scheduler = decoding(page_size);
                }
                out.clear();
                let Ok(progress) = scheduler.step([], &mut out);
                black_box(progress)
            });
        });
    }
}

/// One request leaves and another comes: the extend step of the newcomer and the
/// decode step of all.
fn churn(c: &mut Criterion) {
    for page_size in [1, 16] {
        let mut scheduler = decoding(page_size);
        let mut out = Vec::new();
        let mut newest = NUM_REQS;
        let name = format!("leave, join, decode: two steps, 256 running, page size {page_size}");
        c.bench_function(&name, |b| {
            let next = || {
                newest += 1;
                let oldest = Rid::new(format!("r{}", newest - 1 - NUM_REQS));
                [SchedulerMsg::Abort(oldest), req(newest - 1)]
            };
            b.iter_batched(
                next,
                |messages| {
                    out.clear();
                    let Ok(_) = scheduler.step(messages, &mut out);
                    let Ok(progress) = scheduler.step([], &mut out);
                    black_box(progress)
                },
                BatchSize::PerIteration,
            );
        });
        assert!(scheduler.stats().num_running_reqs + 1 >= NUM_REQS, "all are running");
    }
}

/// A tree that fills the pool: sequences of 384 tokens behind a common prefix.
fn full_cache(page_size: usize) -> MemCache {
    let mut cache = MemCache::new(MemCacheConfig {
        num_pages: NUM_SLOTS / page_size,
        page_size,
        num_rows: NUM_REQS,
        disable_radix_cache: false,
        eviction_policy: EvictionPolicy::Lru,
        max_step_tokens: PROMPT_LEN,
        states: None,
        windows: None,
    });
    for index in 0..=NUM_SLOTS / (PROMPT_LEN - 128) {
        insert(&mut cache, &prompt(index));
    }
    assert!(cache.evictable_size() * page_size > NUM_SLOTS * 9 / 10);
    cache
}

/// A request's life as the cache sees it.
fn insert(cache: &mut MemCache, tokens: &[TokenId]) {
    let (row, _) = cache.open(tokens, tokens.len(), 0).expect("a free row");
    assert!(cache.reserve(row, tokens.len()));
    cache.close(row, tokens);
}

fn radix(c: &mut Criterion) {
    for page_size in [1, 16] {
        let mut cache = full_cache(page_size);
        let newest = NUM_SLOTS / (PROMPT_LEN - 128);
        let known = prompt(newest);
        assert!(cache.peek_prefix(&known) >= PROMPT_LEN - page_size, "it is in the tree");
        c.bench_function(&format!("match 512 tokens, 256k slots, page size {page_size}"), |b| {
            b.iter(|| black_box(cache.peek_prefix(&known)));
        });
        let mut index = newest;
        let name = format!("insert and evict 384 tokens, 256k slots, page size {page_size}");
        c.bench_function(&name, |b| {
            let next = || {
                index += 1;
                prompt(index)
            };
            b.iter_batched(next, |tokens| insert(&mut cache, &tokens), BatchSize::SmallInput);
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = decode_step, churn, radix
}
criterion_main!(benches);
