//! Memory that a thread keeps from call to call: pages fresh from the system
//! cost more than the work that is done in them.

use std::cell::RefCell;

/// A cache line of f32, as the alignment of all scratch memory.
#[derive(Clone, Copy)]
#[repr(align(64))]
#[expect(dead_code, reason = "read and written as a slice of f32")]
struct Line([f32; Self::LEN]);

impl Line {
    const LEN: usize = 16;
}

/// What a thread uses scratch memory for: two uses never share it.
#[derive(Clone, Copy)]
pub(crate) enum Scratch {
    /// Activations of a call.
    Activations,
    /// Unpacked weights of a task.
    Weights,
    /// Scales and biases of a task.
    Scales,
    /// Results of a task.
    Results,
    /// What the kernels of a chain hand to each other.
    Chain,
}

thread_local! {
    static SCRATCH: [RefCell<Vec<Line>>; 5] = const { [const { RefCell::new(Vec::new()) }; 5] };
}

impl Scratch {
    /// Lends `len` values that hold anything, aligned to a cache line.
    ///
    /// # Panics
    /// This thread has lent it already.
    #[inline(always)]
    pub(crate) fn with<T>(self, len: usize, code: impl FnOnce(&mut [f32]) -> T) -> T {
        SCRATCH.with(|all| {
            let mut lines = all[self as usize].borrow_mut();
            let num_lines = len.div_ceil(Line::LEN);
            if lines.len() < num_lines {
                lines.resize(num_lines, Line([0.0; Line::LEN]));
            }
            // SAFETY: lines are arrays of f32 without gaps, and there are enough.
            let values = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) };
            code(values)
        })
    }
}
