//! Finds the pinned MLX, compiles the shim against its headers, and tells
//! dependents where the library is (`DEP_MLX_LIB_DIR`).

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const VERSION: &str = "0.32.4";
const SHIM: &[&str] = &["array.cpp", "nn_ops.cpp", "ops.cpp", "runtime.cpp"];

fn main() {
    for name in ["MLX_ROOT", "XDG_DATA_HOME", "VIRTUAL_ENV"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=shim");
    let root = find_mlx();
    println!("cargo::rerun-if-changed={}", root.join("include/mlx/version.h").display());

    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").include(root.join("include")).include("shim");
    // The headers warn; only what the shim itself does wrong is of interest.
    build.flag_if_supported("-Wno-unused-parameter").opt_level(2);
    build.files(SHIM.iter().map(|file| format!("shim/{file}")));
    build.compile("mlx_shim");

    let lib_dir = root.join("lib");
    println!("cargo::rustc-link-search=native={}", link_in_out_dir(&root).display());
    println!("cargo::rustc-link-lib=dylib=mlx");
    println!("cargo::metadata=LIB_DIR={}", lib_dir.display());
}

/// `root/lib` by way of a link in `OUT_DIR`: cargo puts library folders below its
/// target folder on the loader's path of everything it runs, so tests of any
/// crate find libmlx without an rpath of their own. A link to the whole folder
/// and not a copy, because libmlx finds its companions relative to itself.
fn link_in_out_dir(root: &Path) -> PathBuf {
    let link = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("mlx");
    if fs::read_link(&link).ok().as_deref() != Some(root) {
        let _ = fs::remove_file(&link); // There may be none.
        std::os::unix::fs::symlink(root, &link).expect("OUT_DIR is writable");
    }
    link.join("lib")
}

/// The folder with `include/` and `lib/` of the pinned version.
fn find_mlx() -> PathBuf {
    let mut tried = Vec::new();
    for root in candidates() {
        match version_of(&root) {
            Some(version) if version == VERSION => return fs::canonicalize(&root).unwrap_or(root),
            Some(version) => tried.push(format!("  {} (version {version})", root.display())),
            None => tried.push(format!("  {}", root.display())),
        }
    }
    eprintln!(
        "\nMLX {VERSION} was not found. Run `make setup` in the repository, or set MLX_ROOT to a \
         folder with its include/ and lib/. Looked in:\n{}\n",
        tried.join("\n")
    );
    std::process::exit(1);
}

fn candidates() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    if let Some(root) = env::var_os("MLX_ROOT") {
        return vec![root.into()]; // Asked for by name: no silent second choice.
    }
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    if let Some(workspace) = manifest.ancestors().nth(2) {
        roots.push(workspace.join("third_party/mlx"));
    }
    let home = env::var_os("HOME").map(PathBuf::from);
    let data = env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".local/share")));
    roots.extend(data.map(|data| data.join("sglang-mlx/mlx")));
    if let Some(venv) = env::var_os("VIRTUAL_ENV") {
        roots.extend(python_packages(Path::new(&venv)));
    }
    roots
}

/// `mlx` packages of an activated virtual environment.
fn python_packages(venv: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(venv.join("lib")) else {
        return Vec::new();
    };
    let pythons = entries.flatten().map(|entry| entry.path().join("site-packages/mlx"));
    pythons.filter(|package| package.is_dir()).collect()
}

/// `a.b.c` from the version macros, if this is an MLX folder.
fn version_of(root: &Path) -> Option<String> {
    let header = fs::read_to_string(root.join("include/mlx/version.h")).ok()?;
    let number = |name: &str| {
        let line = header.lines().find(|line| line.starts_with(&format!("#define {name} ")))?;
        line.split_whitespace().nth(2)
    };
    let (major, minor) = (number("MLX_VERSION_MAJOR")?, number("MLX_VERSION_MINOR")?);
    Some(format!("{major}.{minor}.{}", number("MLX_VERSION_PATCH")?))
}
