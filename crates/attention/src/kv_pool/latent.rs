//! One vector of every token: the cache of latent attention.

use kernels::KvDtype;
use mlx::{Array, Result};

use super::{
    KvPoolConfig, SlotIndex,
    full::{gather_from, put},
};
use crate::AttentionError;

/// Latents with their rotated parts behind them, `[num_slots, 1, head_dim]`.
pub struct LatentCache {
    rows: [Array; 1],
    value_dim: usize,
}

impl LatentCache {
    pub(super) fn new(
        head_dim: usize,
        value_dim: usize,
        config: &KvPoolConfig,
    ) -> Result<Self, AttentionError> {
        let num_slots = config.num_pages * config.page_size;
        let KvDtype::Plain(dtype) = config.dtype else {
            return Err(AttentionError::PackedLatents { kv_dtype: config.dtype });
        };
        let bytes = num_slots * head_dim * dtype.size_in_bytes();
        if let Some(limit) = config.max_buffer_bytes.filter(|&limit| bytes > limit) {
            return Err(AttentionError::BufferTooLarge { num_slots, bytes, limit });
        }
        let rows = Array::zeros(&[num_slots, 1, head_dim], dtype)?;
        rows.eval()?;
        Ok(Self { rows: [rows], value_dim })
    }

    pub(super) fn nbytes(&self) -> usize {
        self.rows[0].nbytes()
    }

    pub(super) fn write(&mut self, slots: &Array, k: &Array) -> Result<()> {
        put(&mut self.rows, 1, slots, k)
    }

    /// Keys `[num_reqs, 1, num_keys, head_dim]` of the tokens in some slots, and as
    /// values a view of their first elements.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn gather(&self, index: &SlotIndex) -> Result<(Array, Array)> {
        let k = gather_from(&self.rows, index, None)?;
        let v = value_of(&k, self.value_dim)?;
        Ok((k, v))
    }
}

/// The first `value_dim` elements of keys `[.., .., .., head_dim]`.
fn value_of(k: &Array, value_dim: usize) -> Result<Array> {
    let mut stops: Vec<i32> = k.shape().iter().map(|&dim| dim as i32).collect();
    stops[3] = value_dim as i32;
    k.slice(&[0; 4], &stops, &[1; 4])
}
