//! Checks that all launchers share.

use mlx::Array;

use crate::{AttentionSpec, KernelError};

pub(crate) fn check(
    kernel: &'static str,
    input: &'static str,
    array: &Array,
    expected: &[usize],
) -> Result<(), KernelError> {
    if array.shape() == expected {
        return Ok(());
    }
    let (shape, expected) = (array.shape().to_vec(), expected.to_vec());
    Err(KernelError::Shape { kernel, input, shape, expected })
}

pub(crate) fn check_pools(
    kernel: &'static str,
    spec: &AttentionSpec,
    k_pool: &Array,
    v_pool: &Array,
) -> Result<(), KernelError> {
    let slots = k_pool.shape().first().copied().unwrap_or(0);
    let expected = [slots, spec.num_kv_heads, spec.head_dim];
    check(kernel, "k_pool", k_pool, &expected)?;
    check(kernel, "v_pool", v_pool, &expected)
}

/// The output of a kernel that has one.
pub(crate) fn single(mut outputs: Vec<Array>) -> Array {
    outputs.pop().expect("the kernel declares an output, and MLX gives what was declared")
}
