//! Against the recurrences as written down, in f64, over random steps.

use mlx::{
    Dtype,
    device::{self, DeviceKind},
};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use super::*;

const NUM_STATES: usize = 24;

fn random(rng: &mut SmallRng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn plan(rng: &mut SmallRng) -> (StatePlan, usize) {
    let mut ids: Vec<usize> = (0..NUM_STATES).collect();
    ids.shuffle(rng);
    let mut next = || ids.pop().unwrap();
    let (mut plan, mut start) = (StatePlan::default(), 0);
    for _ in 0..rng.random_range(1..5) {
        let (len, to) = (rng.random_range(1..20), next());
        let from = match rng.random_range(0..3) {
            0 => None,
            1 => Some(next()),
            _ => Some(to),
        };
        let saved = (start..start + len).filter(|_| rng.random_bool(0.1)).take(2);
        plan.saves.extend(saved.map(|token| (token, next())));
        plan.rows.push(StateRow { start, len, from, to });
        start += len;
    }
    (plan, start)
}

/// States after the plan, by a `step` that takes a token and the state before it.
fn play(plan: &StatePlan, pool: &[f32], mut step: impl FnMut(usize, &mut [f64])) -> Vec<f64> {
    let size = pool.len() / NUM_STATES;
    let mut after: Vec<f64> = pool.iter().map(|x| f64::from(*x)).collect();
    let before = after.clone();
    for row in &plan.rows {
        let mut state = match row.from {
            Some(from) => before[from * size..][..size].to_vec(),
            None => vec![0.0; size],
        };
        for token in row.start..row.start + row.len {
            step(token, &mut state);
            for &(_, id) in plan.saves.iter().filter(|&&(at, _)| at == token) {
                after[id * size..][..size].copy_from_slice(&state);
            }
        }
        after[row.to * size..][..size].copy_from_slice(&state);
    }
    after
}

fn assert_close(actual: &[f32], expected: &[f64], what: &str) {
    assert_eq!(actual.len(), expected.len());
    for (at, (a, e)) in actual.iter().zip(expected).enumerate() {
        let off = (f64::from(*a) - e).abs();
        assert!(off <= 2e-5 * (1.0 + e.abs()), "{what}: element {at} is {a}, not {e}");
    }
}

fn array(values: &[f32], shape: &[usize]) -> Array {
    let array = Array::from_slice(values, shape).unwrap();
    array.eval().unwrap();
    array
}

#[test]
fn convolutions_are_those_of_the_definition() {
    device::set_default(DeviceKind::Cpu).unwrap();
    for seed in 0..200 {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let (plan, num_tokens) = plan(rng);
        let (channels, taps) = (rng.random_range(1..600), rng.random_range(2..5));
        let (has_bias, silu) = (rng.random_bool(0.5), rng.random_bool(0.5));
        let spec = ConvSpec { channels, taps, has_bias, silu, dtype: Dtype::Float32 };
        let x = random(rng, num_tokens * channels);
        let (weight, bias) = (random(rng, channels * taps), random(rng, channels));
        let states = random(rng, NUM_STATES * (taps - 1) * channels);
        let pool = array(&states, &[NUM_STATES, taps - 1, channels]);
        let bias_array = array(&bias, &[channels]);
        let inputs = ConvInputs {
            x: &array(&x, &[num_tokens, channels]),
            weight: &array(&weight, &[channels, taps]),
            bias: has_bias.then_some(&bias_array),
            pool: &pool,
        };
        let out = causal_conv(&spec, &Arc::new(plan.clone()), &inputs).unwrap();
        let out: Vec<f32> = out.to_vec().unwrap();
        let mut expected = vec![0.0; out.len()];
        let after = play(&plan, &states, |token, seen| {
            for channel in 0..channels {
                let now = f64::from(x[token * channels + channel]);
                let mut sum = if has_bias { f64::from(bias[channel]) } else { 0.0 };
                for tap in 0..taps {
                    let at = tap * channels + channel;
                    let input = if tap + 1 < taps { seen[at] } else { now };
                    sum += input * f64::from(weight[channel * taps + tap]);
                }
                expected[token * channels + channel] =
                    if silu { sum / (1.0 + (-sum).exp()) } else { sum };
            }
            seen.rotate_left(channels);
            for channel in 0..channels {
                seen[(taps - 2) * channels + channel] = f64::from(x[token * channels + channel]);
            }
        });
        assert_close(&out, &expected, &format!("seed {seed}"));
        assert_close(&pool.to_vec::<f32>().unwrap(), &after, &format!("states, seed {seed}"));
    }
}

#[test]
fn scans_are_those_of_the_definition() {
    device::set_default(DeviceKind::Cpu).unwrap();
    for seed in 0..200 {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let (plan, num_tokens) = plan(rng);
        let key_heads = rng.random_range(1..4);
        let spec = ScanSpec {
            key_heads,
            value_heads: key_heads * rng.random_range(1..4),
            key_dim: [4, 16, 20, 64, 128][rng.random_range(0..5)],
            value_dim: rng.random_range(1..20),
            delta: rng.random_bool(0.5),
            column_decay: rng.random_bool(0.5),
            dtype: Dtype::Float32,
        };
        let ScanSpec { value_heads, key_dim, value_dim, .. } = spec;
        let columns = if spec.column_decay { key_dim } else { 1 };
        let scale = (key_dim as f32).sqrt().recip();
        let mut keys = || -> Vec<f32> {
            random(rng, num_tokens * key_heads * key_dim).iter().map(|x| x * scale).collect()
        };
        let (q, k) = (keys(), keys());
        let v = random(rng, num_tokens * value_heads * value_dim);
        let mut shares =
            |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(0.1..1.0)).collect() };
        let decay = shares(num_tokens * value_heads * columns);
        let beta = shares(num_tokens * value_heads);
        let states = random(rng, NUM_STATES * spec.state_size());
        let pool = array(&states, &[NUM_STATES, value_heads, value_dim, key_dim]);
        let beta_array = array(&beta, &[num_tokens, value_heads]);
        let inputs = ScanInputs {
            q: &array(&q, &[num_tokens, key_heads, key_dim]),
            k: &array(&k, &[num_tokens, key_heads, key_dim]),
            v: &array(&v, &[num_tokens, value_heads, value_dim]),
            decay: &array(&decay, &[num_tokens, value_heads, columns]),
            beta: spec.delta.then_some(&beta_array),
            pool: &pool,
        };
        let out = recurrent_scan(&spec, &Arc::new(plan.clone()), &inputs).unwrap();
        let out: Vec<f32> = out.to_vec().unwrap();
        let mut expected = vec![0.0; out.len()];
        let after = play(&plan, &states, |token, state| {
            for (row, cells) in state.chunks_mut(key_dim).enumerate() {
                let (head, at) = (row / value_dim, token * value_heads + row / value_dim);
                let first = (token * key_heads + head / (value_heads / key_heads)) * key_dim;
                let share = |column: usize| f64::from(decay[at * columns + column % columns]);
                let of = |x: &[f32], column: usize| f64::from(x[first + column]);
                (0..key_dim).for_each(|column| cells[column] *= share(column));
                let place = at * value_dim + row % value_dim;
                let known: f64 = (0..key_dim).map(|column| cells[column] * of(&k, column)).sum();
                let mut news = f64::from(v[place]);
                if spec.delta {
                    news = (news - known) * f64::from(beta[at]);
                }
                (0..key_dim).for_each(|column| cells[column] += news * of(&k, column));
                expected[place] = (0..key_dim).map(|column| cells[column] * of(&q, column)).sum();
            }
        });
        assert_close(&out, &expected, &format!("seed {seed}: {spec:?}"));
        assert_close(&pool.to_vec::<f32>().unwrap(), &after, &format!("states, seed {seed}"));
    }
}
