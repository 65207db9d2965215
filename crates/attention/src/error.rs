//! What can go wrong before the first step; a running step only fails in MLX.

use kernels::KvDtype;

/// An attention set-up that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttentionError {
    /// `--attention-backend` names nothing known.
    #[error("unknown attention backend {name:?} (known: {known})")]
    UnknownBackend { name: String, known: String },

    /// The backend exists and cannot run this model.
    #[error("attention backend {name:?} does not support this model")]
    Unsupported { name: &'static str },

    /// Prefill and decode are to use backends that cannot share a pool here.
    #[error(
        "prefill by {prefill:?} and decode by {decode:?} cannot share a K/V pool on a GPU: use one \
         attention backend for both"
    )]
    Mixed { prefill: &'static str, decode: &'static str },

    /// The backend exists and reads no packed rows.
    #[error("attention backend {name:?} does not read a K/V cache of {kv_dtype} (known: {known})")]
    PackedCache { name: &'static str, kv_dtype: KvDtype, known: String },

    /// Latents are kept as they are.
    #[error("latent attention (MLA) keeps no K/V cache of {kv_dtype}: use --kv-cache-dtype auto")]
    PackedLatents { kv_dtype: KvDtype },

    /// One head of one layer is larger than the device's largest buffer.
    #[error(
        "a K/V pool of {num_slots} slots needs buffers of {bytes} bytes, the device allows {limit}"
    )]
    BufferTooLarge { num_slots: usize, bytes: usize, limit: usize },

    /// The states of one layer are larger than the device's largest buffer.
    #[error(
        "{num_states} states of recurrent layers need buffers of {bytes} bytes, the device allows \
         {limit}: lower --max-running-requests"
    )]
    StatesTooLarge { num_states: usize, bytes: usize, limit: usize },

    /// Allocation failed.
    #[error("the K/V pool cannot be allocated")]
    Mlx(#[from] mlx::Error),
}
