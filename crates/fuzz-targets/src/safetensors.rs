//! Model folders of strangers, up to the tensors' bytes. Two bytes tell the length of an index
//! (none: one shard without), two more that of the config; the rest is the shard.

use std::{fs, path::PathBuf, sync::LazyLock};

use model_loader::{LoaderOptions, ModelSource, Quiet, load};
use nn::{LoadOptions, Unpack};

use crate::{folder, head};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(folder);

const CONFIG: &[u8] = br#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}"#;

/// Runs one input.
pub fn run(data: &[u8]) {
    let ([a, b, c, d], rest) = head(data);
    let (index, rest) = cut(rest, u16::from_le_bytes([a, b]));
    let (config, shard) = cut(rest, u16::from_le_bytes([c, d]));
    put("model.safetensors.index.json", index);
    put("config.json", if config.is_empty() { CONFIG } else { config });
    put("model.safetensors", shard);
    let weights = LoadOptions { compute_dtype: mlx::Dtype::Float32, unpack: Unpack::Never };
    let source = ModelSource::Folder(FOLDER.clone());
    let _ = load(&source, &LoaderOptions::new(weights), &Quiet);
}

fn cut(data: &[u8], len: u16) -> (&[u8], &[u8]) {
    data.split_at(usize::from(len).min(data.len()))
}

/// Writes a file; none if it would be empty.
fn put(name: &str, bytes: &[u8]) {
    let path = FOLDER.join(name);
    match bytes {
        [] => drop(fs::remove_file(path)),
        bytes => fs::write(path, bytes).expect("room for a file"),
    }
}
