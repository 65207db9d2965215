//! Operands of any float type as f32.

use std::{borrow::Cow, ops::Range};

use half::{bf16, f16, slice::HalfFloatSliceExt};
use mlx::{
    Dtype,
    cpu_kernel::{Input, Output},
};

/// The elements as f32, copied only if they are of another type.
pub(super) fn to_f32(input: Input<'_>) -> Cow<'_, [f32]> {
    if input.dtype() == Dtype::Float32 {
        return Cow::Borrowed(input.as_slice());
    }
    let len = input.shape().iter().map(|&size| size as usize).product();
    let mut out = Vec::with_capacity(len);
    extend_f32(&mut out, input, 0..len);
    Cow::Owned(out)
}

/// Appends a range of the elements as f32.
pub(super) fn extend_f32(out: &mut Vec<f32>, input: Input<'_>, range: Range<usize>) {
    let start = out.len();
    match input.dtype() {
        Dtype::Float32 => out.extend_from_slice(&input.as_slice::<f32>()[range]),
        Dtype::Bfloat16 => {
            out.extend(input.as_slice::<bf16>()[range].iter().map(|value| value.to_f32()));
        }
        Dtype::Float16 => {
            out.resize(start + range.len(), 0.0);
            input.as_slice::<f16>()[range].convert_to_f32_slice(&mut out[start..]);
        }
        other => panic!("{other} is no float type that kernels know"),
    }
}

/// Lets `fill` write an output as f32, and converts.
pub(super) fn with_f32_output(output: &mut Output<'_>, fill: impl FnOnce(&mut [f32])) {
    if output.dtype() == Dtype::Float32 {
        return fill(output.as_mut_slice());
    }
    let len = output.shape().iter().map(|&size| size as usize).product();
    let mut values = vec![0.0; len];
    fill(&mut values);
    match output.dtype() {
        Dtype::Bfloat16 => {
            output.as_mut_slice::<bf16>().convert_from_f32_slice(&values);
        }
        Dtype::Float16 => output.as_mut_slice::<f16>().convert_from_f32_slice(&values),
        other => panic!("{other} is no float type that kernels know"),
    }
}
