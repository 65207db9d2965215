//! Products of a few rows with affine-quantized weights on the matrix unit, for
//! decode: one text for all sizes of a model, 1 to 64 rows, f16 and bf16.
//!
//! The weights are the left factor, so that a tile of 8 rows of `x` costs no more
//! than one row. How the columns are shared depends on the weights alone: a row's
//! result is the same in every batch, bit for bit.
//!
//! The same with a matrix of weights for each expert: [`gather_qmm_few`], for layers
//! of experts in decode. Rows with the same expert read its weights once.
//!
//! Upstream: none; SGLang's kernels of this kind (Marlin) are for other formats.

use mlx::{Array, Dtype};

use crate::{
    Call, Kernel, KernelError, Kernels, QmvSpec, QmvWeights, qmv_batch::check_weights, shapes,
};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "qmm_few", body: include_str!("body.inc") };

/// Most rows.
pub const MAX_ROWS: usize = 64;
/// Most rows of a result by experts.
pub const MAX_SLOTS: usize = 1024;
/// Above this many slots a product by experts takes more rows of the weights at a time.
const MANY_SLOTS: usize = 256;
/// Offsets of words are ints; a word holds 4 weights or more.
const MAX_ELEMENTS: usize = 4 << 31;

/// What a threadgroup takes, in tiles. Results do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QmmTiling {
    /// Tiles of 16 rows of the weights.
    pub row_tiles: usize,
    /// Tiles of 8 rows of x.
    pub token_tiles: usize,
    /// Groups of weights under way at once: 1, 2 or 4.
    pub groups_ahead: usize,
    /// Eights of a row of x under way at once; divides an eighth of the group size.
    pub octets_ahead: usize,
    /// Simdgroups of a threadgroup; those that share the columns are a part of them.
    pub simdgroups: usize,
}

impl QmmTiling {
    /// For a product of this size.
    pub fn new(spec: &QmvSpec) -> Self {
        let token_tiles = spec.rows.div_ceil(8).next_power_of_two().min(4);
        // Measured on an H100 over the matrices of an 8B model (docs/notes/gpu-decode.md).
        // Few tokens leave registers for loads, many need them for sums, and then a
        // second tile of rows halves the reads of x.
        let row_tiles = if token_tiles == 4 && spec.outputs >= 4096 { 2 } else { 1 };
        let groups_ahead = groups_ahead(spec, row_tiles);
        let octets_ahead = if token_tiles == 1 { 4 } else { 2 };
        let simdgroups = splits(spec, None);
        Self { row_tiles, token_tiles, groups_ahead, octets_ahead, simdgroups }
    }

    /// For a product by experts of this size. An expert has a few slots at most, of one
    /// tile; with many slots a second tile of rows halves the reads of x.
    pub fn by_experts(spec: &GatherSpec) -> Self {
        let many = spec.num_slots() > MANY_SLOTS;
        let (row_tiles, octets_ahead) = if many { (2, 2) } else { (1, 4) };
        let groups_ahead = groups_ahead(&spec.product, row_tiles);
        Self { row_tiles, token_tiles: 1, groups_ahead, octets_ahead, simdgroups: 4 }
    }
}

/// As many as registers allow.
fn groups_ahead(spec: &QmvSpec, row_tiles: usize) -> usize {
    match spec.group_size * spec.bits / 128 * row_tiles {
        0..=2 => 4,
        3..=4 => 2,
        _ => 1,
    }
}

/// Simdgroups that share the columns of a matrix: a matter of the weights alone, since
/// results depend on it. Longer runs make more of a simdgroup's start and of its sums,
/// where there are rows enough for every core (measured, docs/notes/gpu-decode.md).
fn splits(spec: &QmvSpec, gather: Option<&GatherSpec>) -> usize {
    match gather {
        Some(_) if spec.inputs / spec.group_size < 16 => 1,
        Some(_) => 2,
        None if spec.outputs > 4096 => 4,
        None => 8,
    }
}

/// Rows of the result that each have an expert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatherSpec {
    /// The product of one expert; `rows` is that of x.
    pub product: QmvSpec,
    /// Matrices of weights.
    pub num_experts: usize,
    /// Rows of the result for each row of x: the experts of a token where all of them
    /// take the token, 1 where each takes a row of its own.
    pub slots_per_row: usize,
}

impl GatherSpec {
    /// Rows of the result.
    pub fn num_slots(&self) -> usize {
        self.product.rows * self.slots_per_row
    }
}

/// Whether the kernel knows this product.
pub fn supports(spec: &QmvSpec) -> bool {
    spec.rows <= MAX_ROWS && check(spec, 1).is_ok()
}

/// The launch.
///
/// # Errors
/// A size or type that the kernel does not know.
pub fn call(spec: &QmvSpec, tiling: QmmTiling) -> Result<Call, KernelError> {
    if spec.rows > MAX_ROWS {
        let (what, size) = ("a number of rows", spec.rows);
        return Err(KernelError::Size { kernel: KERNEL.name, what, size });
    }
    any_call(spec, tiling, None)
}

/// The launch by experts.
///
/// # Errors
/// A size or type that the kernel does not know.
pub fn gather_call(spec: &GatherSpec, tiling: QmmTiling) -> Result<Call, KernelError> {
    let refuse = |what, size| Err(KernelError::Size { kernel: KERNEL.name, what, size });
    if spec.num_experts == 0 {
        return refuse("a number of experts", 0);
    }
    if spec.slots_per_row == 0 || spec.num_slots() > MAX_SLOTS {
        return refuse("a number of slots", spec.num_slots());
    }
    any_call(&spec.product, tiling, Some(spec))
}

/// What the kernel asks of a product, whatever the tiling.
fn check(spec: &QmvSpec, num_experts: usize) -> Result<(), KernelError> {
    if ![Dtype::Float16, Dtype::Bfloat16].contains(&spec.dtype) {
        return Err(KernelError::ElementType { dtype: spec.dtype });
    }
    if spec.scale_dtype != spec.dtype {
        return Err(KernelError::ElementType { dtype: spec.scale_dtype });
    }
    spec.check(KERNEL.name)?;
    let elements = spec.inputs * spec.outputs * num_experts;
    if elements > MAX_ELEMENTS {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a matrix", size: elements });
    }
    Ok(())
}

fn any_call(
    spec: &QmvSpec,
    tiling: QmmTiling,
    gather: Option<&GatherSpec>,
) -> Result<Call, KernelError> {
    let refuse = |what, size| Err(KernelError::Size { kernel: KERNEL.name, what, size });
    check(spec, gather.map_or(1, |spec| spec.num_experts))?;
    let QmmTiling { row_tiles, token_tiles, groups_ahead, octets_ahead, simdgroups } = tiling;
    let splits = splits(spec, gather);
    if !simdgroups.is_multiple_of(splits) || !(1..=8).contains(&simdgroups) {
        return refuse("a number of simdgroups", simdgroups);
    }
    if octets_ahead == 0 || !(spec.group_size / 8).is_multiple_of(octets_ahead) {
        return refuse("a number of octets", octets_ahead);
    }
    if ![1, 2, 4].contains(&groups_ahead) {
        return refuse("a number of groups", groups_ahead);
    }
    let rows = gather.map_or(spec.rows, GatherSpec::num_slots);
    let groups_of_rows = gather.map_or(spec.rows.div_ceil(8 * token_tiles), |_| rows);
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", spec.dtype.into())],
        constants: vec![
            ("BITS", spec.bits.into()),
            ("GROUP_SIZE", spec.group_size.into()),
            ("ROW_TILES", row_tiles.into()),
            ("TOKEN_TILES", token_tiles.into()),
            ("GROUPS_AHEAD", groups_ahead.into()),
            ("OCTETS_AHEAD", octets_ahead.into()),
            ("SIMDGROUPS", simdgroups.into()),
            ("SPLITS", splits.into()),
            ("GATHER", gather.is_some().into()),
            ("SLOTS_PER_ROW", gather.map_or(1, |spec| spec.slots_per_row).into()),
        ],
        groups: [spec.outputs.div_ceil(16 * row_tiles * simdgroups / splits), groups_of_rows, 1],
        threads: 32 * simdgroups,
        outputs: vec![(vec![rows, spec.outputs], spec.dtype)],
    })
}

/// `x` (`[rows, inputs]`) times the transposed weights: `[rows, outputs]`.
///
/// # Errors
/// Shapes that do not fit the spec, a size or type that the kernel does not know,
/// or an error of MLX.
pub fn qmm_few(
    kernels: &Kernels,
    spec: &QmvSpec,
    x: &Array,
    weights: &QmvWeights<'_>,
) -> Result<Array, KernelError> {
    qmm_few_tiled(kernels, spec, QmmTiling::new(spec), x, weights)
}

/// The same with a tiling of the caller's choice, for measurements.
///
/// # Errors
/// As [`qmm_few`].
pub fn qmm_few_tiled(
    kernels: &Kernels,
    spec: &QmvSpec,
    tiling: QmmTiling,
    x: &Array,
    weights: &QmvWeights<'_>,
) -> Result<Array, KernelError> {
    let call = call(spec, tiling)?;
    check_weights(KERNEL.name, spec, &[], x, weights)?;
    // Without experts any array does for them.
    let arrays = [x, weights.w, weights.scales, weights.biases, weights.w];
    Ok(shapes::single(kernels.run(&call, &arrays)?))
}

/// Row `slot / slots_per_row` of `x` (`[rows, inputs]`) times the transposed weights
/// of expert `experts[slot]`: `[rows * slots_per_row, outputs]`. The weights have the
/// expert as another first dimension; `experts` is int32 or uint32, in any order.
///
/// # Errors
/// As [`qmm_few`].
pub fn gather_qmm_few(
    kernels: &Kernels,
    spec: &GatherSpec,
    x: &Array,
    weights: &QmvWeights<'_>,
    experts: &Array,
) -> Result<Array, KernelError> {
    let call = gather_call(spec, QmmTiling::by_experts(spec))?;
    check_weights(KERNEL.name, &spec.product, &[spec.num_experts], x, weights)?;
    shapes::check(KERNEL.name, "experts", experts, &[spec.num_slots()])?;
    if ![Dtype::Int32, Dtype::Uint32].contains(&experts.dtype()) {
        return Err(KernelError::ElementType { dtype: experts.dtype() });
    }
    let arrays = [x, weights.w, weights.scales, weights.biases, experts];
    Ok(shapes::single(kernels.run(&call, &arrays)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_supported_has_a_launch_and_nothing_else_has() {
        let good = QmvSpec {
            rows: 8,
            inputs: 256,
            outputs: 32,
            bits: 4,
            group_size: 64,
            dtype: Dtype::Float16,
            scale_dtype: Dtype::Float16,
        };
        let mut specs = vec![
            QmvSpec { dtype: Dtype::Float32, ..good },
            QmvSpec { scale_dtype: Dtype::Bfloat16, ..good },
            QmvSpec { inputs: 1 << 20, outputs: 1 << 20, ..good },
            QmvSpec { outputs: 8192, ..good },
        ];
        for rows in [0, 1, 8, 16, 17, 33, MAX_ROWS, MAX_ROWS + 1] {
            for (bits, group_size) in [(4, 32), (4, 64), (4, 128), (8, 64), (6, 64), (4, 48)] {
                for inputs in [0, 64, 256, 300] {
                    specs.push(QmvSpec { rows, bits, group_size, inputs, ..good });
                }
            }
        }
        let mut supported = 0;
        for spec in &specs {
            let launches = call(spec, QmmTiling::new(spec)).is_ok();
            assert_eq!(supports(spec), launches, "{spec:?}");
            supported += usize::from(launches);
        }
        // A wide one, and six counts of rows by seven that fit of packing and width.
        assert_eq!(supported, 1 + 6 * 7);
    }
}
