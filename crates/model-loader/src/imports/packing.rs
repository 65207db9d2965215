//! Small integers in 32-bit words. MLX packs along the input dimension, the first
//! element in the lowest bits; words are seen as bytes here, which are an eighth of
//! the memory that one word for each element would take.

use mlx::{Array, Dtype};

/// The elements of the last axis, one byte each, in the order of their bits.
pub(super) fn unpack(words: &Array, bits: usize) -> mlx::Result<Array> {
    let bytes = words.view(Dtype::Uint8)?;
    if bits == 8 {
        return Ok(bytes);
    }
    let low = bytes.bitwise_and(&Array::scalar(15_u8)?)?;
    let high = bytes.right_shift(&Array::scalar(4_u8)?)?;
    let shape = bytes.shape();
    let elements = Array::stack(&[&low, &high], -1)?;
    elements.reshape(&with_last(shape, |last| last * 2))
}

/// Four-bit elements, one byte each, as words along the last axis.
pub(super) fn pack_nibbles(elements: &Array) -> mlx::Result<Array> {
    let pairs = with_last(elements.shape(), |last| last / 2);
    let pairs = elements.reshape(&[pairs, vec![2]].concat())?;
    let halves = pairs.split(2, -1)?;
    let high = halves[1].left_shift(&Array::scalar(4_u8)?)?;
    halves[0].bitwise_or(&high)?.squeeze(-1)?.contiguous()?.view(Dtype::Uint32)
}

/// `-zeros * scales` in the type of the scales: the bias of an affine group whose
/// elements count from `zeros`.
pub(super) fn biases(zeros: &Array, scales: &Array) -> mlx::Result<Array> {
    let product = zeros.astype(Dtype::Float32)?.negative()?.multiply(scales)?;
    product.astype(scales.dtype())
}

/// How many groups of MLX share a stored scale: one, or all of a row where the row has
/// one scale. `None` if neither fits.
pub(super) fn groups_per_scale(
    in_dims: usize,
    scales_of_row: usize,
    group_size: usize,
) -> Option<usize> {
    let groups = in_dims.checked_div(group_size).filter(|_| in_dims.is_multiple_of(group_size))?;
    match scales_of_row {
        _ if scales_of_row == groups => Some(1),
        1 => Some(groups),
        _ => None,
    }
}

fn with_last(mut shape: Vec<usize>, change: impl Fn(usize) -> usize) -> Vec<usize> {
    if let Some(last) = shape.last_mut() {
        *last = change(*last);
    }
    shape
}
