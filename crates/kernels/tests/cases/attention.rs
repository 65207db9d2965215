//! Random batches over a K/V pool, and what attention should give.

use kernels::{
    AttentionSpec,
    paged_decode::{
        HEAD_DIMS,
        reference::{PagedKv, attend},
    },
};
use mlx::Dtype;
use rand::{Rng, rngs::SmallRng, seq::SliceRandom};

use super::{any_dtype, floats};

/// Requests with their pages in one pool.
pub(crate) struct Batch {
    pub(crate) spec: AttentionSpec,
    /// Tokens of each request in the pool, this step's included.
    pub(crate) seq_lens: Vec<usize>,
    /// Tokens of each request that are new in this step.
    pub(crate) new_lens: Vec<usize>,
    pub(crate) max_pages: usize,
    /// `[batch, max_pages]`; unused places hold -1.
    pub(crate) page_table: Vec<i32>,
    pub(crate) num_slots: usize,
    pub(crate) k_pool: Vec<f32>,
    pub(crate) v_pool: Vec<f32>,
    /// `[new tokens, num_heads, head_dim]`.
    pub(crate) q: Vec<f32>,
    pub(crate) sinks: Vec<f32>,
}

fn spec(rng: &mut SmallRng) -> AttentionSpec {
    let head_dim = HEAD_DIMS[rng.random_range(0..HEAD_DIMS.len())];
    let group = rng.random_range(1..=16);
    let num_kv_heads = if group > 4 { 1 } else { rng.random_range(1..=3) };
    let dtype = any_dtype(rng);
    let f16_pool = dtype == Dtype::Float32 && rng.random_bool(0.2);
    AttentionSpec {
        num_heads: group * num_kv_heads,
        num_kv_heads,
        head_dim,
        page_size: 1 << rng.random_range(0..=6),
        scale: 1.0 / (head_dim as f32).sqrt() * rng.random_range(0.5..4.0),
        window: rng.random_bool(0.3).then(|| rng.random_range(1..200)),
        soft_cap: rng.random_bool(0.25).then(|| rng.random_range(1.0..30.0)),
        has_sinks: rng.random_bool(0.25),
        dtype,
        kv_dtype: if f16_pool { Dtype::Float16 } else { dtype },
    }
}

/// Mostly short, now and then as long as `longest`.
fn length(rng: &mut SmallRng, longest: usize) -> usize {
    match rng.random_range(0..100) {
        0..60 => rng.random_range(1..=40.min(longest)),
        60..97 => rng.random_range(1..=200.min(longest)),
        _ => rng.random_range(1..=longest),
    }
}

impl Batch {
    /// A decode batch: one new token each. A request may be empty (padding).
    pub(crate) fn decode(rng: &mut SmallRng, longest: usize) -> Self {
        let size = rng.random_range(1..=4);
        let seq_lens: Vec<usize> = (0..size)
            .map(|_| if rng.random_bool(0.03) { 0 } else { length(rng, longest) })
            .collect();
        let spec = spec(rng);
        let new_lens = vec![1; size];
        Self::with(rng, spec, seq_lens, new_lens)
    }

    /// An extend batch: some new tokens after a prefix, which may be empty.
    pub(crate) fn extend(rng: &mut SmallRng, longest: usize, most_new: usize) -> Self {
        let size = rng.random_range(1..=3);
        let spec = spec(rng);
        let new_lens: Vec<usize> = (0..size).map(|_| rng.random_range(1..=most_new)).collect();
        let seq_lens = new_lens
            .iter()
            .map(|new| new + if rng.random_bool(0.3) { 0 } else { length(rng, longest - new) })
            .collect();
        Self::with(rng, spec, seq_lens, new_lens)
    }

    /// Random contents for given lengths.
    pub(crate) fn with(
        rng: &mut SmallRng,
        spec: AttentionSpec,
        seq_lens: Vec<usize>,
        new_lens: Vec<usize>,
    ) -> Self {
        let pages_of = |len: usize| len.div_ceil(spec.page_size);
        let used: usize = seq_lens.iter().map(|len| pages_of(*len)).sum();
        let num_pages = used + 1;
        let mut free: Vec<i32> = (0..i32::try_from(num_pages).unwrap()).collect();
        free.shuffle(rng);
        let longest = seq_lens.iter().map(|len| pages_of(*len)).max().unwrap_or(0).max(1);
        let max_pages = longest + rng.random_range(0..3);
        let mut page_table = vec![-1; seq_lens.len() * max_pages];
        for (row, len) in page_table.chunks_mut(max_pages).zip(&seq_lens) {
            row[..pages_of(*len)].fill_with(|| free.pop().unwrap());
        }
        let num_slots = num_pages * spec.page_size;
        let pool = num_slots * spec.num_kv_heads * spec.head_dim;
        let num_tokens: usize = new_lens.iter().sum();
        Self {
            num_slots,
            k_pool: floats(rng, spec.kv_dtype, pool),
            v_pool: floats(rng, spec.kv_dtype, pool),
            q: floats(rng, spec.dtype, num_tokens * spec.num_heads * spec.head_dim),
            sinks: floats(rng, Dtype::Float32, spec.num_heads),
            spec,
            seq_lens,
            new_lens,
            max_pages,
            page_table,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.seq_lens.len()
    }

    /// `[new tokens, num_heads, head_dim]`; zeros for an empty request.
    pub(crate) fn expected(&self) -> Vec<f64> {
        let spec = &self.spec;
        let mut rows = self.q.chunks(spec.head_dim);
        let mut out = Vec::with_capacity(self.q.len());
        for (request, (len, new)) in self.seq_lens.iter().zip(&self.new_lens).enumerate() {
            let kv = PagedKv {
                k_pool: &self.k_pool,
                v_pool: &self.v_pool,
                pages: &self.page_table[request * self.max_pages..][..self.max_pages],
            };
            for token in 0..*new {
                for head in 0..spec.num_heads {
                    let q = rows.next().unwrap();
                    if *len == 0 {
                        out.extend(std::iter::repeat_n(0.0, spec.head_dim));
                        continue;
                    }
                    let sink = spec.has_sinks.then(|| self.sinks[head]);
                    out.extend(attend(spec, &kv, len - new + token, head, q, sink));
                }
            }
        }
        out
    }
}
