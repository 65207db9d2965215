//! Tells dependents where the MLX library is: `DEP_MLX_SAFE_LIB_DIR`.
//!
//! Cargo hands build metadata to direct dependents only, and programs depend
//! on this crate rather than on `mlx-sys`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Unset where `mlx-sys` already failed with a message of its own.
    if let Ok(lib) = std::env::var("DEP_MLX_LIB_DIR") {
        println!("cargo::metadata=LIB_DIR={lib}");
    }
}
