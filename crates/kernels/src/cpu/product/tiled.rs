//! Many rows of activations: rows of the matrix are unpacked into the cache.

use super::{Activations, Packed, Unpack, rows_per_task, store_unit, stride};
use crate::cpu::{
    isa::Isa,
    parallel::parallel_for,
    scratch::Scratch,
    simd::{UNIT, Vector, WithVector, with_vector},
    values::SharedOut,
};

/// Columns of a tile, for all vectors.
const COLUMNS: usize = 4;
/// The most rows of a tile, of all vectors.
const MAX_TILE_ROWS: usize = 6;
/// Unpacked weights of a task, in bytes, which should stay in the core's second cache.
const PANEL_BYTES: usize = 256 << 10;
/// The same for few rows, which should stay in the first.
const SMALL_PANEL_BYTES: usize = 16 << 10;
/// How many rows are few.
const FEW_ROWS: usize = 12;

/// # Safety
/// `y` has room for the rows of `x` from the given one on, each as wide as `w`
/// is high.
pub(super) unsafe fn multiply<U: Unpack>(
    isa: Isa,
    x: Activations<'_>,
    w: &Packed<'_>,
    y: (SharedOut, usize),
) {
    let bytes = if x.rows <= FEW_ROWS { SMALL_PANEL_BYTES } else { PANEL_BYTES };
    let most = bytes / (4 * x.stride);
    let step = rows_per_task(w.rows, x.rows * w.data.len(), most, COLUMNS);
    let stride = stride(w.columns);
    parallel_for(w.rows.div_ceil(step), |task| {
        let first = task * step;
        let len = step.min(w.rows - first);
        Scratch::Weights.with(step * stride, |panel| {
            Scratch::Scales.with(w.scratch_per_row() * len, |scratch| {
                let unpack = std::marker::PhantomData::<U>;
                with_vector(
                    isa,
                    UnpackRows { w, range: (first, len), scratch, panel, stride, unpack },
                );
            });
            Scratch::Results.with(MAX_TILE_ROWS * step, |results| {
                with_vector(isa, Tiles { x, panel, len, first, results, y, width: w.rows });
            });
        });
    });
}

struct UnpackRows<'a, U> {
    w: &'a Packed<'a>,
    /// The first of the rows, and how many.
    range: (usize, usize),
    scratch: &'a mut [f32],
    panel: &'a mut [f32],
    stride: usize,
    unpack: std::marker::PhantomData<U>,
}

impl<U: Unpack> WithVector for UnpackRows<'_, U> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's promise.
        let rows = unsafe { self.w.rows::<V>(self.range, self.scratch) };
        for (row, to) in self.panel.chunks_exact_mut(self.stride).enumerate().take(rows.len) {
            let mut to = to.as_mut_ptr();
            // SAFETY: units and groups are inside of their row; `to` has room
            // for all units.
            unsafe {
                let mut data = rows.row(row);
                for group in 0..rows.num_groups {
                    let shared = rows.group::<V, U>(rows.shared(row), group);
                    for _ in 0..rows.group_units {
                        store_unit::<V>(U::unit::<V>(data, shared), to);
                        data = data.add(U::UNIT_BYTES);
                        to = to.add(UNIT);
                    }
                }
                if rows.tail > 0 {
                    store_unit::<V>(rows.tail::<V, U>(row), to);
                }
            }
        }
    }
}

struct Tiles<'a> {
    x: Activations<'a>,
    /// Unpacked rows of the matrix with the same stride as `x`; those after the
    /// first `len` hold anything.
    panel: &'a [f32],
    len: usize,
    /// The first of the rows.
    first: usize,
    /// Room for the results of a row of tiles.
    results: &'a mut [f32],
    y: (SharedOut, usize),
    /// Values in a row of `y`.
    width: usize,
}

impl WithVector for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(mut self) {
        let mut row = 0;
        while row < self.x.rows {
            // Near the end, two tiles of about the same height.
            let left = self.x.rows - row;
            let halve = left > V::TILE_ROWS && left < 2 * V::TILE_ROWS;
            let rows = if halve { left.div_ceil(2) } else { left.min(V::TILE_ROWS) };
            // SAFETY: there are as many rows from `row` on.
            unsafe {
                match rows {
                    1 => self.row_of_tiles::<V, 1>(row),
                    2 => self.row_of_tiles::<V, 2>(row),
                    3 => self.row_of_tiles::<V, 3>(row),
                    4 if V::TILE_ROWS >= 4 => self.row_of_tiles::<V, 4>(row),
                    5 if V::TILE_ROWS >= 5 => self.row_of_tiles::<V, 5>(row),
                    6 if V::TILE_ROWS >= 6 => self.row_of_tiles::<V, 6>(row),
                    rows => unreachable!("{rows} rows are more than a tile's"),
                }
            }
            row += rows;
        }
    }
}

impl Tiles<'_> {
    /// # Safety
    /// The CPU has the instructions; there are `ROWS` rows from `row` on.
    #[inline(always)]
    unsafe fn row_of_tiles<V: Vector, const ROWS: usize>(&mut self, row: usize) {
        let width = self.len.next_multiple_of(COLUMNS);
        for column in (0..width).step_by(COLUMNS) {
            // SAFETY: the caller's promise; the panel has `width` rows.
            let sums = unsafe { self.tile::<V, ROWS>(row, column) };
            for (index, sums) in sums.iter().enumerate() {
                self.results[index * width + column..][..COLUMNS].copy_from_slice(sums);
            }
        }
        let (y, first_row) = self.y;
        for (index, results) in self.results.chunks_exact(width).take(ROWS).enumerate() {
            let at = (first_row + row + index) * self.width + self.first;
            // SAFETY: the task's columns of `y` are its own.
            unsafe { y.write(at, &results[..self.len]) };
        }
    }

    /// # Safety
    /// The CPU has the instructions; the tile is inside of `x` and the panel.
    #[inline(always)]
    unsafe fn tile<V: Vector, const ROWS: usize>(
        &self,
        row: usize,
        column: usize,
    ) -> [[f32; COLUMNS]; ROWS] {
        let stride = self.x.stride;
        // SAFETY: the caller's promise.
        unsafe {
            let x = self.x.data.as_ptr().add(row * stride);
            let w = self.panel.as_ptr().add(column * stride);
            let mut sums = [[V::zero(); COLUMNS]; ROWS];
            let mut at = 0;
            // What follows the last unit is padding.
            while at < stride - UNIT / 2 {
                let w = [
                    V::load(w.add(at)),
                    V::load(w.add(stride + at)),
                    V::load(w.add(2 * stride + at)),
                    V::load(w.add(3 * stride + at)),
                ];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = V::load(x.add(i * stride + at));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = sum.add_product(w, x);
                    }
                }
                at += V::LANES;
            }
            let mut out = [[0.0; COLUMNS]; ROWS];
            for (out, sums) in out.iter_mut().zip(sums) {
                *out = V::sum4(sums);
            }
            out
        }
    }
}
