//! K and V of every token: the cache of ordinary attention.

use mlx::{Array, Result};

use super::{KvPoolConfig, SlotIndex};
use crate::{AttentionError, AttentionShape};

/// K and V, `[num_slots, num_kv_heads, row]` each: `head_dim` elements, or the bytes of a
/// packed row ([`kernels::kv_row`]).
///
/// Where that exceeds the device's largest buffer, each is split by heads into
/// as few parts as fit: every part has all slots, so indices stay the same.
pub struct FullCache {
    k: Vec<Array>,
    v: Vec<Array>,
    heads_per_part: usize,
}

impl FullCache {
    pub(super) fn new(
        shape: &AttentionShape,
        config: &KvPoolConfig,
    ) -> Result<Self, AttentionError> {
        let num_slots = config.num_pages * config.page_size;
        let head_bytes = num_slots * config.dtype.row_bytes(shape.head_dim);
        let heads_per_part = match config.max_buffer_bytes {
            None => shape.num_kv_heads,
            Some(limit) if head_bytes > limit => {
                return Err(AttentionError::BufferTooLarge { num_slots, bytes: head_bytes, limit });
            }
            Some(limit) => shape.num_kv_heads.min(limit / head_bytes.max(1)),
        };
        let part_sizes = (0..shape.num_kv_heads)
            .step_by(heads_per_part)
            .map(|first| heads_per_part.min(shape.num_kv_heads - first));
        let parts = || {
            let (row, dtype) = (config.dtype.row_len(shape.head_dim), config.dtype.array_dtype());
            let zeros = |heads| Array::zeros(&[num_slots, heads, row], dtype);
            let parts = part_sizes.clone().map(zeros).collect::<mlx::Result<Vec<_>>>()?;
            // Now, not at the first write: what does not fit must show at start.
            mlx::eval(&parts.iter().collect::<Vec<_>>())?;
            Ok::<_, mlx::Error>(parts)
        };
        Ok(Self { k: parts()?, v: parts()?, heads_per_part })
    }

    pub(super) fn nbytes(&self) -> usize {
        self.k.iter().chain(&self.v).map(Array::nbytes).sum()
    }

    pub(super) fn write(&mut self, slots: &Array, k: &Array, v: &Array) -> Result<()> {
        put(&mut self.k, self.heads_per_part, slots, k)?;
        put(&mut self.v, self.heads_per_part, slots, v)
    }

    /// The pools of K and V, `[num_slots, num_kv_heads, row]`, for a backend
    /// that writes them in place; `None` if the device's buffer limit split them.
    pub fn whole(&self) -> Option<(&Array, &Array)> {
        match (self.k.as_slice(), self.v.as_slice()) {
            ([k], [v]) => Some((k, v)),
            _ => None,
        }
    }

    /// K and V of the tokens in some slots, `[num_reqs, num_kv_heads, num_keys,
    /// head_dim]` each, contiguous: what attention wants, in one copy.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn gather(&self, index: &SlotIndex) -> Result<(Array, Array)> {
        Ok((gather_from(&self.k, index, None)?, gather_from(&self.v, index, None)?))
    }

    /// As [`FullCache::gather`], after `zero`, `[1]` int32, is computed: for pools
    /// that are written in place, where MLX does not see the write.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn gather_after(&self, index: &SlotIndex, zero: &Array) -> Result<(Array, Array)> {
        let zero = Some(zero);
        Ok((gather_from(&self.k, index, zero)?, gather_from(&self.v, index, zero)?))
    }
}

/// `zero` is added to the index, for what it depends on.
pub(super) fn gather_from(
    parts: &[Array],
    index: &SlotIndex,
    zero: Option<&Array>,
) -> Result<Array> {
    let gather = |part: &Array| {
        assert!(part.dtype().is_float(), "packed rows are read by kernels");
        let (num_slots, heads, head_dim) = (part.dim(0), part.dim(1), part.dim(2));
        let rows = match zero {
            Some(zero) => index.rows(heads)?.add(zero)?,
            None => index.rows(heads)?,
        };
        part.reshape(&[num_slots * heads, head_dim])?.take(&rows, 0)
    };
    let parts = parts.iter().map(gather).collect::<Result<Vec<_>>>()?;
    match parts.as_slice() {
        [whole] => Ok(whole.clone()),
        parts => Array::concatenate(&parts.iter().collect::<Vec<_>>(), 1),
    }
}

/// Writes `rows`, split by heads like `parts`.
pub(super) fn put(
    parts: &mut [Array],
    heads_per_part: usize,
    slots: &Array,
    rows: &Array,
) -> Result<()> {
    let [num_tokens, num_heads, head_dim] = [rows.dim(0), rows.dim(1), rows.dim(2)];
    for (index, part) in parts.iter_mut().enumerate() {
        assert!(part.dtype().is_float(), "packed rows are written by kernels");
        let rows = rows.astype(part.dtype())?;
        let first = index * heads_per_part;
        let last = (first + heads_per_part).min(num_heads);
        let rows = if last - first == num_heads {
            rows
        } else {
            rows.slice(
                &[0, first as i32, 0],
                &[num_tokens as i32, last as i32, head_dim as i32],
                &[1, 1, 1],
            )?
        };
        *part = part.put_rows(slots, &rows)?;
    }
    Ok(())
}
