//! `y = x · dequant(w)ᵀ` for matrices packed in MLX's affine format, f32 inside.
//!
//! Few rows (decode) are bound by the memory that holds the weights: they are
//! unpacked in registers, each read once for all rows. Many rows (prefill) are
//! bound by arithmetic: a block of weight rows is unpacked to f32 once, small
//! enough to stay in the cache, and multiplied with all rows of `x`.
//!
//! Both ways add the products of an output in the same order, in 16 lanes, so
//! an output is the same to the last bit whatever else is in the batch. That is
//! also why activations are not rounded to 8 bits, as others do.

use mlx::{
    Array, Dtype, Result,
    cpu_kernel::{CpuKernel, Input, Operands, cpu_kernel},
};
use std::sync::Arc;

use super::{
    floats::{to_f32, with_f32_output},
    parallel::{num_threads, parallel_for},
};

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(test)]
mod tests;
mod unpack;

/// Lanes of a sum.
const LANES: usize = 16;
/// Rows of `x` up to which weights are unpacked in registers.
const FEW_ROWS: usize = 4;
/// f32s that a block of unpacked weight rows may take: half of a small L2.
const BLOCK_FLOATS: usize = 32 << 10;
/// Multiplications below which threads are not worth waking.
const PARALLEL_MIN_WORK: usize = 1 << 15;

/// A packed matrix, `[rows, cols]`.
#[derive(Clone, Copy)]
struct Packed<'a> {
    /// `cols * bits / 8` bytes a row, little-endian.
    bytes: &'a [u8],
    scales: Input<'a>,
    biases: Input<'a>,
    rows: usize,
    cols: usize,
    group_size: usize,
    bits: usize,
}

/// Where the result goes: rows of `x` by rows of the matrix.
#[derive(Clone, Copy)]
struct OutPtr {
    data: *mut f32,
    stride: usize,
}

#[expect(unsafe_code, reason = "tasks write different columns")]
// SAFETY: every element is written by one task.
unsafe impl Send for OutPtr {}
#[expect(unsafe_code, reason = "tasks write different columns")]
// SAFETY: as above.
unsafe impl Sync for OutPtr {}

impl OutPtr {
    /// # Safety
    /// The element exists, and no other task writes it.
    #[expect(unsafe_code, reason = "tasks write different columns")]
    unsafe fn set(self, row: usize, column: usize, value: f32) {
        // SAFETY: promised by the caller.
        unsafe { *self.data.add(row * self.stride + column) = value }
    }
}

/// The instructions that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Order of the elements within 32, as the kernels for it want `x` and
    /// unpacked weights: even ones first if true.
    fn splits_pairs(self, bits: usize) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Self::Avx512 && bits == 4;
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }
}

/// Whether [`quantized_matmul`] knows the format.
pub fn supports(group_size: usize, bits: usize) -> bool {
    matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) && matches!(group_size, 32 | 64 | 128)
}

/// `x` `[num_tokens, in_dims]`, f32, bf16 or f16, times a packed matrix: `w`
/// `[out_dims, in_dims * bits / 32]` u32, `scales` and `biases`
/// `[out_dims, in_dims / group_size]` of any float type. Returns
/// `[num_tokens, out_dims]` in the type of `x`.
///
/// # Errors
/// Those of MLX. Shapes that do not fit fail when the node is evaluated.
pub fn quantized_matmul(
    x: &Array,
    w: &Array,
    scales: &Array,
    biases: &Array,
    group_size: usize,
    bits: usize,
) -> Result<Array> {
    let kernel = Arc::new(QuantizedMatmul { group_size, bits, isa: Isa::best() });
    let outputs: &[(&[usize], Dtype)] = &[(&[x.dim(0), w.dim(0)], x.dtype())];
    let mut out = cpu_kernel(kernel, &[x, w, scales, biases], outputs)?;
    Ok(out.remove(0))
}

struct QuantizedMatmul {
    group_size: usize,
    bits: usize,
    isa: Isa,
}

impl CpuKernel for QuantizedMatmul {
    fn run(&self, mut operands: Operands<'_>) {
        let [x, w, scales, biases] = operands.inputs[..] else {
            panic!("four inputs");
        };
        let (num_tokens, cols) = (x.dim(0), x.dim(1));
        let packed = Packed {
            bytes: bytes_of(w),
            scales,
            biases,
            rows: w.dim(0),
            cols,
            group_size: self.group_size,
            bits: self.bits,
        };
        packed.check();
        let x = to_f32(x);
        with_f32_output(&mut operands.outputs[0], |out| {
            multiply(self.isa, &x, num_tokens, &packed, out);
        });
    }
}

fn bytes_of(w: Input<'_>) -> &[u8] {
    bytemuck::cast_slice(w.as_slice::<u32>())
}

impl Packed<'_> {
    fn check(&self) {
        assert!(supports(self.group_size, self.bits), "a packing that this kernel knows");
        assert!(self.cols.is_multiple_of(self.group_size), "whole groups");
        assert_eq!(self.bytes.len(), self.rows * self.row_bytes(), "words of a packed matrix");
        let groups = [self.rows, self.cols / self.group_size];
        for part in [&self.scales, &self.biases] {
            assert_eq!([part.dim(0), part.dim(1)], groups, "scales and biases of a packed matrix");
        }
    }

    fn row_bytes(&self) -> usize {
        self.cols * self.bits / 8
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.row_bytes()..][..self.row_bytes()]
    }

    fn groups(&self) -> usize {
        self.cols / self.group_size
    }

    /// Scales, then biases, of some rows as f32, `[2, rows, groups]`.
    fn affine(&self, first: usize, rows: usize, out: &mut Vec<f32>) {
        out.clear();
        let range = first * self.groups()..(first + rows) * self.groups();
        for part in [self.scales, self.biases] {
            super::floats::extend_f32(out, part, range.clone());
        }
    }
}

/// `out` `[num_tokens, w.rows]`.
fn multiply(isa: Isa, x: &[f32], num_tokens: usize, w: &Packed<'_>, out: &mut [f32]) {
    let out_dims = w.rows;
    assert_eq!((x.len(), out.len()), (num_tokens * w.cols, num_tokens * out_dims));
    let reordered = isa.splits_pairs(w.bits).then(|| split_pairs(x, w.cols));
    let x = reordered.as_deref().unwrap_or(x);
    let out = OutPtr { data: out.as_mut_ptr(), stride: out_dims };
    let few = num_tokens <= FEW_ROWS;
    let block = block_rows(w.cols, out_dims, few);
    let num_tasks = out_dims.div_ceil(block);
    let task = |index: usize| {
        let first = index * block;
        let rows = block.min(out_dims - first);
        multiply_block(isa, (x, num_tokens), w, first..first + rows, out);
    };
    if num_tokens * out_dims * w.cols < PARALLEL_MIN_WORK {
        (0..num_tasks).for_each(task);
    } else {
        parallel_for(num_tasks, task);
    }
}

/// Weight rows of a task: enough tasks to balance, few enough to be worth it.
fn block_rows(cols: usize, rows: usize, few: bool) -> usize {
    let fair = rows.div_ceil(num_threads() * 4).next_multiple_of(8);
    if few {
        return fair.max(16);
    }
    (BLOCK_FLOATS / cols).clamp(8, 256).next_multiple_of(8).min(fair)
}

/// Outputs of some weight rows for all rows of `x`.
fn multiply_block(
    isa: Isa,
    (x, num_tokens): (&[f32], usize),
    w: &Packed<'_>,
    rows: std::ops::Range<usize>,
    out: OutPtr,
) {
    let mut affine = Vec::new();
    w.affine(rows.start, rows.len(), &mut affine);
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && num_tokens <= FEW_ROWS && matches!(w.bits, 4 | 8) {
        return avx512::few_rows((x, num_tokens), w, rows, &affine, out);
    }
    let mut unpacked = vec![0.0; rows.len() * w.cols];
    let (scales, biases) = affine.split_at(affine.len() / 2);
    for (index, unpacked) in unpacked.chunks_exact_mut(w.cols).enumerate() {
        let groups = index * w.groups()..(index + 1) * w.groups();
        let affine = (&scales[groups.clone()], &biases[groups]);
        unpack::row(isa, w, rows.start + index, affine, unpacked);
    }
    let tile = portable::Tiles { x, num_tokens, w: &unpacked, cols: w.cols, first: rows.start };
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::tiles(&tile, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => portable::tiles_avx2(&tile, out),
        Isa::Portable => portable::tiles(&tile, out),
    }
}

/// Even elements, then odd ones, of every 32.
fn split_pairs(x: &[f32], cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let rows_per_task = (PARALLEL_MIN_WORK / cols).max(1);
    let chunk = rows_per_task * cols;
    let base = OutPtr { data: out.as_mut_ptr(), stride: 0 };
    parallel_for(x.len().div_ceil(chunk), |task| {
        let start = task * chunk;
        let end = (start + chunk).min(x.len());
        for (block, values) in x[start..end].chunks_exact(2 * LANES).enumerate() {
            for pair in 0..LANES {
                let at = start + block * 2 * LANES + pair;
                #[expect(unsafe_code, reason = "tasks write different parts")]
                // SAFETY: inside `out`, which is as long as `x`, and in this
                // task's part of it.
                unsafe {
                    base.set(0, at, values[2 * pair]);
                    base.set(0, at + LANES, values[2 * pair + 1]);
                }
            }
        }
    });
    out
}
