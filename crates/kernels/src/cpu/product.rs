//! Products `x · wᵀ` of f32 rows and a matrix that is unpacked on the way.
//!
//! Few rows: weights go from memory through registers to all rows at once. Many
//! rows: some rows of the matrix are unpacked into the core's cache, then tiles
//! of rows and columns pass over them. Each result is one chain of products in
//! one register and then the sum of its lanes, in the same order either way: a
//! row's result depends neither on the other rows nor on the threads. That is
//! why nothing here splits the inner dimension, or sums it in two registers.

mod direct;
mod tiled;

use super::{
    isa::Isa,
    parallel::{num_threads, parallel_for},
    scratch::Scratch,
    simd::{UNIT, Vector, WithVector, with_vector},
    values::{SharedOut, Values, ValuesMut},
};

/// Less work than this is not worth a second thread, in bytes of the matrix times rows.
const PARALLEL_MIN_WORK: usize = 32 << 10;
/// Tasks per thread, so that a late thread holds the others up little.
const TASKS_PER_THREAD: usize = 6;
/// Rows of `x` that are worked on at a time, which bounds the scratch memory.
const MAX_ROWS: usize = 1024;
/// Bytes of a cache line.
const CACHE_LINE: usize = 64;
/// Values of `x` that one task prepares.
const PREPARE_VALUES: usize = 16 << 10;

/// How a unit of weights is unpacked.
pub(crate) trait Unpack: Copy + Sync {
    const UNIT_BYTES: usize;
    /// What the weights of a group share.
    type Group<V: Vector>: Copy;

    /// # Safety
    /// The CPU has the instructions; there is a scale and a bias, if packed so.
    unsafe fn group<V: Vector>(scale: *const f32, bias: *const f32) -> Self::Group<V>;
    /// # Safety
    /// The CPU has the instructions; `UNIT_BYTES` can be read.
    unsafe fn unit<V: Vector>(data: *const u8, group: Self::Group<V>) -> V::Unit;
    /// Brings activations into the order of unpacked weights.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn arrange<V: Vector>(unit: V::Unit) -> V::Unit;
}

/// A matrix `[rows, columns]` as it lies in memory.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// A scale and a bias for each group of units, `[rows, num_groups]`, or none.
    pub(crate) groups: Option<Groups<'a>>,
}

/// Scales and biases of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    pub(crate) scales: Values<'a>,
    pub(crate) biases: Values<'a>,
    /// Units in a group.
    pub(crate) units: usize,
}

/// Some rows of a matrix, with scales and biases in f32.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [u8],
    len: usize,
    row_bytes: usize,
    /// Units of a row, all full.
    units: usize,
    /// Weights after the last full unit.
    tail: usize,
    /// `[rows, num_groups]`, or nothing.
    scales: &'a [f32],
    biases: &'a [f32],
    num_groups: usize,
    /// Units in a group.
    group_units: usize,
}

impl<'a> Packed<'a> {
    fn row_bytes(&self) -> usize {
        self.data.len() / self.rows
    }

    /// Values of scratch memory that [`Packed::rows`] needs for a row.
    fn scratch_per_row(&self) -> usize {
        match self.groups {
            None | Some(Groups { scales: Values::F32(_), biases: Values::F32(_), .. }) => 0,
            Some(groups) => 2 * (self.columns / UNIT / groups.units),
        }
    }

    /// Rows `first..first + len`, with scales and biases widened into `scratch`.
    ///
    /// # Safety
    /// The CPU has the instructions.
    #[inline(always)]
    unsafe fn rows<'s, V: Vector>(
        &'s self,
        (first, len): (usize, usize),
        scratch: &'s mut [f32],
    ) -> Rows<'s> {
        let row_bytes = self.row_bytes();
        let units = self.columns / UNIT;
        let rows = Rows {
            data: &self.data[first * row_bytes..][..len * row_bytes],
            len,
            row_bytes,
            units,
            tail: self.columns % UNIT,
            scales: &[],
            biases: &[],
            num_groups: usize::from(units > 0),
            group_units: units,
        };
        let Some(groups) = self.groups else { return rows };
        let num_groups = units / groups.units;
        let rows = Rows { num_groups, group_units: groups.units, ..rows };
        let (first, len) = (first * num_groups, len * num_groups);
        if let (Values::F32(scales), Values::F32(biases)) = (groups.scales, groups.biases) {
            let (scales, biases) = (&scales[first..][..len], &biases[first..][..len]);
            return Rows { scales, biases, ..rows };
        }
        let (scales, biases) = scratch[..2 * len].split_at_mut(len);
        // SAFETY: the caller's promise.
        unsafe {
            Widen { from: groups.scales, first, to: scales }.run::<V>();
            Widen { from: groups.biases, first, to: biases }.run::<V>();
        }
        Rows { scales, biases, ..rows }
    }

    /// Asks for the scales and biases of `len` rows from `first` on, if there are.
    ///
    /// # Safety
    /// The CPU has the instructions.
    #[inline(always)]
    unsafe fn prefetch_groups<V: Vector>(&self, (first, len): (usize, usize)) {
        let Some(groups) = self.groups else { return };
        let num_groups = self.columns / UNIT / groups.units;
        for values in [groups.scales, groups.biases] {
            let (data, size) = values.bytes();
            let at = data.wrapping_add(first * num_groups * size);
            // SAFETY: the caller's promise.
            unsafe { prefetch::<V>(at, len * num_groups * size) };
        }
    }
}

/// Asks for `len` bytes from `data` on, of which any may be outside of memory.
///
/// # Safety
/// The CPU has the instructions.
#[inline(always)]
unsafe fn prefetch<V: Vector>(data: *const u8, len: usize) {
    for line in (0..len).step_by(CACHE_LINE) {
        // SAFETY: the caller's promise.
        unsafe { V::prefetch(data.wrapping_add(line)) };
    }
}

/// As [`Values::widen`], a unit at a time.
struct Widen<'a> {
    from: Values<'a>,
    first: usize,
    to: &'a mut [f32],
}

impl WithVector for Widen<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { from, first, to } = self;
        if to.len() < UNIT {
            return from.widen(first, to);
        }
        // The library converts eight at a time, each behind a call.
        let mut at = 0;
        while at < to.len() {
            // The last unit may overlap the one before.
            let start = at.min(to.len() - UNIT);
            let range = first + start..first + start + UNIT;
            let to = to[start..start + UNIT].as_mut_ptr();
            // SAFETY: both are units; the CPU has been asked.
            unsafe {
                match from {
                    Values::F32(values) => store_unit::<V>(V::unit_f32(values[range].as_ptr()), to),
                    Values::Bf16(values) => {
                        store_unit::<V>(V::unit_bf16(values[range].as_ptr()), to);
                    }
                    Values::F16(values) => store_unit::<V>(V::unit_f16(values[range].as_ptr()), to),
                }
            }
            at += UNIT;
        }
    }
}

impl Rows<'_> {
    /// Where a row's scales and biases begin; without groups nothing is there.
    #[inline(always)]
    fn shared(&self, row: usize) -> [*const f32; 2] {
        let at = row * self.num_groups;
        [self.scales.as_ptr().wrapping_add(at), self.biases.as_ptr().wrapping_add(at)]
    }

    /// Unpacks a group's shared values.
    ///
    /// # Safety
    /// The CPU has the instructions; `shared` is a row's, and the group is inside.
    #[inline(always)]
    unsafe fn group<V: Vector, U: Unpack>(
        &self,
        [scales, biases]: [*const f32; 2],
        group: usize,
    ) -> U::Group<V> {
        // SAFETY: the caller's promise; without groups the pointers are not read.
        unsafe { U::group::<V>(scales.wrapping_add(group), biases.wrapping_add(group)) }
    }

    /// Where a row begins.
    ///
    /// # Safety
    /// It is inside.
    #[inline(always)]
    unsafe fn row(&self, row: usize) -> *const u8 {
        // SAFETY: the caller's promise.
        unsafe { self.data.as_ptr().add(row * self.row_bytes) }
    }

    /// Unpacks the weights after a row's last full unit, and zeros.
    ///
    /// # Safety
    /// The CPU has the instructions; the row is inside; the matrix has no groups.
    #[inline(always)]
    unsafe fn tail<V: Vector, U: Unpack>(&self, row: usize) -> V::Unit {
        let mut unit = [0_u8; 4 * UNIT];
        let at = self.units * U::UNIT_BYTES;
        // SAFETY: the caller's promise; what is left of a row is less than a unit.
        unsafe {
            let from = self.row(row).add(at);
            std::ptr::copy_nonoverlapping(from, unit.as_mut_ptr(), self.row_bytes - at);
            U::unit::<V>(unit.as_ptr(), U::group::<V>(std::ptr::null(), std::ptr::null()))
        }
    }
}

/// Rows of activations in the order of unpacked weights, with zeros up to a
/// full unit.
#[derive(Clone, Copy)]
struct Activations<'a> {
    data: &'a [f32],
    rows: usize,
    stride: usize,
}

/// Values from one prepared row to the next: an odd number of cache lines, so
/// that the rows of a tile do not compete for the same places in the cache.
fn stride(columns: usize) -> usize {
    columns.next_multiple_of(UNIT) + UNIT / 2
}

/// `y = x · wᵀ` for `num_rows` rows.
///
/// # Panics
/// Lengths do not fit each other.
pub(crate) fn multiply<U: Unpack>(
    isa: Isa,
    num_rows: usize,
    x: Values<'_>,
    w: &Packed<'_>,
    y: &mut ValuesMut<'_>,
) {
    assert_eq!(x.len(), num_rows * w.columns, "values of x");
    assert_eq!(y.len(), num_rows * w.rows, "values of y");
    if w.rows == 0 {
        return;
    }
    let tail_bytes = U::UNIT_BYTES * (w.columns % UNIT) / UNIT;
    assert_eq!(w.row_bytes(), w.columns / UNIT * U::UNIT_BYTES + tail_bytes, "bytes of a row");
    assert!(w.groups.is_none() || tail_bytes == 0, "groups are whole units");
    let y = y.shared();
    for first in (0..num_rows).step_by(MAX_ROWS) {
        let rows = MAX_ROWS.min(num_rows - first);
        let stride = stride(w.columns);
        Scratch::Activations.with(rows * stride, |scratch| {
            prepare::<U>(isa, x, (first, w.columns), (scratch, stride));
            let x = Activations { data: scratch, rows, stride };
            // SAFETY: `y` has `num_rows` rows as wide as `w` is high.
            unsafe {
                if rows <= direct::max_rows(isa) {
                    direct::multiply::<U>(isa, x, w, (y, first));
                } else {
                    tiled::multiply::<U>(isa, x, w, (y, first));
                }
            }
        });
    }
}

/// Widens and arranges rows of `x` from `first` on.
fn prepare<U: Unpack>(
    isa: Isa,
    x: Values<'_>,
    (first, columns): (usize, usize),
    (scratch, stride): (&mut [f32], usize),
) {
    let rows = scratch.len() / stride;
    let task_rows = (PREPARE_VALUES / stride).max(1);
    let out = ValuesMut::F32(scratch).shared();
    parallel_for(rows.div_ceil(task_rows), |task| {
        for row in task * task_rows..rows.min((task + 1) * task_rows) {
            let SharedOut::F32(data) = out else { continue };
            // SAFETY: rows are apart, and each is one task's.
            let to = unsafe { std::slice::from_raw_parts_mut(data.add(row * stride), stride) };
            let from = (first + row) * columns;
            with_vector(
                isa,
                Arrange::<U> { x, from, columns, to, unpack: std::marker::PhantomData },
            );
        }
    });
}

struct Arrange<'a, U> {
    x: Values<'a>,
    from: usize,
    columns: usize,
    to: &'a mut [f32],
    unpack: std::marker::PhantomData<U>,
}

impl<U: Unpack> WithVector for Arrange<'_, U> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: the caller's promise.
        unsafe {
            let to = &mut self.to[..self.columns];
            Widen { from: self.x, first: self.from, to }.run::<V>();
        }
        self.to[self.columns..].fill(0.0);
        for unit in self.to.chunks_exact_mut(UNIT) {
            // SAFETY: `unit` is a unit.
            unsafe {
                let arranged = U::arrange::<V>(V::unit_f32(unit.as_ptr()));
                store_unit::<V>(arranged, unit.as_mut_ptr());
            }
        }
    }
}

/// # Safety
/// The CPU has the instructions; a unit can be written.
#[inline(always)]
unsafe fn store_unit<V: Vector>(unit: V::Unit, to: *mut f32) {
    for (index, vector) in unit.as_ref().iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { vector.store(to.add(index * V::LANES)) };
    }
}

/// Splits rows of a matrix among tasks: how many each gets, a multiple of
/// `multiple`, at most `most` if that is more.
fn rows_per_task(rows: usize, work: usize, most: usize, multiple: usize) -> usize {
    if work < PARALLEL_MIN_WORK {
        return most.min(rows).max(1).next_multiple_of(multiple);
    }
    let share = rows.div_ceil(TASKS_PER_THREAD * num_threads());
    share.min(most).max(1).next_multiple_of(multiple)
}
