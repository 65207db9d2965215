//! Which device layers run on, and so whose kernels they use.

use std::sync::OnceLock;

use mlx::{
    Result,
    device::{self, DeviceKind},
};

/// Asked for each call: a call of MLX is far dearer.
pub(crate) fn on_cpu() -> Result<bool> {
    Ok(device::default()? == DeviceKind::Cpu)
}

/// Whether MLX has its CUDA backend here, so that its GPU is one of those.
pub(crate) fn on_cuda() -> bool {
    static HAS_CUDA: OnceLock<bool> = OnceLock::new();
    *HAS_CUDA.get_or_init(device::cuda_available)
        && device::default().is_ok_and(|device| device == DeviceKind::Gpu)
}
