//! All quantization methods, by MLX's mode.
//!
//! Upstream: `sglang/srt/layers/quantization/__init__.py`.

use mlx::{Array, Result, quantized::QuantMode};

use super::{Packed, mlx_quant, mode_name};

/// A way of packing matrices.
pub struct QuantMethod {
    /// As in config.json's `mode`.
    pub name: &'static str,
    /// The mode it stands for.
    pub mode: QuantMode,
    /// `x @ wᵀ`.
    pub matmul: fn(&Packed, &Array) -> Result<Array>,
}

/// Sorted by name.
pub const METHODS: &[QuantMethod] = &[
    QuantMethod { name: "affine", mode: QuantMode::Affine, matmul: mlx_quant::matmul },
    QuantMethod { name: "mxfp4", mode: QuantMode::Mxfp4, matmul: mlx_quant::matmul },
    QuantMethod { name: "mxfp8", mode: QuantMode::Mxfp8, matmul: mlx_quant::matmul },
    QuantMethod { name: "nvfp4", mode: QuantMode::Nvfp4, matmul: mlx_quant::matmul },
];

/// The method of a mode.
pub fn method(mode: QuantMode) -> &'static QuantMethod {
    let name = mode_name(mode);
    METHODS.iter().find(|method| method.name == name).expect("every mode has its method")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_sorted_and_every_mode_finds_its_own() {
        assert!(METHODS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for entry in METHODS {
            assert_eq!(method(entry.mode).name, entry.name);
            assert_eq!(entry.name.parse::<QuantMode>().unwrap(), entry.mode);
        }
    }
}
