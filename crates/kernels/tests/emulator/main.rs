//! The bodies of the GPU kernels, run by the emulator, against plain references.

#![expect(clippy::unwrap_used, reason = "test code outside of test functions")]

#[path = "../cases/mod.rs"]
mod cases;
mod decode;
mod planted;
mod write;

use kernel_emulator::{ElementType, EmulatorError, Launch, Tensor};
use kernels::{Call, Constant};
use mlx::Dtype;

fn element(dtype: Dtype) -> ElementType {
    match dtype {
        Dtype::Float32 => ElementType::F32,
        Dtype::Float16 => ElementType::F16,
        Dtype::Bfloat16 => ElementType::Bf16,
        Dtype::Int32 => ElementType::I32,
        other => panic!("the emulator has no {other:?}"),
    }
}

fn ints(values: &[usize]) -> Tensor {
    let values: Vec<i32> = values.iter().map(|value| i32::try_from(*value).unwrap()).collect();
    Tensor::ints(&[values.len()], &values)
}

/// Runs a call on inputs in the order of its declarations.
fn run(call: &Call, inputs: &mut [&mut Tensor]) -> Result<Vec<Tensor>, EmulatorError> {
    let types: Vec<_> = call.types.iter().map(|(name, dtype)| (*name, element(*dtype))).collect();
    let constants: Vec<_> = call
        .constants
        .iter()
        .map(|(name, value)| match value {
            Constant::Int(value) => (*name, kernel_emulator::Constant::Int(*value)),
            Constant::Float(value) => (*name, kernel_emulator::Constant::Float(*value)),
        })
        .collect();
    let mut outputs: Vec<_> = call
        .outputs
        .iter()
        .map(|(shape, dtype)| Tensor::unwritten(element(*dtype), shape))
        .collect();
    let mut buffers: Vec<(&str, &mut Tensor)> = call
        .kernel
        .inputs()
        .into_iter()
        .zip(inputs.iter_mut().map(|tensor| &mut **tensor))
        .chain(call.kernel.outputs().into_iter().zip(&mut outputs))
        .collect();
    let launch = Launch {
        kernel: call.kernel.name,
        types: &types,
        constants: &constants,
        groups: call.groups,
        threads: call.threads,
    };
    kernel_emulator::run(&launch, &mut buffers)?;
    Ok(outputs)
}
