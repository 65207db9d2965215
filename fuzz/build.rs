//! Where the targets that link MLX look for it when they run: beside themselves, in the
//! repository's set-up, and where it was found.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(folder) = std::env::var("DEP_MLX_SAFE_LIB_DIR") else { return };
    for folder in ["$ORIGIN", "$ORIGIN/../../../../third_party/mlx/lib", &folder] {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{folder}");
    }
}
