//! Where the program looks for the MLX library when it runs: beside itself, where
//! `setup/install.sh` puts it, in `lib` next to its folder (which may have another
//! MLX in it), in the workspace's set-up, and where it was found when this was built.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let macos = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "macos");
    let origin = if macos { "@executable_path" } else { "$ORIGIN" };
    for folder in ["", "/../lib/sglang-mlx/mlx/lib", "/../lib", "/../../third_party/mlx/lib"] {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{origin}{folder}");
    }
    // Absent if the library was not found: `mlx-sys` has said so already.
    if let Ok(folder) = std::env::var("DEP_MLX_SAFE_LIB_DIR") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{folder}");
    }
}
