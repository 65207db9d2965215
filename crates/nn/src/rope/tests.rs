//! Each rope kind against its formula.

use serde_json::{Value, json};

use super::*;
use crate::HfConfig;

fn config(fields: Value) -> Result<RopeConfig, LoadError> {
    let Value::Object(fields) = fields else { unreachable!() };
    RopeConfig::from_config(&HfConfig::from_map(fields)?)
}

/// Rotation in f64 with the given angular frequencies.
fn reference(x: &[f32], position: f64, frequencies: &[f64], traditional: bool) -> Vec<f64> {
    let half = frequencies.len();
    let mut out: Vec<f64> = x.iter().map(|&x| x.into()).collect();
    for (i, frequency) in frequencies.iter().enumerate() {
        let (a, b) = if traditional { (2 * i, 2 * i + 1) } else { (i, i + half) };
        let (sin, cos) = (position * frequency).sin_cos();
        let (xa, xb) = (f64::from(x[a]), f64::from(x[b]));
        (out[a], out[b]) = (xa * cos - xb * sin, xa * sin + xb * cos);
    }
    out
}

fn plain_frequencies(dims: usize, base: f64) -> Vec<f64> {
    (0..dims / 2).map(|i| base.powf(-2.0 * i as f64 / dims as f64)).collect()
}

fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

/// Largest deviation from the reference for one token at each position, for
/// the shared tables and for the fused kernel.
fn deviation(
    rope: &mut Rope,
    positions: &[i32],
    frequencies: impl Fn(i32) -> Vec<f64>,
) -> (f64, f64) {
    let (heads, dims, tokens) = (3, rope.head_dim, positions.len());
    let data = ramp(tokens * heads * dims);
    let x = Array::from_slice(&data, &[tokens, heads * dims]).unwrap();
    let at = Array::from_slice(positions, &[tokens]).unwrap();
    let mut deviations = [0.0, 0.0];
    for (fused, deviation) in [false, true].into_iter().zip(&mut deviations) {
        if fused && rope.frequencies.differ_by_position() {
            continue;
        }
        rope.fused = fused;
        let (q, _) = rope.apply(&x, &x, &rope.at(&at).unwrap()).unwrap();
        assert_eq!(q.shape(), [tokens, heads, dims]);
        let q: Vec<f32> = q.to_vec().unwrap();
        for (row, (x, q)) in data.chunks(dims).zip(q.chunks(dims)).enumerate() {
            let position = positions[row / heads];
            let expected = reference(x, position.into(), &frequencies(position), rope.traditional);
            for (index, (expected, &q)) in expected.iter().zip(q).enumerate() {
                let factor = if index < rope.dims { f64::from(rope.mscale) } else { 1.0 };
                *deviation = f64::max(*deviation, (expected * factor - f64::from(q)).abs());
            }
        }
    }
    (deviations[0], deviations[1])
}

/// f32 angles are off by one part in 2^24, so by this at position `p`.
fn tolerance(positions: &[i32]) -> f64 {
    1e-5 + f64::from(*positions.iter().max().unwrap()) * 3e-7
}

fn assert_close(rope: &mut Rope, positions: &[i32], frequencies: impl Fn(i32) -> Vec<f64>) {
    let (tables, fused) = deviation(rope, positions, frequencies);
    let tolerance = tolerance(positions);
    assert!(tables < tolerance, "tables: {tables} against {tolerance}");
    assert!(fused < tolerance, "fused: {fused} against {tolerance}");
}

const POSITIONS: &[&[i32]] = &[&[0], &[5, 0, 31, 2, 7], &[16_385, 3, 20_000, 32_767, 40_001]];

#[test]
fn default_and_linear() {
    for positions in POSITIONS {
        for (dims, theta) in [(64, 10_000.0), (128, 500_000.0), (80, 10_000.0), (6, 100.0)] {
            for traditional in [false, true] {
                let fields = json!({"rope_theta": theta, "rope_traditional": traditional});
                let mut rope = Rope::new(dims, &config(fields).unwrap()).unwrap();
                assert_close(&mut rope, positions, |_| plain_frequencies(dims, theta));
            }
        }
        let scaling = json!({"rope_scaling": {"type": "linear", "factor": 4.0}});
        let mut rope = Rope::new(64, &config(scaling).unwrap()).unwrap();
        let slowed = plain_frequencies(64, 10_000.0).iter().map(|f| f / 4.0).collect::<Vec<_>>();
        assert_close(&mut rope, positions, |_| slowed.clone());
    }
}

#[test]
fn dynamic_grows_with_the_position() {
    let fields = json!({
        "max_position_embeddings": 64,
        "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
    });
    let mut rope = Rope::new(64, &config(fields).unwrap()).unwrap();
    let frequencies = |position: i32| {
        let growth = 2.0 * f64::from(position + 1).max(64.0) / 64.0 - 1.0;
        plain_frequencies(64, 10_000.0 * growth.powf(64.0 / 62.0))
    };
    for positions in [[0, 63, 20, 1], [64, 65, 1000, 3]] {
        let (tables, _) = deviation(&mut rope, &positions, frequencies);
        assert!(tables < tolerance(&positions) * 4.0, "{tables}");
    }
}

#[test]
fn llama3_keeps_fast_pairs_and_slows_slow_ones() {
    let fields = json!({"rope_theta": 500_000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }});
    let config = config(fields).unwrap();
    let RopeScaling::Llama3(llama3) = &config.scaling else { panic!("{config:?}") };
    let inverse = llama3.inverse_frequencies(64, config.theta);
    let plain = plain_frequencies(64, 500_000.0);
    assert!((inverse[0] * plain[0] - 1.0).abs() < 1e-12);
    assert!((inverse[31] * plain[31] - 32.0).abs() < 1e-9);
    let between = inverse
        .iter()
        .zip(&plain)
        .filter(|(inverse, plain)| (1.001..31.999).contains(&(*inverse * **plain)));
    assert!((2..8).contains(&between.count()));
    let mut rope = Rope::new(64, &config).unwrap();
    for positions in POSITIONS {
        assert_close(&mut rope, positions, |_| inverse.iter().map(|f| 1.0 / f).collect());
    }
}

#[test]
fn yarn_scales_q_and_k_too() {
    let fields = json!({"rope_theta": 10_000.0, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096,
    }});
    let config = config(fields).unwrap();
    let RopeScaling::Yarn(yarn) = &config.scaling else { panic!("{config:?}") };
    let inverse = yarn.inverse_frequencies(64, config.theta);
    let plain = plain_frequencies(64, 10_000.0);
    assert!((inverse[0] * plain[0] - 1.0).abs() < 1e-12);
    assert!((inverse[31] * plain[31] - 4.0).abs() < 1e-9);
    let mut rope = Rope::new(64, &config).unwrap();
    assert!((rope.mscale - (0.1 * 4f32.ln() + 1.0)).abs() < 1e-6);
    for positions in POSITIONS {
        assert_close(&mut rope, positions, |_| inverse.iter().map(|f| 1.0 / f).collect());
    }
}

/// The fields of gpt-oss, by the formulas of its reference implementation in NumPy: the ramp
/// lies between pairs 8.09 and 17.40. mlx-lm has it between 8 and 18.
#[test]
fn yarn_may_leave_its_ramp_between_pairs() {
    let fields = json!({"rope_theta": 150_000, "rope_scaling": {
        "rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096,
        "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
    }});
    let config = config(fields).unwrap();
    let RopeScaling::Yarn(yarn) = &config.scaling else { panic!("{config:?}") };
    let inverse = yarn.inverse_frequencies(64, config.theta);
    let expected = [(8, 19.679_896_7), (9, 31.540_073_9), (16, 2_190.657_67), (17, 7_732.833_61)];
    for (pair, expected) in expected {
        assert!((inverse[pair] / expected - 1.0).abs() < 1e-7, "{pair}: {}", inverse[pair]);
    }
    assert!((config.scaling.mscale() - 1.346_573_6).abs() < 1e-6);
}

/// The fields of DeepSeek-V2-Lite: nothing on what rotates, 1.5896 on all of attention.
#[test]
fn longrope_slows_each_pair_and_part_of_a_head_may_rotate() {
    for traditional in [false, true] {
        let fields = json!({"partial_rotary_factor": 0.75, "max_position_embeddings": 4096,
            "original_max_position_embeddings": 1024, "rope_traditional": traditional,
            "rope_scaling": {"type": "longrope", "long_factor": [1.0, 2.5, 7.0]}});
        let Value::Object(fields) = fields else { unreachable!() };
        let config = RopeConfig::partial_from_config(&HfConfig::from_map(fields).unwrap()).unwrap();
        let mut rope = Rope::new(8, &config).unwrap();
        // sqrt(1 + ln 4 / ln 1024)
        assert!((f64::from(rope.mscale) - 1.2_f64.sqrt()).abs() < 1e-6, "{}", rope.mscale);
        let slowed: Vec<f64> = plain_frequencies(6, 10_000.0)
            .iter()
            .zip([1.0, 2.5, 7.0])
            .map(|(frequency, factor)| frequency / factor)
            .collect();
        assert_close(&mut rope, &[0, 1, 17, 900], |_| slowed.clone());
        let error = Rope::new(16, &config).err().unwrap().to_string();
        assert_eq!(error, "config.json: long_factor: 3 factors for 6 pairs");
    }
}

#[test]
fn proportional_pairs_are_those_of_the_whole_head() {
    let fields = |factor: f64| {
        json!({"rope_theta": 1e6, "rope_parameters": {
            "rope_type": "proportional", "partial_rotary_factor": 0.25, "factor": factor,
        }})
    };
    let config = |fields: Value| {
        let Value::Object(fields) = fields else { unreachable!() };
        RopeConfig::partial_from_config(&HfConfig::from_map(fields).unwrap()).unwrap()
    };
    for factor in [1.0, 8.0] {
        let mut rope = Rope::new(64, &config(fields(factor))).unwrap();
        let turning = plain_frequencies(64, 1e6).into_iter().take(8).map(|f| f / factor);
        let frequencies: Vec<f64> = turning.chain([0.0; 24]).collect();
        for positions in POSITIONS {
            assert_close(&mut rope, positions, |_| frequencies.clone());
        }
    }
    let odd = RopeConfig { partial_rotary_factor: 0.05, ..config(fields(1.0)) };
    assert!(Rope::new(64, &odd).is_err(), "three elements");
}

#[test]
fn a_still_rope_turns_nothing() {
    let mut rope = Rope::still(8).unwrap();
    let x = Array::from_slice(&ramp(48), &[3, 16]).unwrap();
    let at = Array::from_slice(&[0, 5, 100_000], &[3]).unwrap();
    for fused in [false, true] {
        rope.fused = fused;
        let (q, _) = rope.apply(&x, &x, &rope.at(&at).unwrap()).unwrap();
        assert_eq!(q.to_vec::<f32>().unwrap(), ramp(48));
    }
}

#[test]
fn mscale_all_dim_moves_to_the_scale_of_attention() {
    let scaling = |kind: &str, mscale: f64, all: f64, factor: f64| {
        let fields = json!({"rope_scaling": {
            "type": kind, "factor": factor, "original_max_position_embeddings": 4096,
            "mscale": mscale, "mscale_all_dim": all,
        }});
        config(fields).unwrap().scaling
    };
    let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{a} {b}");
    for kind in ["yarn", "deepseek_yarn"] {
        let both = scaling(kind, 0.707, 0.707, 40.0);
        close(both.mscale(), 1.0);
        close(both.attention_mscale(), 1.589_63);
    }
    let rotated_only = scaling("yarn", 1.0, 0.0, 40.0);
    close(rotated_only.mscale(), 1.368_89);
    close(rotated_only.attention_mscale(), 1.0);
    close(scaling("yarn", 1.0, 1.0, 1.0).attention_mscale(), 1.0);
    close(RopeScaling::Default.attention_mscale(), 1.0);
}

#[test]
fn narrow_types_stay_narrow() {
    for fused in [false, true] {
        for traditional in [false, true] {
            let mut rope =
                Rope::new(64, &config(json!({"rope_traditional": traditional})).unwrap()).unwrap();
            rope.fused = fused;
            let x = Array::full(&[2, 64], 1.0, Dtype::Bfloat16).unwrap();
            let at = rope.at(&Array::from_slice(&[0, 9], &[2]).unwrap()).unwrap();
            let (q, _) = rope.apply(&x, &x, &at).unwrap();
            assert_eq!(q.dtype(), Dtype::Bfloat16);
        }
    }
}

#[test]
fn old_and_new_form_of_config_json() {
    let old = config(json!({
        "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2},
    }));
    let new = config(json!({
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2},
    }));
    assert_eq!(old.unwrap(), new.unwrap());
    let plain = config(json!({"rope_scaling": null})).unwrap();
    assert_eq!((plain.theta, plain.scaling), (10_000.0, RopeScaling::Default));
}

#[test]
fn what_changes_the_graph_is_refused_by_name() {
    let error = |fields| config(fields).unwrap_err().to_string();
    assert_eq!(
        error(json!({"rope_scaling": {"rope_type": "mrope", "factor": 2}})),
        "rope type \"mrope\" is not supported"
    );
    assert_eq!(
        error(json!({"partial_rotary_factor": 0.5})),
        "partial_rotary_factor \"0.5\" is not supported"
    );
    assert_eq!(
        error(json!({"rope_scaling": {"type": "linear"}})),
        "config.json: rope_scaling: missing field `factor`"
    );
    assert_eq!(
        error(json!({"rope_scaling": {"type": "dynamic", "factor": 0}})),
        "config.json: rope_scaling: factor must be a positive number"
    );
    assert_eq!(
        error(json!({"rope_scaling": {"factor": 2.0}})),
        "config.json: rope_scaling: factor without a rope_type"
    );
    assert_eq!(
        error(json!({"rope_parameters": {"rope_type": 7}})),
        "config.json: rope_parameters: rope_type 7 is not a name"
    );
    assert_eq!(
        error(json!({"rope_theta": "big"})),
        "config.json: rope_theta: expected a positive number"
    );
    assert_eq!(
        error(json!({"rope_scaling": {"type": "yarn", "factor": 4}})),
        "config.json: rope_scaling: missing field `original_max_position_embeddings`"
    );
}
