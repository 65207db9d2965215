//! Which processor does the work.

use std::collections::BTreeMap;

use crate::{
    error::{Result, check},
    map::Map,
};

/// MLX's two kinds of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// Metal or CUDA.
    Gpu,
}

/// Sets the device of all later operations on this thread.
///
/// # Errors
/// If there is no such device.
pub fn set_default(kind: DeviceKind) -> Result<()> {
    // SAFETY: plain value.
    check("set_default", unsafe { mlx_sys::smlx_set_default_device(kind == DeviceKind::Gpu) })
}

/// The device that operations run on.
///
/// # Errors
/// What MLX says.
pub fn default() -> Result<DeviceKind> {
    let mut gpu = false;
    // SAFETY: a valid place for the answer.
    check("default", unsafe { mlx_sys::smlx_default_device_is_gpu(&mut gpu) })?;
    Ok(if gpu { DeviceKind::Gpu } else { DeviceKind::Cpu })
}

fn available(metal: bool) -> bool {
    let mut out = false;
    // SAFETY: a valid place for the answer.
    let status = unsafe { mlx_sys::smlx_backend_available(metal, &mut out) };
    check("available", status).is_ok() && out
}

/// True on a Mac with the Metal build.
pub fn metal_available() -> bool {
    available(true)
}

/// True with the CUDA build and a GPU.
pub fn cuda_available() -> bool {
    available(false)
}

/// What MLX knows of the GPU (`device_name`, `memory_size`, ...); empty without
/// one.
///
/// # Errors
/// What the driver says.
pub fn device_info() -> Result<BTreeMap<String, String>> {
    // SAFETY: a valid place for the map.
    let map = Map::build("device_info", |out| unsafe { mlx_sys::smlx_gpu_info(out) })?;
    Ok(map.texts())
}
