//! Keeps unpacked matrices few.
//!
//! An operation's memory is given when it is handed to the device, long before it
//! runs: a prompt whose products unpack their matrices would hold the whole model
//! unpacked. So after every so many bytes of them the work so far is handed over,
//! and before that the work up to the last such mark has to be done.

use std::cell::RefCell;

use mlx::{Array, Result, async_eval};

/// Unpacked bytes from one mark to the next. Up to twice as many, and what is unpacked
/// next, exist at a time; less work than this would leave a GPU idle at the mark.
pub const MARK_BYTES: usize = 1 << 30;

#[derive(Default)]
struct Marks {
    /// Unpacked since the last mark.
    nbytes: usize,
    /// One element, computed after everything up to the last mark.
    last: Option<Array>,
}

thread_local! {
    /// Of the thread that owns MLX.
    static MARKS: RefCell<Marks> = RefCell::default();
}

/// Counts `product`, which reads a matrix of `nbytes` that was unpacked for it.
///
/// # Errors
/// Those of MLX, of anything handed over so far.
pub(crate) fn count(product: &Array, nbytes: usize) -> Result<()> {
    count_to(MARK_BYTES, product, nbytes)
}

/// The step that gives `result` was handed over. Its end is a mark, so that every step
/// has its marks at the same places and none needs more memory than the one before.
///
/// # Errors
/// Those of MLX, of anything handed over so far.
pub fn end_step(result: &Array) -> Result<()> {
    let before = MARKS.with_borrow_mut(|marks| {
        let has_unpacked = std::mem::take(&mut marks.nbytes) > 0;
        has_unpacked.then(|| marks.last.replace(result.clone())).flatten()
    });
    before.map_or(Ok(()), |before| before.eval())
}

fn count_to(limit: usize, product: &Array, nbytes: usize) -> Result<()> {
    let before = MARKS.with_borrow_mut(|marks| {
        marks.nbytes += nbytes;
        if marks.nbytes < limit {
            return Ok::<_, mlx::Error>(None);
        }
        marks.nbytes = 0;
        // A sum of its own: a view would keep all of the product.
        let first = vec![0; product.ndim()];
        let ones = vec![1; product.ndim()];
        let mark = product.slice(&first, &ones, &ones)?.add_scalar(0.0)?;
        async_eval(&[&mark])?;
        Ok(marks.last.replace(mark))
    })?;
    before.map_or(Ok(()), |before| before.eval())
}

#[cfg(test)]
mod tests {
    use mlx::{
        Dtype,
        device::{self, DeviceKind},
    };

    use super::*;

    #[test]
    fn work_is_handed_over_at_marks_only() {
        device::set_default(DeviceKind::Cpu).unwrap();
        let products: Vec<Array> = (0..7)
            .map(|i| Array::full(&[4, 4], i as f32, Dtype::Float32).unwrap().square().unwrap())
            .collect();
        let mut computed = Vec::new();
        for product in &products {
            count_to(100, product, 50).unwrap();
            computed.push(products.iter().filter(|product| product.is_computed()).count());
        }
        // Every second one is a mark; what comes before it is up to its graph.
        assert_eq!(computed, [0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(products[3].to_vec::<f32>().unwrap(), [9.0; 16]);
    }

    #[test]
    fn the_end_of_a_step_is_a_mark() {
        device::set_default(DeviceKind::Cpu).unwrap();
        let product = |i| Array::full(&[4, 4], i as f32, Dtype::Float32).unwrap().square().unwrap();
        let arrays: Vec<Array> = (0..6).map(product).collect();
        let [mark, tail, result, next, next_mark, other] = arrays.try_into().unwrap();
        count_to(100, &mark, 100).unwrap();
        count_to(100, &tail, 50).unwrap();
        end_step(&result).unwrap();
        // Counts from the end of the step, not from the last mark, and waits for it.
        count_to(100, &next, 50).unwrap();
        assert!(!next.is_computed() && !result.is_computed());
        count_to(100, &next_mark, 50).unwrap();
        assert!(next_mark.is_computed() && result.is_computed());
        // A step that unpacks nothing leaves the marks alone.
        end_step(&other).unwrap();
        count_to(100, &next, 100).unwrap();
        assert!(!other.is_computed());
    }
}
