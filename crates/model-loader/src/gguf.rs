//! GGUF files: config, weights and tokenizer from one file.
//!
//! Quantized tensors are loaded without requantizing where their blocks are MLX's affine
//! quantization with other bytes (see `blocks`); the others are decoded, see `decoded`.
//!
//! Upstream: `GGUFModelLoader` in `sglang/srt/model_loader/loader.py`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
};

use mlx::quantized::QuantMode;
use nn::{LoadOptions, QuantChoice, QuantSpec, QuantizeOnLoad, WeightStore};
use serde_json::{Map, Value};
use tokenizer::GgufVocab;

use crate::{FileProblem, LoadError, tensor_file::TensorFile};

pub(crate) mod architecture;
mod blocks;
mod decoded;
mod metadata;
mod names;
mod reader;
mod rope;
mod tensors;
#[cfg(test)]
mod tests;
mod vocab;

use architecture::{Architecture, ConfigProblem, GgufModelFile};
use metadata::Metadata;
use reader::GgufHeader;

/// A GGUF file, its weights not read yet.
pub(crate) struct GgufModel {
    /// The config.json it amounts to.
    pub(crate) config: Map<String, Value>,
    pub(crate) store: WeightStore,
    pub(crate) vocab: GgufVocab,
    /// How decoded matrices are packed anew; `None` if there are none.
    pub(crate) repack: Option<QuantizeOnLoad>,
}

/// Of 256 levels in the range of 32 neighbours: next to blocks of 6 bits and less, hardly
/// an error.
const REPACKED: QuantSpec = QuantSpec { group_size: 32, bits: 8, mode: QuantMode::Affine };

/// Reads everything but the tensors' bytes.
pub(crate) fn open(path: &Path, options: LoadOptions) -> Result<GgufModel, LoadError> {
    let wrong = |problem| LoadError::File { path: path.to_owned(), problem };
    let file = TensorFile::open(path)?;
    let header = GgufHeader::read(file.file(), file.len()).map_err(wrong)?;
    let tensors = tensors::directory(&header, &file).map_err(wrong)?;
    let mut metadata = Metadata::new(header.metadata);
    const ARCHITECTURE: &str = "general.architecture";
    let name = metadata.optional_str(ARCHITECTURE).map_err(wrong)?;
    let name = name.ok_or_else(|| wrong(FileProblem::metadata(ARCHITECTURE, "is missing")))?;
    let architecture = Architecture::find(name)
        .ok_or_else(|| wrong(FileProblem::Architecture(name.to_owned())))?;
    let config = GgufModelFile::new(architecture, &metadata, &tensors).config();
    let (config, heads) = config.map_err(|problem| match problem {
        ConfigProblem::File(problem) => wrong(problem),
        ConfigProblem::Load(error) => error,
    })?;
    let mut store = WeightStore::new(options);
    let decoded = names::insert_tensors(architecture, tensors, &heads, &mut store)?;
    let vocab = vocab::vocab(&mut metadata).map_err(wrong)?;
    Ok(GgufModel { config, store, vocab, repack: repack(decoded) })
}

/// Packs the modules of `decoded`, whose kinds of blocks are named, and no others.
fn repack(decoded: BTreeMap<String, &'static str>) -> Option<QuantizeOnLoad> {
    if decoded.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = decoded.values().copied().collect();
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
    tracing::info!("{} matrices in {kinds} are decoded and packed as {REPACKED}", decoded.len());
    let choose = move |path: &str| match decoded.contains_key(path) {
        true => QuantChoice::Default,
        false => QuantChoice::Dense,
    };
    Some(QuantizeOnLoad { spec: REPACKED, dtype: None, choose: Rc::new(choose) })
}
