//! Devices. The default device belongs to the process, its streams to threads.

use std::collections::BTreeMap;

use mlx_sys::{
    mlxs_cuda_available, mlxs_default_device_is_gpu, mlxs_device_info, mlxs_metal_available,
    mlxs_set_default_device, mlxs_synchronize,
};

use crate::{
    Result,
    error::check,
    handle::{Map, Value},
};

/// Kinds of device that MLX knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The host.
    Cpu,
    /// Metal or CUDA, as the library was built for.
    Gpu,
}

/// Where operations run from now on.
///
/// # Errors
/// The library has no such device here.
pub fn set_default(kind: DeviceKind) -> Result<()> {
    // SAFETY: takes a plain value.
    check("set_default", unsafe { mlxs_set_default_device(kind == DeviceKind::Gpu) })
}

/// Where operations run.
///
/// # Errors
/// MLX cannot say.
pub fn default() -> Result<DeviceKind> {
    let mut is_gpu = false;
    // SAFETY: `is_gpu` is writable.
    check("default", unsafe { mlxs_default_device_is_gpu(&raw mut is_gpu) })?;
    Ok(if is_gpu { DeviceKind::Gpu } else { DeviceKind::Cpu })
}

/// Whether the library drives an Apple GPU here.
pub fn metal_available() -> bool {
    // SAFETY: takes nothing.
    unsafe { mlxs_metal_available() }
}

/// Whether the library drives an NVIDIA GPU here.
pub fn cuda_available() -> bool {
    // SAFETY: takes nothing.
    unsafe { mlxs_cuda_available() }
}

/// What MLX knows about the default device, numbers in decimal: `device_name`,
/// `architecture`, `memory_size` and others, as the backend has them. Empty if
/// it knows nothing.
pub fn device_info() -> BTreeMap<String, String> {
    const OP: &str = "device_info";
    let mut raw = std::ptr::null_mut();
    // SAFETY: `raw` is writable.
    let entries = check(OP, unsafe { mlxs_device_info(&raw mut raw) })
        .and_then(|()| Map::from_raw(OP, raw)?.entries(OP))
        .unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::Text(text) => Some((name, text)),
            Value::Array(_) | Value::Texts(_) => None,
        })
        .collect()
}

/// Waits until everything that this thread started is done.
///
/// # Errors
/// A computation failed.
pub fn synchronize() -> Result<()> {
    // SAFETY: takes nothing.
    check("synchronize", unsafe { mlxs_synchronize() })
}

#[cfg(test)]
mod tests {
    use crate::version;

    /// See the shim's `runtime.cpp`; the test process has no setting of its own.
    #[test]
    fn mlx_does_not_give_up_after_so_many_cuda_graphs() {
        version();
        assert_eq!(std::env::var("MLX_ENABLE_CACHE_THRASHING_CHECK").as_deref(), Ok("0"));
    }
}
