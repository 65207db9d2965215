//! Merged layers against the layers one by one.

use mlx::{
    Dtype,
    device::{self, DeviceKind},
    quantized::{QuantMode, quantize},
};

use super::*;
use crate::{LoadOptions, Unpack, WeightStore, held::Held};

/// Layers `a`, `[3, 64]`, and `b`, `[2, 64]`, with biases, packed in so many bits.
fn checkpoint(bits: [Option<usize>; 2]) -> Weights {
    let options = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::WithoutKernel };
    let mut store = WeightStore::new(options);
    let mut insert = |name: String, array: Array| {
        store.insert(name, Held::boxed(array)).unwrap();
    };
    for ((name, rows), bits) in [("a", 3), ("b", 2)].into_iter().zip(bits) {
        let values: Vec<f32> = (0..rows * 64).map(|i| (i * 5 % 31) as f32 / 16.0 - 1.0).collect();
        let dense = Array::from_slice(&values, &[rows, 64]).unwrap();
        insert(format!("{name}.bias"), Array::from_slice(&values[..rows], &[rows]).unwrap());
        let Some(bits) = bits else {
            insert(format!("{name}.weight"), dense);
            continue;
        };
        let packed = quantize(&dense, 32, bits, QuantMode::Affine).unwrap();
        insert(format!("{name}.weight"), packed.weight);
        insert(format!("{name}.scales"), packed.scales);
        insert(format!("{name}.biases"), packed.biases.unwrap());
    }
    Weights::new(store)
}

#[test]
fn merged_or_apart_the_outputs_stand_side_by_side() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let values: Vec<f32> = (0..2 * 64).map(|i| (i * 3 % 17) as f32 / 8.0 - 1.0).collect();
    let x = Array::from_slice(&values, &[2, 64]).unwrap();
    let cases =
        [([None, None], 1), ([Some(4), Some(4)], 1), ([Some(4), Some(8)], 2), ([Some(4), None], 2)];
    for (bits, num_products) in cases {
        let one = |name: &str, rows| {
            let layer = Linear::load(checkpoint(bits).at(name), 64, rows, true).unwrap();
            layer.forward(&x).unwrap()
        };
        let expected = Array::concatenate(&[&one("a", 3), &one("b", 2)], -1).unwrap();
        let weights = checkpoint(bits);
        let parts = [(weights.at("a"), 3), (weights.at("b"), 2)];
        let merged = MergedLinear::load(&parts, 64, true).unwrap();
        weights.finish(&[]).unwrap();
        assert_eq!(merged.parts.len(), num_products, "{bits:?}");
        let out = merged.forward(&x).unwrap();
        assert_eq!(out.shape(), [2, 5]);
        let off = out.to_vec::<f32>().unwrap().into_iter().zip(expected.to_vec::<f32>().unwrap());
        assert!(off.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-5, "{bits:?}");
    }
}
