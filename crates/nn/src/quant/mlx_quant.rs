//! MLX's own packings: affine integers and the three small float formats.
//!
//! On the CPU device affine products are ours: MLX's are scalar loops on one
//! core. On CUDA ours take few rows, where they know the packing; more rows are
//! multiplied with the unpacked matrix. µs of two products in a row, `[rows, 4096]`
//! with `[28672, 4096]` and back, H100, 4 bits in groups of 64:
//!
//! | rows | 1 | 2 | 4 | 8 | 16 | 32 | 64 |
//! |---|---|---|---|---|---|---|---|
//! | MLX | 146 | 272 | 520 | 481 | 485 | 727 | 782 |
//! | ours | 109 | 104 | 106 | 118 | 132 | 186 | 320 |
//!
//! MLX's packed product is left to packings that ours does not know. Below 8 rows
//! it reads the matrix again for each, so they are padded; at 2048 rows with
//! `[4096, 4096]` it takes 663, unpacking and a dense product 224. Nor is it used
//! in between where ours knows the packing: each of its variants takes the driver
//! close to a minute to compile.

use kernels::{Kernels, QmvSpec, QmvWeights, qmm_few, qmv_batch};
use mlx::{
    Array, Result,
    quantized::{QuantMode, quantized_matmul},
};

use super::{Packed, count};
use crate::{
    QuantSpec,
    device::{on_cpu, on_cuda},
};

/// Rows that a product is padded to on CUDA.
const CUDA_PADDED_ROWS: usize = 8;
/// Rows from which CUDA multiplies unpacked.
const CUDA_UNPACKED_ROWS: usize = 256;

pub(super) fn matmul(packed: &Packed, x: &Array) -> Result<Array> {
    let QuantSpec { group_size, bits, .. } = packed.spec;
    if on_cpu()? {
        return match &packed.biases {
            Some(biases) if packed.spec.has_cpu_kernel() => {
                let (weight, scales) = (&packed.weight, &packed.scales);
                kernels::cpu::quantized_matmul(x, weight, scales, biases, group_size, bits)
            }
            _ => product(packed, x),
        };
    }
    if !on_cuda() {
        return product(packed, x);
    }
    if let Some(spec) = few_rows(packed, x) {
        return cuda_product(packed, x, &spec);
    }
    let rows = x.dim(0);
    if rows < 2 {
        product(packed, x)
    } else if rows < CUDA_PADDED_ROWS {
        padded_product(packed, x)
    } else if rows < CUDA_UNPACKED_ROWS {
        product(packed, x)
    } else {
        unpacked_product(packed, x)
    }
}

/// The product as our kernels describe it, if they know such weights.
fn few_rows(packed: &Packed, x: &Array) -> Option<QmvSpec> {
    let QuantSpec { group_size, bits, mode } = packed.spec;
    if (mode, x.ndim()) != (QuantMode::Affine, 2) {
        return None;
    }
    let spec = QmvSpec {
        rows: x.dim(0),
        inputs: x.dim(1),
        outputs: packed.weight.dim(0),
        bits,
        group_size,
        dtype: x.dtype(),
        scale_dtype: packed.scales.dtype(),
    };
    qmv_batch::supports(&QmvSpec { rows: 1, ..spec }).then_some(spec)
}

fn cuda_product(packed: &Packed, x: &Array, spec: &QmvSpec) -> Result<Array> {
    let (Some(biases), Some(kernels)) = (&packed.biases, Kernels::here()) else {
        return product(packed, x);
    };
    let weights = QmvWeights { w: &packed.weight, scales: &packed.scales, biases };
    if qmm_few::supports(spec) {
        Ok(qmm_few(&kernels, spec, x, &weights)?)
    } else if qmv_batch::supports(spec) {
        Ok(qmv_batch(&kernels, spec, x, &weights)?)
    } else {
        unpacked_product(packed, x)
    }
}

fn product(packed: &Packed, x: &Array) -> Result<Array> {
    let Packed { weight, scales, biases, spec } = packed;
    let QuantSpec { group_size, bits, mode } = *spec;
    quantized_matmul(x, weight, scales, biases.as_ref(), true, group_size, bits, mode)
}

fn padded_product(packed: &Packed, x: &Array) -> Result<Array> {
    let (rows, dims) = (x.dim(0), x.dim(1));
    let padding = Array::zeros(&[CUDA_PADDED_ROWS - rows, dims], x.dtype())?;
    let y = product(packed, &Array::concatenate(&[x, &padding], 0)?)?;
    y.slice(&[0, 0], &[rows as i32, y.dim(1) as i32], &[1, 1])
}

fn unpacked_product(packed: &Packed, x: &Array) -> Result<Array> {
    let weight = packed.dequantize(x.dtype())?;
    let y = x.matmul(&weight.transpose(&[1, 0])?)?;
    count(&y, weight.nbytes())?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use mlx::{
        Dtype,
        device::{self, DeviceKind},
        quantized::{QuantMode, quantize},
    };

    use super::*;

    /// The ways are device policy; the products must be one.
    #[test]
    fn all_ways_agree() {
        device::set_default(DeviceKind::Cpu).unwrap();
        let values: Vec<f32> = (0..64 * 96).map(|i| (i * 7 % 61) as f32 / 64.0 - 0.5).collect();
        let dense = Array::from_slice(&values, &[64, 96]).unwrap();
        let parts = quantize(&dense, 32, 4, QuantMode::Affine).unwrap();
        let spec = QuantSpec { group_size: 32, bits: 4, mode: QuantMode::Affine };
        let (weight, scales, biases) = (parts.weight, parts.scales, parts.biases);
        let packed = Packed { weight, scales, biases, spec };
        for rows in [2, 5, 7] {
            let x = Array::from_slice(&values[..rows * 96], &[rows, 96]).unwrap();
            let expected = product(&packed, &x).unwrap().to_vec::<f32>().unwrap();
            for way in [matmul, padded_product, unpacked_product] {
                let y = way(&packed, &x).unwrap();
                assert_eq!((y.shape(), y.dtype()), (vec![rows, 64], Dtype::Float32));
                let y = y.to_vec::<f32>().unwrap();
                let off = y.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                assert!(off.fold(0.0, f32::max) < 1e-5);
            }
        }
    }
}
