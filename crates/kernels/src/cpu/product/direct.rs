//! Few rows of activations: each weight is read once, into registers.

use super::{Activations, Packed, Rows, Unpack, prefetch, rows_per_task};
use crate::cpu::{
    isa::Isa,
    parallel::parallel_for,
    scratch::Scratch,
    simd::{UNIT, Vector, WithVector, with_vector},
    values::SharedOut,
};

/// Rows of the matrix at a time, of which tasks get whole ones: as many
/// independent sums hide their latency.
const MAX_COLUMNS: usize = 4;
/// Packed weights in a task, in bytes, at most.
const TASK_BYTES: usize = 128 << 10;
/// How far before its use a weight is asked for, in bytes: rows are short, and
/// what reads ahead by itself stops at each page.
const AHEAD_BYTES: usize = 4 << 10;
/// Packed weights, in bytes, whose scales are widened at a time: few enough that
/// they stay in the first cache.
const BLOCK_BYTES: usize = 8 << 10;

/// The most rows that this is for.
pub(super) fn max_rows(isa: Isa) -> usize {
    struct Ask;
    impl WithVector for Ask {
        type Output = usize;
        #[inline(always)]
        unsafe fn run<V: Vector>(self) -> usize {
            V::MAX_DIRECT_ROWS
        }
    }
    with_vector(isa, Ask)
}

/// # Safety
/// `y` has room for the rows of `x` from the given one on, each as wide as `w`
/// is high.
pub(super) unsafe fn multiply<U: Unpack>(
    isa: Isa,
    x: Activations<'_>,
    w: &Packed<'_>,
    y: (SharedOut, usize),
) {
    let row_bytes = w.row_bytes().max(1);
    let step = rows_per_task(w.rows, x.rows * w.data.len(), TASK_BYTES / row_bytes, MAX_COLUMNS);
    let block = (BLOCK_BYTES / row_bytes).clamp(1, step).next_multiple_of(MAX_COLUMNS);
    parallel_for(w.rows.div_ceil(step), |task| {
        let range = (task * step, step.min(w.rows - task * step));
        Scratch::Scales.with(w.scratch_per_row() * block, |scratch| {
            let unpack = std::marker::PhantomData::<U>;
            with_vector(isa, Direct { x, w, range, block, scratch, y, unpack });
        });
    });
}

struct Direct<'a, U> {
    x: Activations<'a>,
    w: &'a Packed<'a>,
    /// The first of the rows, and how many.
    range: (usize, usize),
    /// Rows whose scales are widened at a time.
    block: usize,
    /// Room for scales and biases of a block.
    scratch: &'a mut [f32],
    y: (SharedOut, usize),
    unpack: std::marker::PhantomData<U>,
}

impl<U: Unpack> WithVector for Direct<'_, U> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.x.rows {
                1 => self.all::<V, 1, 4>(),
                2 => self.all::<V, 2, 4>(),
                3 if V::MAX_DIRECT_ROWS == 4 => self.all::<V, 3, 2>(),
                4 if V::MAX_DIRECT_ROWS == 4 => self.all::<V, 4, 2>(),
                3 if V::MAX_DIRECT_ROWS == 8 => self.all::<V, 3, 4>(),
                4 if V::MAX_DIRECT_ROWS == 8 => self.all::<V, 4, 4>(),
                5 if V::MAX_DIRECT_ROWS == 8 => self.all::<V, 5, 2>(),
                6 if V::MAX_DIRECT_ROWS == 8 => self.all::<V, 6, 2>(),
                7 if V::MAX_DIRECT_ROWS == 8 => self.all::<V, 7, 2>(),
                8 if V::MAX_DIRECT_ROWS == 8 => self.all::<V, 8, 2>(),
                rows => unreachable!("{rows} rows are not few"),
            }
        }
    }
}

impl<U: Unpack> Direct<'_, U> {
    /// # Safety
    /// The CPU has the instructions; there are `ROWS` rows of activations.
    #[inline(always)]
    unsafe fn all<V: Vector, const ROWS: usize, const COLUMNS: usize>(self) {
        let (y, first_row) = self.y;
        let (first, len) = self.range;
        for block in (0..len).step_by(self.block) {
            let range = (first + block, self.block.min(len - block));
            // SAFETY: the caller's promise; the task's columns of `y` are its own.
            unsafe {
                let rows = self.w.rows::<V>(range, self.scratch);
                self.w.prefetch_groups::<V>((range.0 + range.1, self.block));
                for column in (0..rows.len).step_by(COLUMNS) {
                    let sums = Self::columns::<V, ROWS, COLUMNS>(self.x, &rows, column);
                    for (row, sums) in sums.iter().enumerate() {
                        let at = (first_row + row) * self.w.rows + range.0 + column;
                        match rows.len - column {
                            // Of a length that is known, no call copies them.
                            left if left >= COLUMNS => y.write(at, sums),
                            left => y.write(at, &sums[..left]),
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`Self::all`]; `column` is inside.
    #[inline(always)]
    unsafe fn columns<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        activations: Activations<'_>,
        rows: &Rows<'_>,
        column: usize,
    ) -> [[f32; COLUMNS]; ROWS] {
        // Past the end, the last row again.
        let index: [usize; COLUMNS] = std::array::from_fn(|j| (column + j).min(rows.len - 1));
        // SAFETY: the caller's promise; units and groups are inside of their row.
        unsafe {
            let mut sums = [[V::zero(); COLUMNS]; ROWS];
            let mut data = index.map(|row| rows.row(row));
            let mut x = activations.data.as_ptr();
            let mut ahead = data[0].wrapping_add(AHEAD_BYTES);
            let shared = index.map(|row| rows.shared(row));
            for group in 0..rows.num_groups {
                let mut groups = [rows.group::<V, U>(shared[0], group); COLUMNS];
                for j in 1..COLUMNS {
                    groups[j] = rows.group::<V, U>(shared[j], group);
                }
                // Most often one, and then there is no loop.
                let mut units = rows.group_units;
                loop {
                    prefetch::<V>(ahead, COLUMNS * U::UNIT_BYTES);
                    ahead = ahead.wrapping_add(COLUMNS * U::UNIT_BYTES);
                    for j in 0..COLUMNS {
                        let unit = U::unit::<V>(data[j], groups[j]);
                        Self::add::<V, ROWS, COLUMNS>(&mut sums, j, unit, (x, activations.stride));
                        data[j] = data[j].add(U::UNIT_BYTES);
                    }
                    x = x.add(UNIT);
                    units -= 1;
                    if units == 0 {
                        break;
                    }
                }
            }
            if rows.tail > 0 {
                for (j, row) in index.into_iter().enumerate() {
                    let unit = rows.tail::<V, U>(row);
                    Self::add::<V, ROWS, COLUMNS>(&mut sums, j, unit, (x, activations.stride));
                }
            }
            let mut out = [[0.0; COLUMNS]; ROWS];
            for (out, sums) in out.iter_mut().zip(sums) {
                // One index for each of at most four columns.
                let last = COLUMNS - 1;
                let four = [sums[0], sums[1.min(last)], sums[2.min(last)], sums[3.min(last)]];
                out.copy_from_slice(&V::sum4(four)[..COLUMNS]);
            }
            out
        }
    }

    /// Adds the products of a unit of column `j` and all rows.
    ///
    /// # Safety
    /// As for [`Self::all`]; `x` points into the first row, a unit before its end.
    #[inline(always)]
    unsafe fn add<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        sums: &mut [[V; COLUMNS]; ROWS],
        j: usize,
        unit: V::Unit,
        (x, stride): (*const f32, usize),
    ) {
        for (v, weights) in unit.as_ref().iter().enumerate() {
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let x = V::load(x.add(row * stride + v * V::LANES));
                    sums[j] = sums[j].add_product(*weights, x);
                }
            }
        }
    }
}
