//! Fused layers and packed matrices against plain Rust; keys of random numbers.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod util;

use mlx::{
    Array, Dtype,
    fast::{self, RopeOffset, SdpaMask},
    quantized::{QuantMode, dequantize, gather_qmm, quantize, quantized_matmul},
    random,
};
use util::{array, assert_close, floats, noise, vector};

#[test]
fn norms() {
    let (x, weight, bias) = (noise(3 * 8, 1), noise(8, 2), noise(8, 3));
    let mut rms = Vec::new();
    let mut layer = Vec::new();
    for row in x.chunks(8) {
        let scale = (row.iter().map(|x| x * x).sum::<f32>() / 8.0 + 1e-5).sqrt();
        rms.extend(row.iter().zip(&weight).map(|(x, w)| x / scale * w));
        let mean = row.iter().sum::<f32>() / 8.0;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 8.0;
        let scaled = row.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt());
        layer.extend(scaled.zip(weight.iter().zip(&bias)).map(|(x, (w, b))| x * w + b));
    }
    let (x, weight, bias) = (array(&x, &[3, 8]), vector(&weight), vector(&bias));
    let found = fast::rms_norm(&x, Some(&weight), 1e-5).unwrap();
    assert_close("rms_norm", &floats(&found), &rms, 1e-5);
    let found = fast::layer_norm(&x, Some(&weight), Some(&bias), 1e-5).unwrap();
    assert_close("layer_norm", &floats(&found), &layer, 1e-5);
    let bare = fast::rms_norm(&x, None, 1e-5).unwrap().multiply(&weight).unwrap();
    assert_close("rms_norm without weight", &floats(&bare), &rms, 1e-5);
}

/// Rotates the first `dims` of one head at `position`.
fn plain_rope(head: &mut [f32], dims: usize, traditional: bool, position: f32, freqs: &[f32]) {
    for (i, freq) in freqs.iter().enumerate() {
        let (a, b) = if traditional { (2 * i, 2 * i + 1) } else { (i, i + dims / 2) };
        let (sin, cos) = (position * freq).sin_cos();
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
    }
}

#[test]
fn rope_takes_one_offset_per_token() {
    const DIMS: usize = 6;
    let positions = [7_i32, 0, 3, 100, 4096];
    let x = noise(5 * 2 * 8, 4);
    let freqs: Vec<f32> =
        (0..DIMS / 2).map(|i| 10_000_f32.powf(-2.0 * i as f32 / DIMS as f32)).collect();
    for (traditional, scale) in [(false, 1.0), (true, 1.0), (false, 0.25)] {
        let mut expected = x.clone();
        for (token, position) in expected.chunks_mut(2 * 8).zip(positions) {
            for head in token.chunks_mut(8) {
                plain_rope(head, DIMS, traditional, position as f32 * scale, &freqs);
            }
        }
        let x = array(&x, &[5, 2, 1, 8]);
        let offsets = vector(&positions);
        let offset = RopeOffset::PerBatch(&offsets);
        let found = fast::rope(&x, DIMS, traditional, Some(10_000.0), scale, offset, None);
        assert_close("base", &floats(&found.unwrap()), &expected, 2e-4);
        // MLX takes wave lengths: the inverse of what angles are made of.
        let lengths = vector(&freqs.iter().map(|freq| 1.0 / freq).collect::<Vec<_>>());
        let found = fast::rope(&x, DIMS, traditional, None, scale, offset, Some(&lengths));
        assert_close("freqs", &floats(&found.unwrap()), &expected, 2e-3);
    }
    // A scalar offset counts on along the sequence axis.
    let row = array(&x[..24], &[1, 1, 3, 8]);
    let found = fast::rope(&row, DIMS, false, Some(10_000.0), 1.0, RopeOffset::Scalar(5), None);
    let mut expected = x[..24].to_vec();
    for (place, head) in expected.chunks_mut(8).enumerate() {
        plain_rope(head, DIMS, false, 5.0 + place as f32, &freqs);
    }
    assert_close("scalar", &floats(&found.unwrap()), &expected, 1e-5);
    assert!(fast::rope(&row, DIMS, false, None, 1.0, RopeOffset::Scalar(0), None).is_err());
}

#[test]
fn attention() {
    const HEADS: usize = 4;
    let [queries, keys, dim] = [3, 5, 8];
    let (q, k, v) =
        (noise(HEADS * queries * dim, 5), noise(2 * keys * dim, 6), noise(2 * keys * dim, 7));
    let sinks = noise(HEADS, 8);
    let plain = |seen: &dyn Fn(usize, usize) -> bool, sinks: Option<&[f32]>| {
        let mut out = Vec::new();
        for (row, query) in q.chunks(dim).enumerate() {
            let (head, at) = (row / queries, row % queries);
            // Two query heads share a K/V head.
            let part = |x: &[f32], key| x[(head / 2 * keys + key) * dim..][..dim].to_vec();
            let dot = |key| query.iter().zip(part(&k, key)).map(|(q, k)| q * k).sum::<f32>() * 0.3;
            let scores: Vec<f32> =
                (0..keys).map(|key| if seen(at, key) { dot(key).exp() } else { 0.0 }).collect();
            let total = scores.iter().sum::<f32>() + sinks.map_or(0.0, |sinks| sinks[head].exp());
            out.extend(
                (0..dim).map(|i| {
                    (0..keys).map(|key| scores[key] / total * part(&v, key)[i]).sum::<f32>()
                }),
            );
        }
        out
    };
    let shaped = |x: &[f32], heads| array(x, &[1, heads, x.len() / heads / dim, dim]);
    let (qa, ka, va) = (shaped(&q, HEADS), shaped(&k, 2), shaped(&v, 2));
    let run = |mask: SdpaMask<'_>, sinks: Option<&Array>| {
        floats(&fast::scaled_dot_product_attention(&qa, &ka, &va, 0.3, mask, sinks).unwrap())
    };
    assert_close("all", &run(SdpaMask::None, None), &plain(&|_, _| true, None), 1e-5);
    let causal = plain(&|at, key| key <= at + 2, None);
    assert_close("causal", &run(SdpaMask::Causal, None), &causal, 1e-5);
    let seen: Vec<bool> = (0..queries * keys).map(|at| at % keys <= at / keys + 2).collect();
    let mask = array(&seen, &[queries, keys]);
    assert_close("mask", &run(SdpaMask::Array(&mask), None), &causal, 1e-5);
    let with_sinks = plain(&|_, _| true, Some(&sinks));
    let found = run(SdpaMask::None, Some(&vector(&sinks)));
    assert_close("sinks", &found, &with_sinks, 1e-5);
}

#[test]
fn packed_matrices() {
    let affine = [2, 3, 4, 5, 6, 8]
        .into_iter()
        .flat_map(|bits| [32, 64, 128].map(|group_size| (QuantMode::Affine, group_size, bits)));
    let floats4 = [(QuantMode::Mxfp4, 32, 4), (QuantMode::Mxfp8, 32, 8), (QuantMode::Nvfp4, 16, 4)];
    for (mode, group_size, bits) in affine.chain(floats4) {
        let what = format!("{mode} g{group_size} b{bits}");
        let (rows, dims) = (16, 256);
        let source = noise(rows * dims, bits as u64);
        let packed = quantize(&array(&source, &[rows, dims]), group_size, bits, mode).unwrap();
        assert_eq!(packed.weight.shape(), [rows, dims * bits / 32], "{what}");
        assert_eq!(packed.scales.shape(), [rows, dims / group_size], "{what}");
        assert_eq!(packed.biases.is_some(), mode == QuantMode::Affine, "{what}");
        let parts = (&packed.weight, &packed.scales, packed.biases.as_ref());
        let dtype = Some(Dtype::Float32);
        let dense = dequantize(parts.0, parts.1, parts.2, group_size, bits, mode, dtype).unwrap();
        assert_eq!(dense.dtype(), Dtype::Float32, "{what}");
        // Values are in -1..1: a step of the affine grid, and rounding to floats.
        let worst = match mode {
            QuantMode::Affine => 2.0 / ((1 << bits) - 1) as f32,
            QuantMode::Mxfp8 => 0.1,
            _ => 0.3,
        };
        assert_close(&what, &floats(&dense), &source, worst);

        for tokens in [1, 3, 32] {
            let x = array(&noise(tokens * dims, 9), &[tokens, dims]);
            let product =
                quantized_matmul(&x, parts.0, parts.1, parts.2, true, group_size, bits, mode);
            let expected = x.matmul(&dense.transpose(&[1, 0]).unwrap()).unwrap();
            assert_close(&what, &floats(&product.unwrap()), &floats(&expected), 1e-3);
        }
    }
}

#[test]
fn packed_experts() {
    let mode = QuantMode::Affine;
    let w = quantize(&array(&noise(3 * 8 * 64, 1), &[3, 8, 64]), 32, 4, mode).unwrap();
    let biases = w.biases.as_ref();
    let dense = dequantize(&w.weight, &w.scales, biases, 32, 4, mode, None).unwrap();
    let x = array(&noise(2 * 64, 2), &[2, 1, 64]);
    let experts = vector(&[2_u32, 0]);
    let found = gather_qmm(
        &x,
        &w.weight,
        &w.scales,
        biases,
        None,
        Some(&experts),
        true,
        32,
        4,
        mode,
        false,
    );
    let chosen = dense.take(&experts, 0).unwrap().swapaxes(1, 2).unwrap();
    let expected = x.matmul(&chosen).unwrap();
    assert_close("experts", &floats(&found.unwrap()), &floats(&expected), 1e-4);
}

#[test]
fn names_of_modes() {
    for name in ["affine", "mxfp4", "mxfp8", "nvfp4"] {
        assert_eq!(name.parse::<QuantMode>().unwrap().to_string(), name);
    }
    let error = "int4".parse::<QuantMode>().unwrap_err().to_string();
    assert_eq!(error, "QuantMode: unknown mode `int4` (known: affine, mxfp4, mxfp8, nvfp4)");
}

#[test]
fn numbers_follow_from_the_key() {
    let draw = |seed| {
        let root = random::key(seed).unwrap();
        let key = Some(&root);
        let logits = Array::zeros(&[4, 100], Dtype::Float32).unwrap();
        let sample = random::categorical(&logits, -1, key).unwrap();
        assert_eq!((sample.shape(), sample.dtype()), (vec![4], Dtype::Uint32));
        [
            floats(&random::uniform(&[64], -2.0, 3.0, Dtype::Float32, key).unwrap()),
            floats(&random::normal(&[64], Dtype::Float32, key).unwrap()),
            floats(&random::gumbel(&[64], Dtype::Float32, key).unwrap()),
            floats(&random::bits(&[64], key).unwrap()),
            floats(&sample),
            floats(&random::split(&root, 3).unwrap()),
        ]
    };
    let (first, again, other) = (draw(7), draw(7), draw(8));
    assert_eq!(first, again);
    for (first, other) in first.iter().zip(&other) {
        assert_ne!(first, other);
    }
    assert!(first[0].iter().all(|x| (-2.0..3.0).contains(x)));
    // The same on every device and in every MLX of this version.
    let bits = random::bits(&[2], Some(&random::key(0).unwrap())).unwrap();
    assert_eq!(bits.to_vec::<u32>().unwrap(), [928_981_903, 3_453_687_069]);
}
