//! Tests of the real binary, over HTTP and on the command line; see `tests/it`.
//!
//! They need what `make setup` fetches and what `cargo build -p cli` builds;
//! `make test` does both. This library holds what the tests share: the model in
//! its three forms, the goldens, and servers.

mod gguf;
mod goldens;
mod model_folder;
mod servers;
mod tiny_hybrid;
mod tiny_windows;

use std::path::{Path, PathBuf};

pub use gguf::{Gguf, GgufTensor};
pub use goldens::{Golden, Goldens};
pub use model_folder::{Weights, model_folder, tiny_config};
pub use servers::{Exclusive, Shared, exclusive, generate, run, sglang_mlx, shared, start};
pub use tiny_hybrid::tiny_hybrid;
pub use tiny_windows::tiny_windows;

/// The default model's file; panics with the command that fetches it.
pub fn smollm2_gguf() -> PathBuf {
    let path = repo_root()
        .join("third_party/models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.is_file(), "{} is missing: run `make setup`", path.display());
    path
}

/// The repository's root.
pub fn repo_root() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("crates/e2e lies two folders below the root")
}
