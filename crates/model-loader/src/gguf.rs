//! GGUF files: config, weights and tokenizer from one file.
//!
//! Quantized tensors are loaded without requantizing: Q4_0, Q4_1 and Q8_0 are
//! MLX's affine quantization with other bytes (see `blocks`).
//!
//! Upstream: `GGUFModelLoader` in `sglang/srt/model_loader/loader.py`.

use std::path::Path;

use nn::{LoadOptions, WeightStore};
use serde_json::{Map, Value};
use tokenizer::GgufVocab;

use crate::{FileProblem, LoadError, tensor_file::TensorFile};

mod blocks;
mod llama;
mod metadata;
mod reader;
mod tensors;
#[cfg(test)]
mod tests;
mod vocab;

use llama::ConfigProblem;
use metadata::Metadata;
use reader::GgufHeader;

/// A GGUF file, its weights not read yet.
pub(crate) struct GgufModel {
    /// The config.json it amounts to.
    pub(crate) config: Map<String, Value>,
    pub(crate) store: WeightStore,
    pub(crate) vocab: GgufVocab,
}

/// Reads everything but the tensors' bytes.
pub(crate) fn open(path: &Path, options: LoadOptions) -> Result<GgufModel, LoadError> {
    let wrong = |problem| LoadError::File { path: path.to_owned(), problem };
    let file = TensorFile::open(path)?;
    let header = GgufHeader::read(file.file(), file.len()).map_err(wrong)?;
    let tensors = tensors::directory(&header, &file).map_err(wrong)?;
    let mut metadata = Metadata::new(header.metadata);
    const ARCHITECTURE: &str = "general.architecture";
    match metadata.optional_str(ARCHITECTURE).map_err(wrong)? {
        Some(llama::ARCHITECTURE) => {}
        Some(other) => return Err(wrong(FileProblem::Architecture(other.to_owned()))),
        None => return Err(wrong(FileProblem::metadata(ARCHITECTURE, "is missing"))),
    }
    let (config, heads) = llama::config(&metadata, &tensors).map_err(|problem| match problem {
        ConfigProblem::File(problem) => wrong(problem),
        ConfigProblem::Load(error) => error,
    })?;
    let mut store = WeightStore::new(options);
    llama::insert_tensors(tensors, &heads, &mut store)?;
    let vocab = vocab::vocab(&mut metadata).map_err(wrong)?;
    Ok(GgufModel { config, store, vocab })
}
