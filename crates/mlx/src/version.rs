//! The pinned version, and the library that was really loaded.

use std::ffi::CStr;

use crate::error::{Error, Result};

/// The MLX this program is built for.
pub const PINNED_VERSION: &str = mlx_sys::PINNED_VERSION;

/// Version of the loaded library.
pub fn version() -> String {
    // SAFETY: a static string of the library.
    let text = unsafe { CStr::from_ptr(mlx_sys::smlx_version()) };
    text.to_string_lossy().into_owned()
}

/// Refuses any library but the pinned one: MLX's C++ interface changes even in
/// patch releases, and a mismatch would corrupt memory.
///
/// # Errors
/// If the versions differ; the text says how to mend it.
pub fn check_version() -> Result<()> {
    check_versions(&version(), library_path().as_deref())
}

fn check_versions(loaded: &str, path: Option<&str>) -> Result<()> {
    if loaded == PINNED_VERSION {
        return Ok(());
    }
    let place = path.unwrap_or("an unknown place");
    Err(Error::new(
        "check_version",
        format!(
            "this program needs MLX {PINNED_VERSION}, but {place} holds {loaded}; run \
             `make setup`, and see that no LD_LIBRARY_PATH or DYLD_LIBRARY_PATH names another MLX"
        ),
    ))
}

/// Where the loaded library lies, as far as the system tells.
fn library_path() -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libmlx.so"))?;
    line.find('/').map(|start| line[start..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_library_is_the_pinned_one() {
        assert_eq!(version(), PINNED_VERSION);
        assert_eq!(check_version(), Ok(()));
    }

    #[test]
    fn a_mismatch_names_versions_place_and_cure() {
        let error = check_versions("0.1.2", Some("/opt/mlx/libmlx.so")).unwrap_err().to_string();
        for part in ["0.1.2", PINNED_VERSION, "/opt/mlx/libmlx.so", "make setup"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
