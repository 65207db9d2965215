//! Random batches over a K/V pool, and what attention should give.

use kernels::{
    AttentionSpec, ExtendTiling, KernelError, KvDtype, Reach,
    paged_decode::{
        DecodePlan, HEAD_DIMS,
        reference::{PagedKv, attend},
    },
    paged_extend,
};
use mlx::Dtype;
use rand::{Rng, rngs::SmallRng, seq::SliceRandom};

use super::{
    Device, Value, any_dtype, any_kv_dtype, any_packed, chain, compare, epsilon, floats, ints,
    random, random_pool, rng, sizes,
};

/// Requests with their pages in one pool.
struct Batch {
    spec: AttentionSpec,
    /// Tokens of each request in the pool, this step's included.
    seq_lens: Vec<usize>,
    /// Tokens of each request that are new in this step.
    new_lens: Vec<usize>,
    max_pages: usize,
    /// `[batch, max_pages]`; unused places hold -1.
    page_table: Vec<i32>,
    /// Of K and V, and the numbers that they hold.
    pools: [Value; 2],
    k_pool: Vec<f32>,
    v_pool: Vec<f32>,
    /// `[new tokens, num_heads, head_dim]`.
    q: Vec<f32>,
    sinks: Vec<f32>,
}

fn spec(shape: u64) -> AttentionSpec {
    let mut rng = rng(shape);
    let head_dim = HEAD_DIMS[usize::try_from(shape).unwrap() % HEAD_DIMS.len()];
    let group = rng.random_range(1..=16);
    let num_kv_heads = if group > 4 { 1 } else { rng.random_range(1..=3) };
    let dtype = any_dtype(&mut rng);
    AttentionSpec {
        num_heads: group * num_kv_heads,
        num_kv_heads,
        head_dim,
        page_size: 1 << rng.random_range(0..=6),
        scale: 1.0 / (head_dim as f32).sqrt() * rng.random_range(0.5..4.0),
        reach: reach(&mut rng),
        soft_cap: rng.random_bool(0.25).then(|| rng.random_range(1.0..30.0)),
        has_sinks: rng.random_bool(0.25),
        dtype,
        kv_dtype: any_kv_dtype(&mut rng, dtype),
    }
}

/// The same over a packed pool.
fn packed_spec(shape: u64) -> AttentionSpec {
    let (dtype, kv_dtype) = any_packed(&mut rng(shape + 1000));
    AttentionSpec { dtype, kv_dtype, ..spec(shape) }
}

/// Half of them all tokens. Chunks are often so short that several end among a request's
/// tokens.
fn reach(rng: &mut SmallRng) -> Reach {
    let most = [5, 40, 200][rng.random_range(0..3)];
    Reach {
        window: rng.random_bool(0.3).then(|| rng.random_range(1..200)),
        chunk: rng.random_bool(0.3).then(|| rng.random_range(1..=most)),
    }
}

/// Mostly short, one in ten as long as `longest`.
fn length(rng: &mut SmallRng, longest: usize) -> usize {
    match rng.random_range(0..10) {
        0..6 => rng.random_range(1..=40.min(longest)),
        6..9 => rng.random_range(1..=150.min(longest)),
        _ => rng.random_range(1..=longest),
    }
}

/// One token for each of a few requests, some of them empty (padding).
fn decode_case(
    device: &dyn Device,
    (spec, splits): (AttentionSpec, usize),
    seed: u64,
    longest: usize,
) -> Result<f64, String> {
    let rng = &mut rng(seed);
    let size = rng.random_range(1..=3);
    let seq_lens =
        (0..size).map(|_| if rng.random_bool(0.03) { 0 } else { length(rng, longest) }).collect();
    let batch = Batch::new(rng, spec, seq_lens, vec![1; size]);
    batch.run_decode(device, splits).map_err(|error| {
        format!("{error}\n{:?}\nlengths {:?}, {splits} splits", batch.spec, batch.seq_lens)
    })
}

/// Decode of short contexts.
pub(crate) fn decode(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    decode_case(device, (spec(shape), 1 << (shape % 5)), seed, 200)
}

/// The same over packed pools.
pub(crate) fn decode_packed(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    decode_case(device, (packed_spec(shape), 1 << (shape % 5)), seed, 200)
}

/// Decode with contexts of up to 8192 tokens.
pub(crate) fn decode_long(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    decode_case(device, (spec(shape), 1 << (shape % 5)), seed, 8192)
}

fn extend_case(
    device: &dyn Device,
    spec: AttentionSpec,
    seed: u64,
    longest: usize,
) -> Result<f64, String> {
    let rng = &mut rng(seed);
    let size = rng.random_range(1..=2);
    let most = if rng.random_bool(0.1) { 40 } else { 12 };
    let new_lens: Vec<usize> = (0..size).map(|_| rng.random_range(1..=most)).collect();
    let seq_lens = new_lens
        .iter()
        .map(|new| new + if rng.random_bool(0.3) { 0 } else { length(rng, longest - new) })
        .collect();
    let batch = Batch::new(rng, spec, seq_lens, new_lens);
    batch.run_extend(device).map_err(|error| {
        format!("{error}\n{:?}\n{:?} new of {:?}", batch.spec, batch.new_lens, batch.seq_lens)
    })
}

/// Some new tokens for each of a few requests, after a prefix that may be empty.
pub(crate) fn extend(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    extend_case(device, spec(shape), seed, 150)
}

/// The same over packed pools.
pub(crate) fn extend_packed(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let spec = packed_spec(shape);
    let on_matrix_unit = spec.dtype != Dtype::Float32 && spec.head_dim <= 256;
    // The emulator has that kernel for every one.
    let kv_dtype = KvDtype::PACKED[usize::try_from(shape % 3).unwrap()];
    let spec = if on_matrix_unit { AttentionSpec { kv_dtype, ..spec } } else { spec };
    extend_case(device, spec, seed, 150)
}

/// The same with prefixes of up to 8192 tokens.
pub(crate) fn extend_long(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    extend_case(device, spec(shape), seed, 8192)
}

impl Batch {
    fn new(
        rng: &mut SmallRng,
        spec: AttentionSpec,
        seq_lens: Vec<usize>,
        new_lens: Vec<usize>,
    ) -> Self {
        let pages_of = |len: usize| len.div_ceil(spec.page_size);
        let num_pages = 1 + seq_lens.iter().map(|len| pages_of(*len)).sum::<usize>();
        let mut free: Vec<i32> = (0..i32::try_from(num_pages).unwrap()).collect();
        free.shuffle(rng);
        let longest = seq_lens.iter().map(|len| pages_of(*len)).max().unwrap_or(0).max(1);
        let max_pages = longest + rng.random_range(0..3);
        let mut page_table = vec![-1; seq_lens.len() * max_pages];
        for (row, len) in page_table.chunks_mut(max_pages).zip(&seq_lens) {
            row[..pages_of(*len)].fill_with(|| free.pop().unwrap());
        }
        let shape = [num_pages * spec.page_size, spec.num_kv_heads, spec.head_dim];
        let (k, k_pool) = random_pool(rng, spec.kv_dtype, shape);
        let (v, v_pool) = random_pool(rng, spec.kv_dtype, shape);
        let num_tokens: usize = new_lens.iter().sum();
        Self {
            pools: [k, v],
            k_pool,
            v_pool,
            q: random(rng, spec.dtype, num_tokens * spec.num_heads * spec.head_dim),
            sinks: random(rng, Dtype::Float32, spec.num_heads),
            spec,
            seq_lens,
            new_lens,
            max_pages,
            page_table,
        }
    }

    fn q(&self) -> Value {
        let spec = &self.spec;
        let num_tokens = self.new_lens.iter().sum();
        floats(spec.dtype, &[num_tokens, spec.num_heads, spec.head_dim], &self.q)
    }

    fn page_table(&self) -> Value {
        ints(&[self.seq_lens.len(), self.max_pages], &self.page_table)
    }

    fn sinks(&self) -> Value {
        floats(Dtype::Float32, &[self.spec.num_heads], &self.sinks)
    }

    fn run_decode(&self, device: &dyn Device, splits: usize) -> Result<f64, String> {
        let plan = DecodePlan::with_splits(&self.spec, self.seq_lens.len(), splits);
        let [k_pool, v_pool] = &self.pools;
        let (q, table, lens) = (self.q(), self.page_table(), sizes(&self.seq_lens));
        let (sinks, chain) = (self.sinks(), chain());
        let inputs = [&q, k_pool, v_pool, &table, &lens, &sinks, &chain];
        let mut out = device.run(&plan.decode, &inputs)?.outputs.remove(0);
        if let Some(merge) = &plan.merge {
            let partial = floats(Dtype::Float32, &plan.decode.outputs[0].0, &out);
            out = device.run(merge, &[&partial, &sinks])?.outputs.remove(0);
        }
        compare(&out, &self.expected(), epsilon(self.spec.dtype))
    }

    /// Now and then not the usual one.
    fn tiling(&self) -> Result<ExtendTiling, KernelError> {
        match self.spec.page_size {
            1 | 16 if self.spec.dtype != Dtype::Float32 && self.spec.head_dim <= 256 => {
                ExtendTiling::on_matrix_unit(&self.spec, 2, 16)
            }
            _ => ExtendTiling::new(&self.spec),
        }
    }

    fn run_extend(&self, device: &dyn Device) -> Result<f64, String> {
        let tiling = self.tiling().map_err(|error| error.to_string())?;
        let tiles = tiling.tiles(&self.new_lens);
        let num_tokens: usize = self.new_lens.iter().sum();
        let call = paged_extend::call(&self.spec, tiling, num_tokens, tiles.len() / 2);
        let starts: Vec<usize> =
            (0..self.new_lens.len()).map(|at| self.new_lens[..at].iter().sum()).collect();
        let prefix_lens: Vec<usize> =
            self.seq_lens.iter().zip(&self.new_lens).map(|(len, new)| len - new).collect();
        let [k_pool, v_pool] = &self.pools;
        let inputs = [
            &self.q(),
            k_pool,
            v_pool,
            &self.page_table(),
            &sizes(&starts),
            &sizes(&self.new_lens),
            &sizes(&prefix_lens),
            &ints(&[tiles.len() / 2, 2], &tiles),
            &self.sinks(),
            &chain(),
        ];
        let out = device.run(&call, &inputs)?.outputs.remove(0);
        compare(&out, &self.expected(), epsilon(self.spec.dtype))
    }

    /// `[new tokens, num_heads, head_dim]`; zeros for an empty request.
    fn expected(&self) -> Vec<f64> {
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
