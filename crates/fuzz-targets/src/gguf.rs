//! GGUF files of strangers, up to the tensors' bytes: header, metadata, directory, config, and
//! the vocabulary in them.

use std::{fs, path::PathBuf, sync::LazyLock};

use model_loader::{LoaderOptions, ModelSource, Quiet, TokenizerSource, load};
use nn::{LoadOptions, Unpack};
use tokenizer::Tokenizer;

use crate::folder;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| folder().join("model.gguf"));

/// Runs one input.
pub fn run(data: &[u8]) {
    fs::write(&*FILE, data).expect("room for a file");
    let weights = LoadOptions { compute_dtype: mlx::Dtype::Float32, unpack: Unpack::Never };
    let source = ModelSource::Gguf(FILE.clone());
    let Ok(model) = load(&source, &LoaderOptions::new(weights), &Quiet) else { return };
    let TokenizerSource::Gguf(vocab) = &model.tokenizer else { panic!("a vocabulary of its own") };
    if let Ok(tokenizer) = Tokenizer::from_gguf(vocab)
        && let Ok(ids) = tokenizer.encode("Hello, 世界", true)
    {
        tokenizer.decode(&ids, false);
    }
}
