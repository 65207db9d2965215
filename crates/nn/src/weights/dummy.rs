//! Random weights in the shape asked for (`--load-format dummy`).
//!
//! Generated on the device, one key per name, so a model's numbers do not
//! depend on the order in which it asks. Packed matrices get scales that keep
//! the dequantized values as small as dense ones: nothing overflows.
//!
//! Upstream: `DummyModelLoader` in `sglang/srt/model_loader/loader.py`.

use mlx::{Array, Dtype, quantized::QuantMode, random};

use super::{LinearWeight, LoadError};
use crate::QuantSpec;

/// Largest absolute value.
const BOUND: f32 = 0.02;

#[derive(Debug, Clone, Copy)]
pub(super) struct DummyTensors {
    seed: u64,
}

impl DummyTensors {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub(super) fn float(
        self,
        name: &str,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<Array, LoadError> {
        self.uniform(name, shape, BOUND, dtype)
    }

    pub(super) fn quantized(
        self,
        path: &str,
        words: &[usize],
        groups: &[usize],
        spec: QuantSpec,
        dtype: Dtype,
    ) -> Result<LinearWeight, LoadError> {
        let weight = self.bits(&format!("{path}.weight"), words)?;
        let name = format!("{path}.scales");
        let scales = match spec.mode {
            QuantMode::Affine => self.uniform(&name, groups, BOUND / levels(spec), dtype)?,
            // Exponent 2^-10 (e8m0), or 2^-6 (e4m3).
            QuantMode::Mxfp4 | QuantMode::Mxfp8 => Array::full(groups, 117.0, Dtype::Uint8)?,
            QuantMode::Nvfp4 => Array::full(groups, 8.0, Dtype::Uint8)?,
        };
        let biases = spec
            .has_biases()
            .then(|| self.uniform(&format!("{path}.biases"), groups, BOUND, dtype))
            .transpose()?;
        scales.eval()?;
        Ok(LinearWeight::Quantized { weight, scales, biases, spec })
    }

    fn uniform(
        self,
        name: &str,
        shape: &[usize],
        bound: f32,
        dtype: Dtype,
    ) -> Result<Array, LoadError> {
        let key = self.key(name)?;
        let array = random::uniform(shape, -bound, bound, dtype, Some(&key))?;
        array.eval()?;
        Ok(array)
    }

    fn bits(self, name: &str, shape: &[usize]) -> Result<Array, LoadError> {
        let array = random::bits(shape, Some(&self.key(name)?))?;
        array.eval()?;
        Ok(array)
    }

    /// FNV-1a over the name, so that the numbers are the same everywhere.
    fn key(self, name: &str) -> Result<Array, LoadError> {
        let offset = 0xcbf2_9ce4_8422_2325 ^ self.seed;
        let hash = name
            .bytes()
            .fold(offset, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Ok(random::key(hash)?)
    }
}

fn levels(spec: QuantSpec) -> f32 {
    (0..spec.bits).fold(1.0, |levels, _| levels * 2.0)
}
