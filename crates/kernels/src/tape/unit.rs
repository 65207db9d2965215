//! A kernel's text as a translation unit of its own, as CUDA's compiler takes it.
//! MLX's way around the same text stands in [`crate::kernel`].

use std::fmt::Write;

use mlx::{Dtype, gpu_kernel::GpuDialect};

use crate::{Call, KernelError};

/// Axes of a shape that a kernel is handed.
const MAX_NDIM: usize = 4;

/// A text to be compiled.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) source: String,
    /// The kernel's function.
    pub(super) name: String,
    /// For each input: whether its shape follows it in the parameters.
    pub(super) takes_shape: Vec<bool>,
}

/// The unit for inputs of these shapes and types.
pub(super) fn cuda(call: &Call, inputs: &[(&[usize], Dtype)]) -> Result<Unit, KernelError> {
    let text = call.text(GpuDialect::Cuda)?;
    let mut params = Vec::new();
    let mut takes_shape = Vec::new();
    for (name, (shape, dtype)) in call.kernel.inputs().iter().zip(inputs) {
        params.push(format!("const {}* {name}", type_name(*dtype)?));
        let takes = text.source.contains(&format!("{name}_shape"));
        if takes && shape.len() > MAX_NDIM {
            let (what, size) = ("a rank of an input", shape.len());
            return Err(KernelError::Size { kernel: call.kernel.name, what, size });
        }
        if takes {
            params.push(format!("const Shape_ {name}_shape"));
        }
        takes_shape.push(takes);
    }
    for (name, (_, dtype)) in call.kernel.outputs().iter().zip(&call.outputs) {
        params.push(format!("{}* {name}", type_name(*dtype)?));
    }
    let mut source = String::from("#include <cuda_fp16.h>\n#include <cuda_bf16.h>\n");
    source += &text.header;
    let (name, params) = (&text.name, params.join(", "));
    write!(
        source,
        "struct Shape_ {{ int sizes[{MAX_NDIM}]; __device__ int operator[](int i) const \
         {{ return sizes[i]; }} }};\n\
         extern \"C\" __global__ void __launch_bounds__({}) {name}({params}) {{\n{}\n}}\n",
        call.threads, text.source
    )
    .expect("writing to a string does not fail");
    Ok(Unit { source, name: text.name, takes_shape })
}

/// A shape as the kernel's function takes it.
pub(super) fn shape_bytes(shape: &[usize]) -> Vec<u8> {
    let sizes = shape.iter().map(|&size| i32::try_from(size).unwrap_or(i32::MAX));
    sizes.chain(std::iter::repeat(1)).take(MAX_NDIM).flat_map(i32::to_ne_bytes).collect()
}

fn type_name(dtype: Dtype) -> Result<&'static str, KernelError> {
    match dtype {
        Dtype::Float32 => Ok("float"),
        Dtype::Float16 => Ok("__half"),
        Dtype::Bfloat16 => Ok("__nv_bfloat16"),
        Dtype::Int32 => Ok("int"),
        Dtype::Uint32 => Ok("unsigned int"),
        Dtype::Uint8 => Ok("unsigned char"),
        other => Err(KernelError::ElementType { dtype: other }),
    }
}
