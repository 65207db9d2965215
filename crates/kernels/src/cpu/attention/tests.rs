//! Against attention as in the textbook, in f64, and against itself.

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;

const NUM_CASES: u64 = 500;

/// A pool of the rows, which become what it holds.
fn pack_and_unpack(
    dtype: KvDtype,
    plan: &AttentionPlan,
    [num_slots, num_kv_heads, head_dim]: [usize; 3],
    rows: &mut [Vec<f32>],
) -> Vec<u8> {
    let row_len = dtype.row_len(head_dim);
    let mut pool = vec![0xff; num_slots * num_kv_heads * row_len];
    for (seq, rows) in plan.seqs.iter().zip(rows) {
        let slots: Vec<i32> = (0..rows.len() / (num_kv_heads * head_dim))
            .map(|token| {
                let page = seq.pages[token / plan.page_size] as usize;
                i32::try_from(page * plan.page_size + token % plan.page_size).unwrap()
            })
            .collect();
        pack_rows(&mut pool, dtype, rows, &slots, [num_kv_heads, head_dim]);
        for (index, row) in rows.chunks_exact_mut(head_dim).enumerate() {
            let slot = usize::try_from(slots[index / num_kv_heads]).unwrap();
            let at = (slot * num_kv_heads + index % num_kv_heads) * row_len;
            dtype.unpack(&pool[at..at + row_len], row);
        }
    }
    pool
}

/// A batch with its whole sequences.
struct Case {
    params: AttentionParams,
    plan: AttentionPlan,
    /// Of all requests, `[seq_len, num_kv_heads, head_dim]` each.
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    q: Vec<f32>,
    /// `[num_slots, num_kv_heads, head_dim]`, NaN where no token is; or packed.
    pools: [Vec<f32>; 2],
    packed_pools: [Vec<u8>; 2],
}

fn random(rng: &mut SmallRng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
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

impl Case {
    fn random(rng: &mut SmallRng) -> Self {
        let num_kv_heads = rng.random_range(1..4);
        let group = rng.random_range(1..=16);
        let head_dim = [64, 80, 96, 128, 192, 256, 512][rng.random_range(0..7)];
        let num_heads = num_kv_heads * group;
        let params = AttentionParams {
            num_heads,
            num_kv_heads,
            head_dim,
            packed: rng.random_bool(0.3).then(|| KvDtype::PACKED[rng.random_range(0..3)]),
            scale: (head_dim as f32).sqrt().recip(),
            reach: reach(rng),
            soft_cap: rng.random_bool(0.2).then(|| rng.random_range(1.0..30.0)),
            sinks: rng.random_bool(0.2).then(|| random(rng, num_heads)),
        };
        let page_size = 1 << rng.random_range(0..7);
        let mut seqs = Vec::new();
        let (mut start, mut num_pages) = (0, 1_usize);
        for _ in 0..rng.random_range(1..4) {
            let longest = if rng.random_bool(0.02) { 8000 } else { 300 };
            let len = if rng.random_bool(0.5) { 1 } else { rng.random_range(1..40) };
            let prefix_len: usize = rng.random_range(0..longest);
            let pages = (prefix_len + len).div_ceil(page_size);
            let first = num_pages as u32;
            num_pages += pages;
            let mut pages: Vec<u32> = (first..first + pages as u32).collect();
            pages.reverse();
            seqs.push(AttentionSeq { start, len, prefix_len, pages });
            start += len;
        }
        let row = num_kv_heads * head_dim;
        let rows = |rng: &mut SmallRng, seqs: &[AttentionSeq]| -> Vec<Vec<f32>> {
            seqs.iter().map(|seq| random(rng, (seq.prefix_len + seq.len) * row)).collect()
        };
        let (mut k, mut v) = (rows(rng, &seqs), rows(rng, &seqs));
        let q = random(rng, start * num_heads * head_dim);
        let plan = AttentionPlan { seqs, page_size };
        let num_slots = num_pages * page_size;
        let mut packed_pools = [const { Vec::new() }; 2];
        if let Some(dtype) = params.packed {
            let packed = |rows: &mut Vec<Vec<f32>>| {
                let shape = [num_slots, num_kv_heads, head_dim];
                pack_and_unpack(dtype, &plan, shape, rows)
            };
            packed_pools = [packed(&mut k), packed(&mut v)];
        }
        let pools = [const { Vec::new() }; 2];
        let mut case = Self { params, plan, k, v, q, pools, packed_pools };
        case.pools = [case.pool(&case.k, num_slots * row), case.pool(&case.v, num_slots * row)];
        case
    }

    fn pool(&self, rows: &[Vec<f32>], size: usize) -> Vec<f32> {
        let width = self.params.num_kv_heads * self.params.head_dim;
        let mut pool = vec![f32::NAN; size];
        for (seq, rows) in self.plan.seqs.iter().zip(rows) {
            for (token, row) in rows.chunks_exact(width).enumerate() {
                let page = seq.pages[token / self.plan.page_size] as usize;
                let slot = page * self.plan.page_size + token % self.plan.page_size;
                pool[slot * width..][..width].copy_from_slice(row);
            }
        }
        pool
    }

    fn run(&self, plan: &AttentionPlan, q: &[f32]) -> Vec<f32> {
        let mut out = vec![f32::NAN; q.len()];
        let pools = [0, 1].map(|index| match self.params.packed {
            Some(dtype) => Pool::Packed(dtype, &self.packed_pools[index]),
            None => Pool::F32(&self.pools[index]),
        });
        attend(&self.params, plan, pools, q, &mut out);
        out
    }

    /// Query head `head` at `position` of request `seq`.
    fn expected(&self, seq: usize, position: usize, head: usize, q: &[f32]) -> Vec<f64> {
        let AttentionParams { num_kv_heads, head_dim, .. } = self.params;
        let kv_head = head / self.params.group();
        let row = |rows: &[f32], key: usize| -> Vec<f64> {
            let at = (key * num_kv_heads + kv_head) * head_dim;
            rows[at..at + head_dim].iter().map(|value| f64::from(*value)).collect()
        };
        let Reach { window, chunk } = self.params.reach;
        let is_seen = |key: &usize| {
            window.is_none_or(|window| position - key < window)
                && chunk.is_none_or(|chunk| position / chunk == key / chunk)
        };
        let keys: Vec<usize> = (0..=position).filter(is_seen).collect();
        let scores: Vec<f64> = keys
            .iter()
            .map(|&key| {
                let k = row(&self.k[seq], key);
                let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * k).sum();
                let score = dot * f64::from(self.params.scale);
                self.params
                    .soft_cap
                    .map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            })
            .collect();
        let sink = self.params.sinks.as_ref().map_or(0.0, |sinks| f64::from(sinks[head]).exp());
        let total: f64 = scores.iter().map(|score| score.exp()).sum::<f64>() + sink;
        let mut out = vec![0.0; head_dim];
        for (score, key) in scores.iter().zip(keys) {
            for (out, v) in out.iter_mut().zip(row(&self.v[seq], key)) {
                *out += score.exp() / total * v;
            }
        }
        out
    }
}

#[test]
fn agrees_with_the_textbook() {
    for seed in 0..NUM_CASES {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let case = Case::random(rng);
        let out = case.run(&case.plan, &case.q);
        let AttentionParams { num_heads, head_dim, .. } = case.params;
        // Some rows of each request: all would take minutes.
        for (index, seq) in case.plan.seqs.iter().enumerate() {
            for token in [0, seq.len / 2, seq.len - 1] {
                let head = rng.random_range(0..num_heads);
                let at = ((seq.start + token) * num_heads + head) * head_dim;
                let q = &case.q[at..at + head_dim];
                let expected = case.expected(index, seq.prefix_len + token, head, q);
                for (out, expected) in out[at..at + head_dim].iter().zip(&expected) {
                    let off = (f64::from(*out) - expected).abs();
                    assert!(off < 2e-6, "seed {seed}: {out}, not {expected}; {:?}", case.params);
                }
            }
        }
    }
}

#[test]
fn a_row_is_the_same_in_any_batch_and_any_chunk() {
    for seed in 0..60 {
        let case = Case::random(&mut SmallRng::seed_from_u64(1000 + seed));
        let whole = case.run(&case.plan, &case.q);
        let row = case.params.num_heads * case.params.head_dim;
        for seq in &case.plan.seqs {
            for chunk in [1, 3, 16] {
                for first in (0..seq.len).step_by(chunk) {
                    let len = chunk.min(seq.len - first);
                    let part = AttentionSeq {
                        start: 0,
                        len,
                        prefix_len: seq.prefix_len + first,
                        pages: seq.pages.clone(),
                    };
                    let plan = AttentionPlan { seqs: vec![part], ..case.plan.clone() };
                    let rows = (seq.start + first) * row..(seq.start + first + len) * row;
                    let alone = case.run(&plan, &case.q[rows.clone()]);
                    assert!(alone == whole[rows], "seed {seed}, chunks of {chunk}");
                }
            }
        }
    }
}

#[test]
fn as_a_node_it_writes_and_then_reads() {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
        let params = AttentionParams {
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 64,
            packed: None,
            scale: 1.0,
            reach: Reach::ALL,
            soft_cap: None,
            sinks: None,
        };
        let zeros = || {
            let pool = Array::zeros(&[8, 1, 64], dtype).unwrap();
            pool.eval().unwrap();
            pool
        };
        let (k_pool, v_pool) = (zeros(), zeros());
        let full = |tokens: usize, heads: usize, value| {
            Array::full(&[tokens, heads, 64], value, Dtype::Float32).unwrap()
        };
        let step = |tokens: usize, prefix_len: usize, slots: &[i32], value: f32, writes: bool| {
            let seq = AttentionSeq { start: 0, len: tokens, prefix_len, pages: vec![3, 1] };
            let plan = Arc::new(AttentionPlan { seqs: vec![seq], page_size: 2 });
            let inputs = AttentionInputs {
                q: &full(tokens, 2, 0.0),
                k: &full(tokens, 1, 1.0),
                v: &full(tokens, 1, value),
                slots: &Array::from_slice(slots, &[tokens]).unwrap(),
                k_pool: &k_pool,
                v_pool: &v_pool,
                writes,
            };
            let out = paged_attention(&Arc::new(params.clone()), &plan, inputs);
            out.unwrap().to_vec::<f32>().unwrap()
        };
        // Equal scores: the mean of the values so far.
        assert_eq!(step(2, 0, &[6, 7], 1.0, true), [1.0; 256]);
        let is_mean = |out: Vec<f32>| out.iter().all(|value| (value - 2.0).abs() < 1e-6);
        assert!(is_mean(step(1, 2, &[2], 4.0, true)));
        assert!(is_mean(step(1, 2, &[2], 100.0, false)), "another layer's are there already");
        let pool = v_pool.astype(Dtype::Float32).unwrap().to_vec::<f32>().unwrap();
        let slots: Vec<f32> = pool.iter().step_by(64).copied().collect();
        assert_eq!(slots, [0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 1.0, 1.0], "{dtype}");
    }
}

#[test]
fn a_packed_pool_is_written_and_then_read() {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    for dtype in KvDtype::PACKED {
        let params = AttentionParams {
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 40,
            packed: Some(dtype),
            scale: 1.0,
            ..AttentionParams::default()
        };
        let zeros = || {
            let pool = Array::zeros(&[8, 1, dtype.row_len(40)], Dtype::Uint8).unwrap();
            pool.eval().unwrap();
            pool
        };
        let (k_pool, v_pool) = (zeros(), zeros());
        let step = |prefix_len: usize, slots: &[i32], value: f32, writes: bool| {
            let len = slots.len();
            let seq = AttentionSeq { start: 0, len, prefix_len, pages: vec![3, 1] };
            let plan = Arc::new(AttentionPlan { seqs: vec![seq], page_size: 2 });
            let full =
                |heads, value| Array::full(&[len, heads, 40], value, Dtype::Float32).unwrap();
            let inputs = AttentionInputs {
                q: &full(2, 0.0),
                k: &full(1, 1.0),
                v: &full(1, value),
                slots: &Array::from_slice(slots, &[len]).unwrap(),
                k_pool: &k_pool,
                v_pool: &v_pool,
                writes,
            };
            let out = paged_attention(&Arc::new(params.clone()), &plan, inputs);
            out.unwrap().to_vec::<f32>().unwrap()
        };
        // Equal scores: the mean of the values so far. int8 holds 1 and 4 as nearly that.
        let is = |out: Vec<f32>, mean: f32| out.iter().all(|x| (x - mean).abs() < 0.004 * mean);
        assert!(is(step(0, &[6, 7], 1.0, true), 1.0), "{dtype}");
        assert!(is(step(2, &[2], 4.0, true), 2.0), "{dtype}");
        assert!(is(step(2, &[2], 100.0, false), 2.0), "{dtype}: another layer's are there already");
        let rows = v_pool.to_vec::<u8>().unwrap();
        let is_empty: Vec<bool> =
            rows.chunks(dtype.row_len(40)).map(|row| row.iter().all(|byte| *byte == 0)).collect();
        assert_eq!(is_empty, [true, true, false, true, true, true, false, false], "{dtype}");
    }
}
