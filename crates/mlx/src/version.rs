//! Which MLX this is, and whether it is the one we were built for.

use std::ffi::CStr;

use crate::{Error, Result};

/// The only MLX version that this crate works with.
pub const PINNED_VERSION: &str = mlx_sys::PINNED_VERSION;

/// The version of the library that was loaded.
pub fn version() -> String {
    // SAFETY: a static text with a terminator.
    let version = unsafe { CStr::from_ptr(mlx_sys::mlxs_version()) };
    version.to_string_lossy().into_owned()
}

/// Refuses a library of another version than the one of the headers: the C++
/// API changes even in patch releases. To be called before anything else.
///
/// # Errors
/// Names both versions, the library and the command that mends it.
pub fn check_version() -> Result<()> {
    check(&version())
}

fn check(loaded: &str) -> Result<()> {
    if loaded == PINNED_VERSION {
        return Ok(());
    }
    Err(Error::new(
        "check_version",
        format!(
            "the loaded library is MLX {loaded}, but this program was built for MLX \
             {PINNED_VERSION} in {}; to mend it, run: make setup",
            mlx_sys::LIB_DIR
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_library_fits() {
        assert_eq!(version(), PINNED_VERSION);
        assert_eq!(check_version(), Ok(()));
    }

    #[test]
    fn another_version_is_refused_with_the_way_out() {
        let message = check("0.31.0").unwrap_err().message;
        for part in ["0.31.0", PINNED_VERSION, mlx_sys::LIB_DIR, "make setup"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
