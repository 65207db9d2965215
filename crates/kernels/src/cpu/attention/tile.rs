//! A tile: some query rows of one request and one K/V head over a stretch of
//! keys, with an online softmax.
//!
//! Keys come in blocks of 64 that begin at multiples of 64, whatever the chunk:
//! a row's sums then have the same order in every batch, so that its result is
//! the same to the last bit. K is transposed into scratch first, which makes
//! scores sums of vectors over keys; V is read where it is, unless it has to be
//! widened. What lies in the pool beyond the sequence is kept out: zeros stand
//! for it.

use std::ops::Range;

use super::{AttentionParams, KvRows, Pool};
use crate::cpu::lanes::{LANES, Vector, WithVector};

/// Keys of a block.
pub(super) const BLOCK: usize = 64;
/// Query rows that are computed together.
pub(super) const STRIP: usize = 4;
/// Vectors of a block's scores.
const BLOCK_VECTORS: usize = BLOCK / LANES;

/// Maximum, sum of weights, weighted sum of V: what a softmax has seen so far.
#[derive(Clone, Default)]
pub(super) struct Partial {
    pub(super) m: Vec<f32>,
    pub(super) l: Vec<f32>,
    /// `[rows, width]`.
    pub(super) acc: Vec<f32>,
}

impl Partial {
    pub(super) fn reset(&mut self, rows: usize, width: usize) {
        self.m.clear();
        self.m.resize(rows, f32::NEG_INFINITY);
        self.l.clear();
        self.l.resize(rows, 0.0);
        self.acc.clear();
        self.acc.resize(rows * width, 0.0);
    }
}

/// Query rows and what each may see.
#[derive(Default)]
pub(super) struct Queries {
    /// `[rows, width]`, scaled; a multiple of [`STRIP`] rows, padded with zeros.
    pub(super) q: Vec<f32>,
    /// Keys that each row sees.
    pub(super) visible: Vec<Range<usize>>,
}

/// Scratch of a thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[width, BLOCK]`.
    k: Vec<f32>,
    /// `[BLOCK, width]` each, where the pool's rows have to be widened.
    rows: Vec<f32>,
    v: Vec<f32>,
    /// Where the block's rows of V begin, `width` floats each.
    values: ValueRows,
    /// `[STRIP, BLOCK]`.
    scores: Vec<f32>,
    /// `[width]`, for keys beyond the last.
    zeros: Vec<f32>,
}

struct ValueRows([*const f32; BLOCK]);

impl Default for ValueRows {
    fn default() -> Self {
        Self([std::ptr::null(); BLOCK])
    }
}

/// Rows of `width` floats to `[width, BLOCK]`.
#[inline(always)]
fn transpose_keys<V: Vector>(keys: &[*const f32; BLOCK], k: &mut [f32], width: usize) {
    let k = k[..width * BLOCK].as_mut_ptr();
    for first in (0..BLOCK).step_by(LANES) {
        for at in (0..width).step_by(LANES) {
            let mut rows = [V::splat(0.0); LANES];
            for (row, key) in rows.iter_mut().zip(&keys[first..first + LANES]) {
                // SAFETY: `width` is whole vectors, and keys are rows of that width.
                *row = unsafe { V::load(key.add(at)) };
            }
            for (index, column) in V::transpose(rows).into_iter().enumerate() {
                // SAFETY: inside of `k`.
                unsafe { column.store(k.add((at + index) * BLOCK + first)) };
            }
        }
    }
}

/// The work on one segment of keys, for `with_best`.
pub(super) struct Segment<'a> {
    pub(super) params: &'a AttentionParams,
    pub(super) rows: KvRows<'a>,
    pub(super) queries: &'a Queries,
    /// Multiple of [`BLOCK`] to anything.
    pub(super) keys: Range<usize>,
    pub(super) scratch: &'a mut Scratch,
    pub(super) out: &'a mut Partial,
}

impl WithVector for Segment<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        // No closures on vectors below: they do not take over the features of
        // the function that all this is inlined into.
        let mut first = self.keys.start;
        while first < self.keys.end {
            let count = BLOCK.min(self.keys.end - first);
            self.read_block::<V>(first, count);
            for strip in 0..self.queries.visible.len() / STRIP {
                self.strip::<V>(strip * STRIP, first);
            }
            first += BLOCK;
        }
    }
}

impl Segment<'_> {
    /// K transposed, where rows of V are, zeros beyond `count`.
    #[inline(always)]
    fn read_block<V: Vector>(&mut self, first: usize, count: usize) {
        let (dim, width) = (self.params.head_dim, self.params.width());
        let Scratch { k, v, values, scores, zeros, rows } = &mut *self.scratch;
        k.resize(width * BLOCK, 0.0);
        scores.resize(STRIP * BLOCK, 0.0);
        zeros.resize(width, 0.0);
        values.0 = [zeros.as_ptr(); BLOCK];
        let [k_pool, v_pool] = self.rows.pools;
        // Rows that are f32 and whole vectors are read where they are.
        if let (Pool::F32(k_pool), Pool::F32(v_pool)) = (k_pool, v_pool)
            && dim == width
        {
            let mut keys = [zeros.as_ptr(); BLOCK];
            let rows = keys.iter_mut().zip(&mut values.0).take(count);
            for (index, (key, value)) in rows.enumerate() {
                let at = self.rows.number(first + index) * dim;
                *key = k_pool[at..at + dim].as_ptr();
                *value = v_pool[at..at + dim].as_ptr();
                for line in (0..dim).step_by(LANES) {
                    V::prefetch(value.wrapping_add(line));
                }
            }
            return transpose_keys::<V>(&keys, k, width);
        }
        v.resize(width * BLOCK, 0.0);
        rows.resize(width * BLOCK, 0.0);
        let mut keys = [zeros.as_ptr(); BLOCK];
        for key in 0..count {
            let number = self.rows.number(first + key);
            k_pool.read(number, &mut rows[key * width..][..dim]);
            v_pool.read(number, &mut v[key * width..][..dim]);
            rows[key * width + dim..(key + 1) * width].fill(0.0);
            v[key * width + dim..(key + 1) * width].fill(0.0);
            keys[key] = rows[key * width..][..width].as_ptr();
            values.0[key] = v[key * width..][..width].as_ptr();
        }
        transpose_keys::<V>(&keys, k, width);
    }

    #[inline(always)]
    fn strip<V: Vector>(&mut self, row: usize, first: usize) {
        let seen = |row: usize| {
            let range = &self.queries.visible[row];
            range.start.saturating_sub(first).min(BLOCK)..range.end.saturating_sub(first).min(BLOCK)
        };
        let seen: [Range<usize>; STRIP] = std::array::from_fn(|r| seen(row + r));
        if seen.iter().all(Range::is_empty) {
            return;
        }
        self.scores::<V>(row);
        for (r, seen) in seen.iter().enumerate() {
            self.softmax::<V>(row + r, r, seen);
        }
        self.add_values::<V>(row);
    }

    /// `q · k` for a strip of rows and all keys of the block.
    #[inline(always)]
    fn scores<V: Vector>(&mut self, row: usize) {
        let width = self.params.width();
        let q = self.queries.q[row * width..][..STRIP * width].as_ptr();
        let k = self.scratch.k[..width * BLOCK].as_ptr();
        let mut sums = [[V::splat(0.0); BLOCK_VECTORS]; STRIP];
        for at in 0..self.params.head_dim {
            // SAFETY: inside the slices above.
            unsafe {
                let mut keys = [V::splat(0.0); BLOCK_VECTORS];
                for (n, key) in keys.iter_mut().enumerate() {
                    *key = V::load(k.add(at * BLOCK + n * LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let q = V::splat(*q.add(r * width + at));
                    for (sum, key) in sums.iter_mut().zip(keys) {
                        *sum = q.fma(key, *sum);
                    }
                }
            }
        }
        let scores = self.scratch.scores[..STRIP * BLOCK].as_mut_ptr();
        for (r, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let score = match self.params.soft_cap {
                    None => *sum,
                    Some(cap) => soft_cap(*sum, cap),
                };
                // SAFETY: inside the slice above.
                unsafe { score.store(scores.add(r * BLOCK + n * LANES)) };
            }
        }
    }

    /// Scores of a row to weights; what the row has so far is scaled down.
    #[inline(always)]
    fn softmax<V: Vector>(&mut self, row: usize, r: usize, seen: &Range<usize>) {
        let scores = &mut self.scratch.scores[r * BLOCK..][..BLOCK];
        scores[..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end.max(seen.start)..].fill(f32::NEG_INFINITY);
        if seen.is_empty() {
            return scores.fill(0.0);
        }
        let scores = scores.as_mut_ptr();
        // SAFETY: a block of scores.
        unsafe {
            let mut weights = [V::splat(0.0); BLOCK_VECTORS];
            for (n, weights) in weights.iter_mut().enumerate() {
                *weights = V::load(scores.add(n * LANES));
            }
            let mut highest = weights[0];
            for weights in &weights[1..] {
                highest = highest.max(*weights);
            }
            let m = self.out.m[row].max(highest.greatest());
            let keep = V::splat(self.out.m[row] - m).exp();
            let mut sum = V::splat(0.0);
            for (n, weight) in weights.iter_mut().enumerate() {
                *weight = weight.sub(V::splat(m)).exp();
                sum = sum.add(*weight);
                weight.store(scores.add(n * LANES));
            }
            let keep_one = keep.to_array()[0];
            self.out.m[row] = m;
            self.out.l[row] = self.out.l[row] * keep_one + sum.sum();
            let width = self.params.width();
            let acc = self.out.acc[row * width..][..width].as_mut_ptr();
            for at in (0..width).step_by(LANES) {
                V::load(acc.add(at)).mul(keep).store(acc.add(at));
            }
        }
    }

    /// Weighted values, for a strip of rows.
    #[inline(always)]
    fn add_values<V: Vector>(&mut self, row: usize) {
        let width = self.params.width();
        let mut at = 0;
        while at + 4 * LANES <= width {
            self.add_columns::<V, 4>(row, at);
            at += 4 * LANES;
        }
        while at < width {
            self.add_columns::<V, 1>(row, at);
            at += LANES;
        }
    }

    #[inline(always)]
    fn add_columns<V: Vector, const N: usize>(&mut self, row: usize, column: usize) {
        let width = self.params.width();
        let acc = self.out.acc[row * width..][..STRIP * width].as_mut_ptr();
        let weights = self.scratch.scores[..STRIP * BLOCK].as_ptr();
        let values = &self.scratch.values.0;
        // SAFETY: inside the slices above and the block's rows of V, which
        // `read_block` has seen: `column + N * LANES <= width`.
        unsafe {
            let mut sums = [[V::splat(0.0); N]; STRIP];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(acc.add(r * width + column + n * LANES));
                }
            }
            for key in 0..BLOCK {
                let row = values[key].add(column);
                let mut values = [V::splat(0.0); N];
                for (n, value) in values.iter_mut().enumerate() {
                    *value = V::load(row.add(n * LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let weight = V::splat(*weights.add(r * BLOCK + key));
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = weight.fma(value, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (n, sum) in sums.iter().enumerate() {
                    sum.store(acc.add(r * width + column + n * LANES));
                }
            }
        }
    }
}

/// `cap * tanh(x / cap)`.
#[inline(always)]
fn soft_cap<V: Vector>(x: V, cap: f32) -> V {
    let twice = x.mul(V::splat(2.0 / cap)).exp();
    let one = V::splat(1.0);
    // tanh(y) = 1 - 2 / (e^2y + 1)
    one.sub(V::splat(2.0).div(twice.add(one))).mul(V::splat(cap))
}

/// Adds a later stretch of keys to an earlier one.
pub(super) struct Merge<'a> {
    pub(super) total: &'a mut Partial,
    pub(super) part: &'a Partial,
    pub(super) width: usize,
}

impl WithVector for Merge<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { total, part, width } = self;
        for row in 0..part.m.len() {
            if part.m[row] == f32::NEG_INFINITY {
                continue;
            }
            let m = total.m[row].max(part.m[row]);
            let ours = V::splat(total.m[row] - m).exp();
            let theirs = V::splat(part.m[row] - m).exp();
            total.m[row] = m;
            total.l[row] = total.l[row] * ours.to_array()[0] + part.l[row] * theirs.to_array()[0];
            let (to, from) = (&mut total.acc[row * width..][..width], &part.acc[row * width..]);
            for (to, from) in to.chunks_exact_mut(LANES).zip(from.chunks_exact(LANES)) {
                // SAFETY: sixteen floats each.
                unsafe {
                    let sum = V::load(from.as_ptr()).mul(theirs);
                    V::load(to.as_ptr()).fma(ours, sum).store(to.as_mut_ptr());
                }
            }
        }
    }
}
