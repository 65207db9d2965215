//! Which slots to read, as index arrays that all layers of a step share.

use std::cell::RefCell;

use mlx::{Array, Dtype, Result};

/// Slots of several requests, padded to one length.
pub struct SlotIndex {
    /// `[num_reqs, 1, num_keys]` int32.
    slots: Array,
    /// By number of heads; most models need one entry.
    rows: RefCell<Vec<(usize, Array)>>,
}

impl SlotIndex {
    /// `slots` is `[num_reqs, num_keys]`, flat.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn new(slots: &[i32], num_reqs: usize, num_keys: usize) -> Result<Self> {
        let slots = Array::from_slice(slots, &[num_reqs, 1, num_keys])?;
        Ok(Self { slots, rows: RefCell::default() })
    }

    /// Rows of a cache seen as `[num_slots * heads, head_dim]`:
    /// `[num_reqs, heads, num_keys]` int32.
    pub(super) fn rows(&self, heads: usize) -> Result<Array> {
        let mut known = self.rows.borrow_mut();
        if let Some((_, rows)) = known.iter().find(|(of, _)| *of == heads) {
            return Ok(rows.clone());
        }
        let stride = Array::scalar(heads as i32)?;
        let head = Array::arange(0.0, heads as f64, 1.0, Dtype::Int32)?.reshape(&[1, heads, 1])?;
        let rows = self.slots.multiply(&stride)?.add(&head)?;
        known.push((heads, rows.clone()));
        Ok(rows)
    }
}
