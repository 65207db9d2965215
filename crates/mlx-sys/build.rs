//! Finds the pinned MLX library and compiles the C++ shim against its headers.
//!
//! Looks in `MLX_ROOT`, `third_party/mlx`, the user's data folder, then in an
//! installed Python package. Only the exact version counts: MLX's C++ API
//! changes even in patch releases.
//!
//! How programs find the library when they run: `cargo test` and `cargo run`
//! put every search path below the target folder into the loader's path, so a
//! link to the library folder in `OUT_DIR` serves the tests of all crates
//! without a build script in each. A program meant to run by itself needs an
//! rpath: the `mlx` crate hands its direct dependents `DEP_MLX_SAFE_LIB_DIR`,
//! see `crates/cli/build.rs`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const PINNED: [u32; 3] = [0, 32, 4];
const SHIM: &[&str] = &[
    "allocator.cpp",
    "arrays.cpp",
    "cuda_graph.cpp",
    "elementwise.cpp",
    "fast.cpp",
    "io.cpp",
    "kernels.cpp",
    "quantized.cpp",
    "reduce.cpp",
    "runtime.cpp",
    "shape.cpp",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MLX_ROOT");
    let root = match find() {
        Ok(root) => root,
        Err(message) => {
            println!("cargo::error={}", message.replace('\n', " "));
            return;
        }
    };
    let [major, minor, patch] = PINNED;
    println!("cargo::rustc-env=MLX_PINNED_VERSION={major}.{minor}.{patch}");
    println!("cargo::rustc-env=MLX_LIB_DIR={}", root.lib.display());
    println!("cargo::rerun-if-changed={}", root.include.join("mlx/version.h").display());
    compile_shim(&root.include);
    link(&root.lib);
}

struct Root {
    include: PathBuf,
    lib: PathBuf,
}

fn library_name() -> &'static str {
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "libmlx.dylib",
        _ => "libmlx.so",
    }
}

/// The first place that has the pinned version.
fn find() -> Result<Root, String> {
    let [major, minor, patch] = PINNED;
    let mut seen = Vec::new();
    for (place, path) in places() {
        let include = path.join("include");
        // So that a library put there later is noticed.
        println!("cargo::rerun-if-changed={}", include.join("mlx/version.h").display());
        let lib = path.join("lib");
        let header = fs::read_to_string(include.join("mlx/version.h")).unwrap_or_default();
        let Some(version) = header_version(&header) else {
            seen.push(format!("{place} ({}): no MLX", path.display()));
            continue;
        };
        if version != PINNED {
            let [major, minor, patch] = version;
            seen.push(format!("{place} ({}): MLX {major}.{minor}.{patch}", path.display()));
        } else if !lib.join(library_name()).exists() {
            seen.push(format!("{place} ({}): no lib/{}", path.display(), library_name()));
        } else {
            // Links stay: `make setup` may point them at another backend later.
            let lib = std::path::absolute(&lib).unwrap_or(lib);
            return Ok(Root { include, lib });
        }
    }
    Err(format!(
        "MLX {major}.{minor}.{patch} was not found. To fetch it, run: make setup\n(looked in: {})",
        seen.join("; ")
    ))
}

fn places() -> Vec<(&'static str, PathBuf)> {
    if let Some(root) = env::var_os("MLX_ROOT") {
        // Asked for by name: nothing else will do.
        return vec![("MLX_ROOT", PathBuf::from(root))];
    }
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let mut places = Vec::new();
    if let Some(workspace) = manifest.ancestors().nth(2) {
        places.push(("third_party", workspace.join("third_party/mlx")));
    }
    let data = match (env::var_os("XDG_DATA_HOME"), env::var_os("HOME")) {
        (Some(data), _) => Some(PathBuf::from(data)),
        (None, Some(home)) => Some(PathBuf::from(home).join(".local/share")),
        (None, None) => None,
    };
    places.extend(data.map(|data| ("user data", data.join("sglang-mlx/mlx"))));
    if !places.iter().any(|(_, path)| path.join("include/mlx/version.h").exists()) {
        places.extend(python_package().map(|path| ("Python package", path)));
    }
    places
}

fn python_package() -> Option<PathBuf> {
    const FIND: &str = "import importlib.util as u; \
        print(list(u.find_spec('mlx').submodule_search_locations)[0])";
    let output = Command::new("python3").args(["-c", FIND]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = Path::new(path.trim());
    output.status.success().then(|| path.to_owned())
}

fn header_version(header: &str) -> Option<[u32; 3]> {
    let part = |name: &str| {
        let prefix = format!("#define MLX_VERSION_{name} ");
        header.lines().find_map(|line| line.strip_prefix(&prefix)?.trim().parse().ok())
    };
    Some([part("MAJOR")?, part("MINOR")?, part("PATCH")?])
}

fn compile_shim(include: &Path) {
    println!("cargo::rerun-if-changed=shim");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        // The shim only forwards calls; templates make it slow to build optimised.
        .opt_level(1)
        .debug(false)
        .flag("-isystem")
        .flag(include)
        .warnings(true)
        .flag_if_supported("-Wno-unused-parameter")
        .files(SHIM.iter().map(|file| Path::new("shim").join(file)))
        .compile("mlx_shim");
}

fn link(lib: &Path) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("lib");
    let _ = fs::remove_file(&out);
    std::os::unix::fs::symlink(lib, &out).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=dylib=mlx");
    println!("cargo::metadata=LIB_DIR={}", lib.display());
}
