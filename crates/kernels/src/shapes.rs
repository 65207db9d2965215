//! Checks that all launchers share, and the launch that several have.

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, KvDtype};

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

/// Checks pools of K and V of so many heads of such a width.
pub(crate) fn check_pools(
    kernel: &'static str,
    [num_kv_heads, head_dim]: [usize; 2],
    kv_dtype: KvDtype,
    [k_pool, v_pool]: [&Array; 2],
) -> Result<(), KernelError> {
    let slots = k_pool.shape().first().copied().unwrap_or(0);
    let expected = [slots, num_kv_heads, kv_dtype.row_len(head_dim)];
    check(kernel, "k_pool", k_pool, &expected)?;
    check(kernel, "v_pool", v_pool, &expected)?;
    check_dtype(kv_dtype.array_dtype(), &[k_pool, v_pool])
}

/// Rows and width of a matrix; `what` names its rank in the error.
pub(crate) fn matrix(
    kernel: &'static str,
    what: &'static str,
    array: &Array,
) -> Result<[usize; 2], KernelError> {
    let size = array.ndim();
    <[usize; 2]>::try_from(array.shape()).map_err(|_| KernelError::Size { kernel, what, size })
}

/// Refuses arrays of another element type.
pub(crate) fn check_dtype(dtype: Dtype, arrays: &[&Array]) -> Result<(), KernelError> {
    match arrays.iter().find(|array| array.dtype() != dtype) {
        Some(array) => Err(KernelError::ElementType { dtype: array.dtype() }),
        None => Ok(()),
    }
}

/// Packs of 16 bytes in a row of `width`, if it is whole packs.
pub(crate) fn packs(width: usize, dtype: Dtype) -> Option<usize> {
    let pack = 16 / dtype.size_in_bytes();
    (width > 0 && width.is_multiple_of(pack)).then_some(width / pack)
}

/// The launch of a kernel whose threads have a pack of the result each, `rows` rows of
/// `width`. Its constants are `WIDTH` and `more`.
///
/// # Errors
/// Rows that are not a multiple of 16 bytes.
pub(crate) fn pack_a_thread(
    kernel: &'static Kernel,
    [rows, width]: [usize; 2],
    dtype: Dtype,
    more: &[(&'static str, usize)],
) -> Result<Call, KernelError> {
    let Some(packs) = packs(width, dtype) else {
        return Err(KernelError::Size { kernel: kernel.name, what: "a row", size: width });
    };
    let threads = packs.next_multiple_of(32).min(128);
    let width_constant = std::iter::once(("WIDTH", width));
    let constants = width_constant.chain(more.iter().copied());
    Ok(Call {
        kernel,
        types: vec![("T", dtype.into())],
        constants: constants.map(|(name, size)| (name, size.into())).collect(),
        groups: [packs.div_ceil(threads), rows, 1],
        threads,
        outputs: vec![(vec![rows, width], dtype)],
    })
}

/// Whether [`pack_a_thread`] takes rows of `width`.
pub(crate) fn has_packs(width: usize, dtype: Dtype) -> bool {
    dtype.is_float() && packs(width, dtype).is_some()
}

/// The output of a kernel that has one.
pub(crate) fn single(mut outputs: Vec<Array>) -> Array {
    outputs.pop().expect("the kernel declares an output, and MLX gives what was declared")
}
