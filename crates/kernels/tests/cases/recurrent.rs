//! Recurrent layers: requests begin with a state of the pool or with zeros, go on, and
//! leave states behind.

use kernels::{ConvSpec, ScanSpec, causal_conv, recurrent_scan};
use mlx::Dtype;
use rand::{Rng, rngs::SmallRng, seq::SliceRandom};

use super::{Device, any_dtype, chain, compare, epsilon, floats, ints, random, rng, rounded};

/// A step's requests, and where their states come from and go to.
struct Flow {
    rows: Vec<i32>,
    saves: Vec<i32>,
    num_states: usize,
}

impl Flow {
    fn random(rng: &mut SmallRng) -> Self {
        let num_reqs = rng.random_range(1..5);
        let mut ids: Vec<i32> = (0..32).collect();
        ids.shuffle(rng);
        let mut next = || ids.pop().unwrap();
        let (mut rows, mut saves) = (Vec::new(), Vec::new());
        for _ in 0..num_reqs {
            let (start, len) = (saves.len(), rng.random_range(1..14));
            let to = if rng.random_bool(0.9) { next() } else { -1 };
            let from = match rng.random_range(0..3) {
                0 => -1,
                1 => next(),
                _ => to,
            };
            saves.extend((0..len).map(|_| if rng.random_bool(0.1) { next() } else { -1 }));
            rows.extend([start as i32, len, from, to]);
        }
        Self { rows, saves, num_states: 32 }
    }

    /// Calls `step` for each token with the state to go on with, and puts the states
    /// where they belong.
    fn play(&self, pool: &mut [f32], dtype: Dtype, mut step: impl FnMut(usize, &mut [f64])) {
        let size = pool.len() / self.num_states;
        let before = pool.to_vec();
        for row in self.rows.chunks(4) {
            let mut state = match usize::try_from(row[2]) {
                Ok(from) => before[from * size..][..size].iter().map(|x| f64::from(*x)).collect(),
                Err(_) => vec![0.0; size],
            };
            let mut put = |to: i32, state: &[f64]| {
                let Ok(to) = usize::try_from(to) else { return };
                for (to, value) in pool[to * size..][..size].iter_mut().zip(state) {
                    *to = rounded(dtype, *value as f32);
                }
            };
            for token in row[0]..row[0] + row[1] {
                step(token as usize, &mut state);
                put(self.saves[token as usize], &state);
            }
            put(row[3], &state);
        }
    }
}

fn same_pool(actual: &[f32], expected: &[f32], what: &str) -> Result<f64, String> {
    let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
    compare(actual, &expected, 1e-4).map_err(|error| format!("{what}: the pool's {error}"))
}

/// Convolution over time.
pub(crate) fn conv(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let spec = ConvSpec {
        channels: 8 * shapes.random_range(1..30),
        taps: shapes.random_range(2..5),
        has_bias: shapes.random_bool(0.4),
        silu: shapes.random_bool(0.6),
        dtype: any_dtype(&mut shapes),
    };
    let ConvSpec { channels, taps, dtype, .. } = spec;
    let rng = &mut rng(seed);
    let flow = Flow::random(rng);
    let num_tokens = flow.saves.len();
    let x = random(rng, dtype, num_tokens * channels);
    let (weight, bias) = (random(rng, dtype, channels * taps), random(rng, dtype, channels));
    let mut pool = random(rng, dtype, flow.num_states * (taps - 1) * channels);
    let num_reqs = flow.rows.len() / 4;
    let call = causal_conv::call(&spec, num_reqs, num_tokens).map_err(|error| error.to_string())?;
    let results = device.run(
        &call,
        &[
            &floats(dtype, &[num_tokens, channels], &x),
            &floats(dtype, &[channels, taps], &weight),
            &floats(dtype, &[channels], &bias),
            &floats(dtype, &[flow.num_states, taps - 1, channels], &pool),
            &ints(&[num_reqs, 4], &flow.rows),
            &ints(&[num_tokens], &flow.saves),
            &chain(),
        ],
    )?;
    let mut expected = vec![0.0; num_tokens * channels];
    flow.play(&mut pool, dtype, |token, seen| {
        for channel in 0..channels {
            let now = f64::from(x[token * channels + channel]);
            let tap = |at: usize| f64::from(weight[channel * taps + at]);
            let mut sum = now * tap(taps - 1);
            sum += (0..taps - 1).map(|at| seen[at * channels + channel] * tap(at)).sum::<f64>();
            sum += if spec.has_bias { f64::from(bias[channel]) } else { 0.0 };
            expected[token * channels + channel] =
                if spec.silu { sum / (1.0 + (-sum).exp()) } else { sum };
        }
        seen.rotate_left(channels);
        let last = (taps - 2) * channels;
        for channel in 0..channels {
            seen[last + channel] = f64::from(x[token * channels + channel]);
        }
    });
    let what = format!("{spec:?}");
    same_pool(&results.written[0], &pool, &what)?;
    compare(&results.outputs[0], &expected, epsilon(dtype))
        .map_err(|error| format!("{what}: {error}"))
}

fn dot(state: &[f64], x: &[f32]) -> f64 {
    state.iter().zip(x).map(|(cell, x)| cell * f64::from(*x)).sum()
}

/// Linear attention.
pub(crate) fn scan(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let key_heads = shapes.random_range(1..4);
    let spec = ScanSpec {
        key_heads,
        value_heads: key_heads * shapes.random_range(1..4),
        key_dim: [8, 16, 32, 64, 80, 128][shapes.random_range(0..6)],
        value_dim: [2, 7, 8, 16, 32][shapes.random_range(0..5)],
        delta: shapes.random_bool(0.6),
        column_decay: shapes.random_bool(0.4),
        dtype: any_dtype(&mut shapes),
    };
    let ScanSpec { value_heads, key_dim, value_dim, dtype, .. } = spec;
    let rng = &mut rng(seed);
    let flow = Flow::random(rng);
    let (num_tokens, num_reqs) = (flow.saves.len(), flow.rows.len() / 4);
    let keys = num_tokens * key_heads * key_dim;
    let small = |values: Vec<f32>, factor: f32| -> Vec<f32> {
        values.iter().map(|value| rounded(dtype, value * factor)).collect()
    };
    let scale = (key_dim as f32).sqrt().recip();
    let (q, k) = (small(random(rng, dtype, keys), scale), small(random(rng, dtype, keys), scale));
    let v = random(rng, dtype, num_tokens * value_heads * value_dim);
    let columns = if spec.column_decay { key_dim } else { 1 };
    let shares = |rng: &mut SmallRng, len: usize| -> Vec<f32> {
        (0..len).map(|_| rng.random_range(0.1..1.0)).collect()
    };
    let decay = shares(rng, num_tokens * value_heads * columns);
    let beta = shares(rng, num_tokens * value_heads);
    let mut pool = random(rng, Dtype::Float32, flow.num_states * spec.state_size());
    let call =
        recurrent_scan::call(&spec, num_reqs, num_tokens).map_err(|error| error.to_string())?;
    let results = device.run(
        &call,
        &[
            &floats(dtype, &[num_tokens, key_heads, key_dim], &q),
            &floats(dtype, &[num_tokens, key_heads, key_dim], &k),
            &floats(dtype, &[num_tokens, value_heads, value_dim], &v),
            &floats(Dtype::Float32, &[num_tokens, value_heads, columns], &decay),
            &floats(Dtype::Float32, &[num_tokens, value_heads], &beta),
            &floats(Dtype::Float32, &[flow.num_states, value_heads, value_dim, key_dim], &pool),
            &ints(&[num_reqs, 4], &flow.rows),
            &ints(&[num_tokens], &flow.saves),
            &chain(),
        ],
    )?;
    let mut expected = vec![0.0; v.len()];
    flow.play(&mut pool, Dtype::Float32, |token, state| {
        for (row, state) in state.chunks_mut(key_dim).enumerate() {
            let (head, at) = (row / value_dim, token * value_heads + row / value_dim);
            let first = (token * key_heads + head / (value_heads / key_heads)) * key_dim;
            let (q, k) = (&q[first..first + key_dim], &k[first..first + key_dim]);
            for (column, cell) in state.iter_mut().enumerate() {
                let own = if spec.column_decay { column } else { 0 };
                *cell *= f64::from(decay[at * columns + own]);
            }
            let place = at * value_dim + row % value_dim;
            let mut news = f64::from(v[place]);
            if spec.delta {
                news = (news - dot(state, k)) * f64::from(beta[at]);
            }
            state.iter_mut().zip(k).for_each(|(cell, k)| *cell += news * f64::from(*k));
            expected[place] = dot(state, q);
        }
    });
    let what = format!("{spec:?}");
    same_pool(&results.written[0], &pool, &what)?;
    compare(&results.outputs[0], &expected, epsilon(dtype).max(1e-5))
        .map_err(|error| format!("{what}: {error}"))
}
