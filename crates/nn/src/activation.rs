//! Activation functions, by the names that config.json uses.
//!
//! Upstream: `sglang/srt/layers/activation.py`.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use kernels::{Kernels, silu_and_mul};
use mlx::{Array, Result};
use serde::Deserialize;

use crate::device::on_cpu;

/// An elementwise function. A name that is not here fails while config.json is
/// parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x Φ(x)`, exact.
    Gelu,
    /// `x Φ(x)` by the tanh formula.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    /// `x σ(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    Relu2,
    /// `x σ(x)`.
    #[serde(alias = "swish")]
    Silu,
}

impl Activation {
    /// Keeps shape and element type.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn apply(self, x: &Array) -> Result<Array> {
        match self {
            Self::Gelu => half_of(x, &x.mul_scalar(FRAC_1_SQRT_2)?.erf()?),
            Self::GeluNew => {
                let cubic = x.square()?.multiply(x)?.mul_scalar(0.044_715)?;
                half_of(x, &x.add(&cubic)?.mul_scalar((2.0 / PI).sqrt())?.tanh()?)
            }
            Self::QuickGelu => x.multiply(&x.mul_scalar(1.702)?.sigmoid()?),
            Self::Relu => relu(x),
            Self::Relu2 => relu(x)?.square(),
            Self::Silu => x.multiply(&x.sigmoid()?),
        }
    }
}

impl Activation {
    /// The gated half of an MLP: `[num_tokens, 2 * dims]`, gates then values, to
    /// `f(gate) * value`, `[num_tokens, dims]`.
    ///
    /// Upstream: `SiluAndMul`, `GeluAndMul`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn and_mul(self, gate_up: &Array) -> Result<Array> {
        if self == Self::Silu && on_cpu()? {
            return kernels::cpu::silu_and_mul(gate_up);
        }
        if self == Self::Silu
            && silu_and_mul::supports(gate_up.dim(1) / 2, gate_up.dtype())
            && let Some(kernels) = Kernels::here()
        {
            return Ok(silu_and_mul(&kernels, gate_up)?);
        }
        let [gate, value] = halves(gate_up)?;
        self.apply(&gate)?.multiply(&value)
    }
}

/// gpt-oss's gated half of an expert: `[num_rows, 2 * dims]`, gates `g` then values `v`, to
/// `(v + 1) g σ(1.702 g)` `[num_rows, dims]`, gates kept below `limit` and values between
/// `-limit` and it.
///
/// Upstream: `swiglu_with_alpha_and_limit` in
/// `sglang/srt/layers/moe/fused_moe_triton/fused_moe.py`.
///
/// # Errors
/// Those of MLX.
pub(crate) fn clamped_swiglu(gate_up: &Array, limit: f32) -> Result<Array> {
    let [gate, value] = halves(gate_up)?;
    let bound = |bound: f32| Array::full(&[], bound, gate_up.dtype());
    let gate = Activation::QuickGelu.apply(&gate.minimum(&bound(limit)?)?)?;
    let value = value.minimum(&bound(limit)?)?.maximum(&bound(-limit)?)?;
    value.add_scalar(1.0)?.multiply(&gate)
}

/// Of each row.
fn halves(rows: &Array) -> Result<[Array; 2]> {
    let (num_rows, dims) = (rows.dim(0) as i32, (rows.dim(1) / 2) as i32);
    let half = |start| rows.slice(&[0, start], &[num_rows, start + dims], &[1, 1]);
    Ok([half(0)?, half(dims)?])
}

/// `ln(1 + eˣ)`.
///
/// # Errors
/// Those of MLX.
pub fn softplus(x: &Array) -> Result<Array> {
    x.logaddexp(&Array::zeros(&[], x.dtype())?)
}

/// `x (1 + y) / 2`.
fn half_of(x: &Array, y: &Array) -> Result<Array> {
    x.multiply(&y.add_scalar(1.0)?)?.mul_scalar(0.5)
}

fn relu(x: &Array) -> Result<Array> {
    x.maximum(&Array::zeros(&[], x.dtype())?)
}

#[cfg(test)]
mod tests {
    use mlx::Dtype;

    use super::*;

    fn at(activation: Activation, x: f32) -> f32 {
        activation.apply(&Array::scalar(x).unwrap()).unwrap().item().unwrap()
    }

    #[test]
    fn values_are_those_of_the_formulas() {
        let cases = [
            (Activation::Gelu, 0.841_344_7),
            (Activation::GeluNew, 0.841_192),
            (Activation::QuickGelu, 0.845_795_8),
            (Activation::Relu, 1.0),
            (Activation::Relu2, 1.0),
            (Activation::Silu, 0.731_058_6),
        ];
        for (activation, at_one) in cases {
            assert!((at(activation, 1.0) - at_one).abs() < 1e-6, "{activation:?}");
        }
        assert_eq!(at(Activation::Relu, -2.0), 0.0);
        assert_eq!(at(Activation::Relu2, 3.0), 9.0);
        assert!((at(Activation::Silu, -1.0) + 0.268_941_4).abs() < 1e-6);
        assert!((at(Activation::Gelu, -1.0) + 0.158_655_3).abs() < 1e-6);
    }

    /// Numbers of mlx-lm's `swiglu_oai`.
    #[test]
    fn the_clamped_swiglu_clamps_gates_from_above_and_values_from_both_sides() {
        let rows = [[1.5_f32, -9.0, 8.0, 0.5, 3.0, -2.0], [0.0, 7.5, -1.0, 9.0, -9.0, 0.25]];
        let rows = Array::from_slice(&rows.concat(), &[2, 6]).unwrap();
        let out = clamped_swiglu(&rows, 7.0).unwrap();
        assert_eq!(out.shape(), [2, 3]);
        let expected = [2.087_493, -8.012_72e-6, -6.999_953, 0.0, -41.999_72, -0.192_755_3];
        for (out, expected) in out.to_vec::<f32>().unwrap().iter().zip(expected) {
            assert!((out - expected).abs() <= 1e-5 * expected.abs(), "{out} {expected}");
        }
    }

    #[test]
    fn softplus_is_a_soft_relu() {
        let at = |x: f32| softplus(&Array::scalar(x).unwrap()).unwrap().item::<f32>().unwrap();
        assert!((at(0.0) - 2.0_f32.ln()).abs() < 1e-6 && (at(30.0) - 30.0).abs() < 1e-5);
        assert!((at(-10.0) - 4.539_89e-5).abs() < 1e-9);
    }

    #[test]
    fn narrow_types_stay_narrow() {
        let x = Array::full(&[2], 1.0, Dtype::Bfloat16).unwrap();
        for activation in [
            Activation::Gelu,
            Activation::GeluNew,
            Activation::QuickGelu,
            Activation::Relu,
            Activation::Relu2,
            Activation::Silu,
        ] {
            assert_eq!(activation.apply(&x).unwrap().dtype(), Dtype::Bfloat16, "{activation:?}");
        }
    }

    #[test]
    fn names_of_config_json() {
        let parse = |name: &str| serde_json::from_value::<Activation>(name.into());
        assert_eq!(parse("silu").unwrap(), Activation::Silu);
        assert_eq!(parse("swish").unwrap(), Activation::Silu);
        assert_eq!(parse("gelu_pytorch_tanh").unwrap(), Activation::GeluNew);
        assert_eq!(parse("relu2").unwrap(), Activation::Relu2);
        assert!(parse("xielu").unwrap_err().to_string().starts_with("unknown variant `xielu`"));
    }
}
