//! The conformance suite of attention backends, on every entry of the registry.

use std::{cell::RefCell, rc::Rc};

use mlx::{Array, Dtype};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    AttentionShape, BACKENDS, BatchInputs, CacheKind, Extent, ForwardBatch, ForwardMode, KvPool,
    KvPoolConfig, RadixAttention, Sinks, WindowInputs,
    reference::{Sequence, attend},
};

const NUM_CASES: u64 = 240;

/// A random step of a random layer.
struct Case {
    shape: AttentionShape,
    mode: ForwardMode,
    page_size: usize,
    max_buffer_bytes: Option<usize>,
    extents: Vec<Extent>,
    /// As in [`WindowInputs`], and for each the tokens before its first page.
    windows: Option<Vec<(usize, Extent)>>,
    sequences: Vec<Sequence>,
    /// `[num_tokens, num_heads, head_dim]`.
    q: Vec<f32>,
    /// `[num_heads]`.
    sinks: Option<Vec<f32>>,
    num_pages: usize,
}

/// The window pages of each request, and how many tokens come before the first.
fn window_pages(
    rng: &mut SmallRng,
    extents: &[Extent],
    (window, page_size, num_pages): (usize, usize, usize),
) -> Vec<(usize, Extent)> {
    let mut free: Vec<u32> = (0..num_pages as u32).collect();
    free.shuffle(rng);
    let kept = |extent: &Extent| {
        let first = (extent.prefix_len + 1).saturating_sub(window) / page_size;
        let prefix_len = extent.prefix_len - first * page_size;
        let pages = free.split_off(free.len() + first - extent.pages.len());
        (first * page_size, Extent { prefix_len, pages, ..*extent })
    };
    extents.iter().map(kept).collect()
}

fn random_shape(
    rng: &mut SmallRng,
    (num_kv_heads, num_heads, head_dim): (usize, usize, usize),
    latent: bool,
) -> AttentionShape {
    AttentionShape {
        layer_id: 1,
        num_heads,
        num_kv_heads,
        head_dim,
        scale: rng.random_range(0.5..2.0) / (head_dim as f32).sqrt(),
        sliding_window: (!latent && rng.random_bool(0.4)).then(|| rng.random_range(1..40)),
        attention_chunk: (!latent && rng.random_bool(0.3)).then(|| {
            let most = [4, 40][rng.random_range(0..2)];
            rng.random_range(1..=most)
        }),
        soft_cap: rng.random_bool(0.2).then(|| rng.random_range(0.2..5.0)),
        cache: match latent {
            true => CacheKind::Latent { value_dim: head_dim - 16 },
            false => CacheKind::Full,
        },
    }
}

impl Case {
    fn random(rng: &mut SmallRng) -> Self {
        let latent = rng.random_bool(0.2);
        let num_kv_heads = if latent { 1 } else { [1, 1, 2, 3, 4][rng.random_range(0..5)] };
        let group = [1, 2, 3, 4, 7, 16][rng.random_range(0..6)];
        let head_dim = [64, 80, 96, 128, 512][rng.random_range(0..5)];
        let mode = if rng.random_bool(0.5) { ForwardMode::Decode } else { ForwardMode::Extend };
        let shape = random_shape(rng, (num_kv_heads, num_kv_heads * group, head_dim), latent);
        let page_size = [1, 2, 4, 16][rng.random_range(0..4)];
        let num_reqs = rng.random_range(1..6);
        let lens: Vec<(usize, usize)> = (0..num_reqs)
            .map(|_| {
                let longest = if rng.random_bool(0.2) { 150 } else { 30 };
                let prefix = if rng.random_bool(0.3) { 0 } else { rng.random_range(0..longest) };
                let len = if mode == ForwardMode::Decode { 1 } else { rng.random_range(1..20) };
                (prefix, len)
            })
            .collect();
        let needed = |&(prefix, len): &(usize, usize)| usize::div_ceil(prefix + len, page_size);
        let num_pages = lens.iter().map(needed).sum::<usize>() + rng.random_range(0..9);
        let mut free: Vec<u32> = (0..num_pages as u32).collect();
        free.shuffle(rng);
        let mut start = 0;
        let mut extents = Vec::new();
        for &(prefix_len, len) in &lens {
            let pages = free.split_off(free.len() - needed(&(prefix_len, len)));
            extents.push(Extent { start, len, prefix_len, pages });
            start += len;
        }
        let mut numbers = |len: usize| (0..len).map(|_| rng.random_range(-1.0..1.0)).collect();
        let row = num_kv_heads * head_dim;
        let sequence = |extent: &Extent| {
            let k: Vec<f32> = numbers(extent.seq_len() * row);
            let v = if latent { k.clone() } else { numbers(extent.seq_len() * row) };
            Sequence { k, v }
        };
        let sequences = extents.iter().map(sequence).collect();
        let q = numbers(start * shape.num_heads * head_dim);
        let head_bytes = num_pages * page_size * head_dim * 4;
        let max_buffer_bytes = rng.random_bool(0.3).then(|| head_bytes * rng.random_range(1..4));
        let sinks = rng.random_bool(0.3).then(|| {
            // Of a size that matters, whatever the number of keys is.
            (0..shape.num_heads).map(|_| rng.random_range(-2.0..6.0)).collect()
        });
        let windows = shape
            .kept_tokens()
            .filter(|_| rng.random_bool(0.5))
            .map(|window| window_pages(rng, &extents, (window, page_size, num_pages)));
        Self {
            shape,
            mode,
            page_size,
            max_buffer_bytes,
            extents,
            windows,
            sequences,
            q,
            sinks,
            num_pages,
        }
    }

    /// Where the layer's tokens are: for each request the tokens that it does not have, and
    /// the pages of the others.
    fn places(&self) -> Vec<(usize, Extent)> {
        match &self.windows {
            None => self.extents.iter().map(|extent| (0, extent.clone())).collect(),
            Some(windows) => windows.clone(),
        }
    }

    fn num_window_pages(&self) -> Option<usize> {
        self.windows.as_ref().map(|_| self.num_pages)
    }

    fn slots(&self, extent: &Extent, positions: std::ops::Range<usize>) -> Vec<i32> {
        positions
            .map(|position| {
                let page = extent.pages[position / self.page_size] as usize;
                (page * self.page_size + position % self.page_size) as i32
            })
            .collect()
    }

    fn rows(&self, of: &[f32], positions: std::ops::Range<usize>) -> Vec<f32> {
        let row = self.shape.num_kv_heads * self.shape.head_dim;
        of[positions.start * row..positions.end * row].to_vec()
    }

    /// A pool that holds every prefix.
    fn pool(&self, max_buffer_bytes: Option<usize>) -> KvPool {
        let config = KvPoolConfig {
            num_pages: if self.windows.is_some() { 0 } else { self.num_pages },
            num_window_pages: self.num_window_pages(),
            page_size: self.page_size,
            dtype: Dtype::Float32.into(),
            max_buffer_bytes,
        };
        let layers = [AttentionShape { layer_id: 0, ..self.shape.clone() }, self.shape.clone()];
        let mut pool = KvPool::new(&layers, &config).unwrap();
        if self.windows.is_some() {
            let all: Vec<i32> = (0..(self.num_pages * self.page_size) as i32).collect();
            let row = self.shape.num_kv_heads * self.shape.head_dim;
            let nan = self.array(&vec![f32::NAN; all.len() * row], self.shape.num_kv_heads);
            let slots = Array::from_slice(&all, &[all.len()]).unwrap();
            pool.write(1, &slots, &nan, &nan).unwrap();
        }
        for ((skipped, extent), sequence) in self.places().iter().zip(&self.sequences) {
            let prefix = 0..extent.prefix_len;
            if !prefix.is_empty() {
                let slots = self.slots(extent, prefix.clone());
                let slots = Array::from_slice(&slots, &[slots.len()]).unwrap();
                let prefix = *skipped..skipped + extent.prefix_len;
                let k =
                    self.array(&self.rows(&sequence.k, prefix.clone()), self.shape.num_kv_heads);
                let v = self.array(&self.rows(&sequence.v, prefix), self.shape.num_kv_heads);
                pool.write(1, &slots, &k, &v).unwrap();
            }
        }
        pool
    }

    fn array(&self, values: &[f32], heads: usize) -> Array {
        let row = heads * self.shape.head_dim;
        Array::from_slice(values, &[values.len() / row, heads, self.shape.head_dim]).unwrap()
    }

    /// What a backend makes of the step, `[num_tokens, num_heads * head_dim]`.
    fn run(&self, backend: &crate::BackendEntry) -> Vec<f32> {
        let (batch, [q, k, v]) = self.step(backend);
        self.values(&self.layer().forward(&q, &k, &v, &batch).unwrap())
    }

    /// The same by a layer that shares the cache of one with other queries. What it is told
    /// of K and V is wrong where a backend must read the pool.
    fn run_shared(&self, backend: &crate::BackendEntry) -> Vec<f32> {
        let (batch, [q, k, v]) = self.step(backend);
        let layer = self.layer();
        let owner = layer.forward(&q.negative().unwrap(), &k, &v, &batch).unwrap();
        // As hidden states are: after the owner's result, and of the same values.
        let nothing = owner.sum(&[0, 1], false).unwrap().mul_scalar(0.0).unwrap();
        let q = q.add(&nothing).unwrap();
        let has_own = |extent: &Extent| extent.prefix_len == 0;
        if self.mode == ForwardMode::Extend && self.extents.iter().any(has_own) {
            return self.values(&layer.forward_shared(&q, (&k, &v), &batch).unwrap());
        }
        let wrong = |x: &Array| x.add_scalar(1.0).unwrap();
        self.values(&layer.forward_shared(&q, (&wrong(&k), &wrong(&v)), &batch).unwrap())
    }

    fn layer(&self) -> RadixAttention {
        let layer = RadixAttention::new(self.shape.clone());
        match &self.sinks {
            None => layer,
            Some(sinks) => {
                let sinks = Array::from_slice(sinks, &[sinks.len()]).unwrap();
                layer.with_sinks(Sinks::new(&sinks).unwrap())
            }
        }
    }

    fn values(&self, out: &Array) -> Vec<f32> {
        let num_tokens = self.q.len() / (self.shape.num_heads * self.shape.head_dim);
        assert_eq!(out.shape(), [num_tokens, self.shape.num_heads * self.shape.value_dim()]);
        out.to_vec().unwrap()
    }

    /// The step with a pool that holds every prefix, and its q, k and v.
    fn step(&self, backend: &crate::BackendEntry) -> (ForwardBatch, [Array; 3]) {
        // Only this backend reads a pool in parts.
        let limit = self.max_buffer_bytes.filter(|_| backend.name == super::ENTRY.name);
        let pool = Rc::new(RefCell::new(self.pool(limit)));
        let (mut k, mut v) = (Vec::new(), Vec::new());
        let (mut positions, mut out_cache_loc) = (Vec::new(), Vec::new());
        for (extent, sequence) in self.extents.iter().zip(&self.sequences) {
            let range = extent.prefix_len..extent.seq_len();
            k.extend(self.rows(&sequence.k, range.clone()));
            v.extend(self.rows(&sequence.v, range.clone()));
            out_cache_loc.extend(self.slots(extent, range.clone()));
            positions.extend(range.map(|position| position as i32));
        }
        let num_tokens = positions.len();
        let windows = self.windows.as_ref().map(|windows| {
            let extents: Vec<Extent> = windows.iter().map(|(_, extent)| extent.clone()).collect();
            let new = |extent: &Extent| self.slots(extent, extent.prefix_len..extent.seq_len());
            WindowInputs { out_cache_loc: extents.iter().flat_map(new).collect(), extents }
        });
        let inputs = BatchInputs {
            windows,
            mode: self.mode,
            input_ids: Array::zeros(&[num_tokens], Dtype::Int32).unwrap(),
            states: None,
            token_types: None,
            sampled_rows: (0..num_tokens as i32).collect(),
            positions,
            out_cache_loc,
            extents: self.extents.clone(),
        };
        let backend = (backend.new)(std::slice::from_ref(&self.shape), Dtype::Float32.into());
        let batch = ForwardBatch::new(inputs, backend, pool).unwrap();
        let q = self.array(&self.q, self.shape.num_heads);
        let k = self.array(&k, self.shape.num_kv_heads);
        let v = self.array(&v, self.shape.num_kv_heads);
        let stop = [v.dim(0) as i32, v.dim(1) as i32, self.shape.value_dim() as i32];
        let v = v.slice(&[0; 3], &stop, &[1; 3]).unwrap();
        (batch, [q, k, v])
    }

    fn expected(&self) -> Vec<f64> {
        let width = self.shape.num_heads * self.shape.head_dim;
        let mut queries = self.q.chunks(width);
        let mut out = Vec::new();
        for (extent, sequence) in self.extents.iter().zip(&self.sequences) {
            for position in extent.prefix_len..extent.seq_len() {
                let layer = (&self.shape, self.sinks.as_deref());
                out.extend(attend(layer, queries.next().unwrap(), sequence, position));
            }
        }
        out
    }
}

#[test]
fn every_backend_agrees_with_the_reference() {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    for seed in 0..NUM_CASES {
        let case = Case::random(&mut SmallRng::seed_from_u64(seed));
        let expected = case.expected();
        for backend in BACKENDS {
            if !(backend.supports)(std::slice::from_ref(&case.shape)) {
                continue;
            }
            for (how, out) in [("own", case.run(backend)), ("shared", case.run_shared(backend))] {
                let off = out
                    .iter()
                    .zip(&expected)
                    .map(|(out, expected)| (f64::from(*out) - expected).abs())
                    .fold(0.0, f64::max);
                assert!(off < 2e-6, "{} {how} seed {seed}: off by {off}", backend.name);
            }
        }
    }
}

#[test]
fn a_neighbours_nan_stays_out() {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    for seed in 0..20 {
        let mut case = Case::random(&mut SmallRng::seed_from_u64(1000 + seed));
        if case.extents.len() < 2 {
            continue;
        }
        case.sequences[0].v.fill(f32::NAN);
        if case.shape.cache != CacheKind::Full {
            case.sequences[0].k.fill(f32::NAN);
        }
        let width = case.shape.num_heads * case.shape.value_dim();
        let own = case.extents[0].len * width;
        let supported =
            |entry: &&crate::BackendEntry| (entry.supports)(std::slice::from_ref(&case.shape));
        for backend in BACKENDS.iter().filter(supported) {
            let out = case.run(backend);
            assert!(out[own..].iter().all(|value| value.is_finite()), "seed {seed}");
        }
    }
}
