//! The matrices of all experts, one stack.

use kernels::{
    GatherSpec, Kernels, QmvSpec, QmvWeights,
    cpu::moe::{QuantizedStack, gather_matmul, gather_quantized_matmul},
    gather_qmm_few, qmm_few,
};
use mlx::{
    Array, Dtype, Result,
    quantized::{QuantMode, gather_mm, gather_qmm},
};

use crate::{
    LinearWeight, LoadError, QuantSpec, Weights,
    device::on_cuda,
    quant::{Packed, count},
};

/// Rows from which CUDA multiplies unpacked: MLX's packed product by experts is slow
/// there.
const CUDA_UNPACKED_ROWS: usize = 256;

pub(super) enum Experts {
    /// `[num_experts, out_dims, in_dims]`.
    Dense(Array),
    /// `[num_experts, out_dims, ...]`.
    Packed(Packed),
}

/// The order of axes of an expert's matrix in a tensor of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axes {
    OutputsFirst,
    InputsFirst,
}

impl Experts {
    /// From stacks `[num_experts, out_dims, in_dims]`, side by side.
    pub(super) fn stacked(
        w: &Weights,
        names: &[&str],
        num_experts: usize,
        in_dims: usize,
        out_dims: usize,
    ) -> Result<Self, LoadError> {
        let parts = names
            .iter()
            .map(|name| w.at(name).stacked_linear_parts(num_experts, in_dims, out_dims))
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(LinearWeight::stacked_along(1, &parts)?, w)
    }

    /// From one module for each expert. In the MLX format they are stacks, at `stacked`:
    /// each name comes with the one it has there.
    pub(super) fn single(
        (stacked, w): (&Weights, &Weights),
        names: &[(&str, &str)],
        num_experts: usize,
        in_dims: usize,
        out_dims: usize,
    ) -> Result<Self, LoadError> {
        let stack = |(name, stacked_name): &(&str, &str)| {
            let experts = (0..num_experts)
                .map(|expert| {
                    let w = w.layer(expert).at(name).silent();
                    Ok(w.linear_parts(in_dims, out_dims)?.expand_dims()?)
                })
                .collect::<Result<Vec<_>, LoadError>>()?;
            let stack = LinearWeight::stacked_along(0, &experts)?.ok_or_else(|| mixed(w))?;
            stacked.at(stacked_name).report(&stack)?;
            Ok::<_, LoadError>(stack)
        };
        let parts = names.iter().map(stack).collect::<Result<Vec<_>, _>>()?;
        Self::new(LinearWeight::stacked_along(1, &parts)?, w)
    }

    /// From `gate_up_proj` `[num_experts, 2 * inner, hidden]` and `down_proj`, or the same
    /// with inputs first, as transformers stores them, which in the MLX format are three
    /// stacks.
    pub(super) fn fused(
        (stacked, w): (&Weights, &Weights),
        names: [&str; 3],
        [num_experts, hidden, inner]: [usize; 3],
        axes: Axes,
    ) -> Result<[Self; 2], LoadError> {
        let silent = w.silent();
        let take = |name: &str, in_dims: usize, out_dims: usize| match axes {
            Axes::OutputsFirst => silent.take(name, &[num_experts, out_dims, in_dims]),
            Axes::InputsFirst => {
                let stored = silent.take(name, &[num_experts, in_dims, out_dims])?;
                Ok(stored.transpose(&[0, 2, 1])?)
            }
        };
        let gate_up = take("gate_up_proj", hidden, 2 * inner)?;
        let halves = gate_up.split(2, 1)?;
        let part = |name: &str, half: &Array| stacked.at(name).derived(&half.contiguous()?);
        let [gate, up] = [part(names[0], &halves[0])?, part(names[1], &halves[1])?];
        let down = part(names[2], &take("down_proj", inner, hidden)?)?;
        Ok([Self::new(LinearWeight::stacked_along(1, &[gate, up])?, w)?, Self::new(Some(down), w)?])
    }

    pub(super) fn new(weight: Option<LinearWeight>, w: &Weights) -> Result<Self, LoadError> {
        Ok(match weight.ok_or_else(|| mixed(w))? {
            LinearWeight::Dense(weight) => Self::Dense(weight),
            LinearWeight::Quantized { weight, scales, biases, spec } => {
                Self::Packed(Packed { weight, scales, biases, spec })
            }
        })
    }

    /// Rows of `x` `[..., 1, in_dims]` by the experts `[...]` that broadcast with its
    /// leading axes: `[..., 1, out_dims]`.
    pub(super) fn matmul(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        let packed = match self {
            Self::Dense(weight) => return dense_matmul(x, weight, experts, sorted),
            Self::Packed(packed) => packed,
        };
        if on_cuda() && experts.size() >= CUDA_UNPACKED_ROWS {
            let weight = packed.dequantize(x.dtype())?;
            let y = dense_matmul(x, &weight, experts, sorted)?;
            count(&y, weight.nbytes())?;
            return Ok(y);
        }
        let QuantSpec { group_size, bits, mode } = packed.spec;
        let Packed { weight, scales, biases, .. } = packed;
        let biases = biases.as_ref();
        let experts = Some(experts);
        gather_qmm(x, weight, scales, biases, None, experts, true, group_size, bits, mode, sorted)
    }

    /// Whether [`Experts::gather_on_cpu`] knows this packing.
    pub(super) fn has_cpu_kernel(&self) -> bool {
        match self {
            Self::Dense(_) => true,
            Self::Packed(packed) => packed.biases.is_some() && packed.spec.has_cpu_kernel(),
        }
    }

    /// On the CPU device, each slot's expert by its row of `x`, `[num_rows, in_dims]`,
    /// a row for each slot or for all slots of a token: `[num_slots, out_dims]`.
    ///
    /// # Panics
    /// Without a kernel, see [`Experts::has_cpu_kernel`].
    pub(super) fn gather_on_cpu(&self, x: &Array, experts: &Array) -> Result<Array> {
        match self {
            Self::Dense(weight) => gather_matmul(x, weight, experts),
            Self::Packed(Packed { weight, scales, biases: Some(biases), spec }) => {
                let QuantSpec { group_size, bits, .. } = *spec;
                let stack = QuantizedStack { weight, scales, biases, group_size, bits };
                gather_quantized_matmul(x, &stack, experts)
            }
            Self::Packed(_) => unreachable!("asked for before"),
        }
    }

    /// Whether [`Experts::gather`] knows this packing.
    pub(super) fn has_kernel(&self, dtype: Dtype) -> bool {
        self.spec(1, 1, dtype).is_some_and(|spec| qmm_few::supports(&spec.product))
    }

    fn spec(&self, rows: usize, slots_per_row: usize, dtype: Dtype) -> Option<GatherSpec> {
        let Self::Packed(packed) = self else {
            return None;
        };
        let QuantSpec { group_size, bits, mode: QuantMode::Affine } = packed.spec else {
            return None;
        };
        let product = QmvSpec {
            rows,
            inputs: packed.weight.dim(2) * 32 / bits,
            outputs: packed.weight.dim(1),
            bits,
            group_size,
            dtype,
            scale_dtype: packed.scales.dtype(),
        };
        Some(GatherSpec { product, num_experts: packed.weight.dim(0), slots_per_row })
    }

    /// Each slot's expert by its row of `x`, `[num_rows, in_dims]`: `[num_rows *
    /// slots_per_row, out_dims]`.
    ///
    /// # Panics
    /// Without a kernel, see [`Experts::has_kernel`].
    pub(super) fn gather(
        &self,
        kernels: &Kernels,
        x: &Array,
        experts: &Array,
        slots_per_row: usize,
    ) -> Result<Array> {
        let spec = self.spec(x.dim(0), slots_per_row, x.dtype());
        let (Self::Packed(Packed { weight: w, scales, biases: Some(biases), .. }), Some(spec)) =
            (self, spec)
        else {
            unreachable!("asked for before");
        };
        let weights = QmvWeights { w, scales, biases };
        Ok(gather_qmm_few(kernels, &spec, x, &weights, experts)?)
    }
}

/// On the CPU MLX's product by experts knows f32 alone; there ours takes all. On CUDA its
/// way for rows in the order of their experts gives wrong rows (MLX 0.32.4: two such
/// products after an argsort are off by as much as they are), so it is not told.
fn dense_matmul(x: &Array, weight: &Array, experts: &Array, sorted: bool) -> Result<Array> {
    let sorted = sorted && !on_cuda();
    gather_mm(x, &weight.transpose(&[0, 2, 1])?, None, Some(experts), sorted)
}

fn mixed(w: &Weights) -> LoadError {
    let value = w.path().to_owned();
    LoadError::Unsupported { what: "a mix of packings among experts", value }
}
