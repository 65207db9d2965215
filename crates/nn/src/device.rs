//! Which device layers run on, and so whose kernels they use.

use mlx::{
    Result,
    device::{self, DeviceKind},
};

/// Asked for each call: a call of MLX is far dearer.
pub(crate) fn on_cpu() -> Result<bool> {
    Ok(device::default()? == DeviceKind::Cpu)
}
