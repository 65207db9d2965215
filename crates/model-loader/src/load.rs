//! One entry for every kind of model.
//!
//! Upstream: `get_model_loader` in `sglang/srt/model_loader/loader.py`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use nn::{GenerationConfig, HfConfig, LoadOptions, WeightStore, Weights};
use tokenizer::GgufVocab;
use types::Pooling;

use crate::{
    LoadError, ModelSource, Progress, folder, gguf,
    hub::{Hub, HubOptions},
    imports::{self, Import},
    sentence_transformers,
};

#[cfg(test)]
mod tests;

/// `--load-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadFormat {
    /// What the model is.
    #[default]
    Auto,
    /// A folder of safetensors; anything else is an error.
    Safetensors,
    /// A GGUF file; anything else is an error.
    Gguf,
    /// Random weights in the shapes that config.json implies.
    Dummy,
}

/// How to load.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// How weights become arrays.
    pub weights: LoadOptions,
    /// `--load-format`.
    pub format: LoadFormat,
    /// `--json-model-override-args`, a JSON object; `{}` for none.
    pub override_args: String,
    /// Where models of the hub come from and go to.
    pub hub: HubOptions,
    /// Seed of dummy weights.
    pub dummy_seed: u64,
    /// Refuses a config before any weights are fetched or opened.
    pub check_config: fn(&HfConfig) -> Result<(), nn::LoadError>,
}

impl LoaderOptions {
    /// Everything as the environment says and the model wants.
    pub fn new(weights: LoadOptions) -> Self {
        Self {
            weights,
            format: LoadFormat::Auto,
            override_args: "{}".to_owned(),
            hub: HubOptions::from_env(),
            dummy_seed: 0,
            check_config: |_| Ok(()),
        }
    }
}

/// A model, ready for `models::load`: nothing of the weights is read yet.
pub struct LoadedModel {
    /// config.json, or what a GGUF file says in its place.
    pub config: HfConfig,
    /// Every tensor, strict about being used.
    pub weights: Weights,
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerSource,
    /// Sampling defaults and end-of-sequence ids; empty without the file.
    pub generation_config: GenerationConfig,
    /// How the folder's embeddings are pooled, if its `modules.json` makes it an embedding
    /// model.
    pub pooling: Option<Pooling>,
    /// The folder or file that was read.
    pub path: PathBuf,
    /// `quant_method` of the tool that quantized it, where that was not MLX.
    pub imported_from: Option<&'static str>,
}

impl LoadedModel {
    /// End-of-sequence ids: generation_config.json's, or else config.json's.
    pub fn eos_token_ids(&self) -> &[u32] {
        self.generation_config.eos_token_ids.as_deref().unwrap_or(self.config.eos_token_ids())
    }
}

/// Where a tokenizer comes from.
#[derive(Debug, Clone)]
pub enum TokenizerSource {
    /// A folder with tokenizer.json and its companions.
    Dir(PathBuf),
    /// The vocabulary of a GGUF file.
    Gguf(GgufVocab),
}

/// Opens a model. Downloads it first if it is a hub id.
///
/// # Errors
/// The model is not there, or its files are damaged. Weights that are missing
/// or have the wrong shape show when the model takes them.
pub fn load(
    source: &ModelSource,
    options: &LoaderOptions,
    progress: &dyn Progress,
) -> Result<LoadedModel, LoadError> {
    match source {
        ModelSource::Folder(path) => load_folder(path, options),
        ModelSource::Gguf(path) => load_gguf(path, options),
        ModelSource::Hub { id, revision } => {
            let hub = Hub::new(options.hub.clone());
            // The small files first: most mistakes show in config.json.
            let mut folder = hub.snapshot(id, revision.as_deref(), false, progress)?;
            folder_config(&folder, options)?;
            if options.format != LoadFormat::Dummy {
                let commit = folder.file_name().and_then(|name| name.to_str()).map(str::to_owned);
                folder = hub.snapshot(id, commit.as_deref(), true, progress)?;
            }
            load_folder(&folder, options)
        }
    }
}

fn load_folder(path: &Path, options: &LoaderOptions) -> Result<LoadedModel, LoadError> {
    if options.format == LoadFormat::Gguf {
        return Err(unfit(options.format, path));
    }
    let (config, import) = folder_config(path, options)?;
    let mut store = match options.format {
        LoadFormat::Dummy => {
            WeightStore::dummy(options.weights, config.quant().clone(), options.dummy_seed)
        }
        _ => folder::open(path, options.weights, import.as_ref())?,
    };
    store.set_quant(config.quant().clone());
    let generation = folder::read_optional(&path.join("generation_config.json"))?;
    let generation = generation.map(|text| GenerationConfig::from_json(&text)).transpose()?;
    Ok(LoadedModel {
        config,
        weights: Weights::new(store),
        tokenizer: TokenizerSource::Dir(path.to_owned()),
        generation_config: generation.unwrap_or_default(),
        pooling: sentence_transformers::pooling(path)?,
        path: path.to_owned(),
        imported_from: import.map(|import| import.method()),
    })
}

/// The config as it is after the import of what other tools quantized.
fn folder_config(
    path: &Path,
    options: &LoaderOptions,
) -> Result<(HfConfig, Option<Import>), LoadError> {
    let config = folder::read_optional(&path.join("config.json"))?
        .ok_or_else(|| LoadError::NoConfig { path: path.to_owned(), ggufs: 0 })?;
    let mut config = HfConfig::merged(&config, &options.override_args)?;
    if let Some(quantization) = folder::quantization_config(path, &config)? {
        config.insert("quantization_config".to_owned(), quantization);
    }
    let import = imports::claim(&mut config)?;
    let config = HfConfig::from_map(config)?;
    (options.check_config)(&config)?;
    Ok((config, import))
}

fn load_gguf(path: &Path, options: &LoaderOptions) -> Result<LoadedModel, LoadError> {
    if options.format == LoadFormat::Safetensors {
        return Err(unfit(options.format, path));
    }
    let model = gguf::open(path, options.weights)?;
    let text = serde_json::Value::Object(model.config).to_string();
    let config = HfConfig::with_overrides(&text, &options.override_args)?;
    (options.check_config)(&config)?;
    let store = match options.format {
        LoadFormat::Dummy => {
            WeightStore::dummy(options.weights, config.quant().clone(), options.dummy_seed)
        }
        _ => model.store,
    };
    let weights = Weights::new(store);
    if let Some(repack) = model.repack {
        weights.quantize_on_load(repack);
    }
    Ok(LoadedModel {
        config,
        weights,
        tokenizer: TokenizerSource::Gguf(model.vocab),
        generation_config: GenerationConfig::default(),
        pooling: None,
        path: path.to_owned(),
        imported_from: None,
    })
}

fn unfit(format: LoadFormat, path: &Path) -> LoadError {
    LoadError::Format { format: format.to_string(), path: path.to_owned() }
}

/// A `--load-format` that is not one of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown load format {0:?} (known: auto, safetensors, gguf, dummy)")]
pub struct UnknownLoadFormat(String);

impl FromStr for LoadFormat {
    type Err = UnknownLoadFormat;

    fn from_str(name: &str) -> Result<Self, UnknownLoadFormat> {
        Ok(match name {
            "auto" => Self::Auto,
            "safetensors" => Self::Safetensors,
            "gguf" => Self::Gguf,
            "dummy" => Self::Dummy,
            other => return Err(UnknownLoadFormat(other.to_owned())),
        })
    }
}

impl fmt::Display for LoadFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Dummy => "dummy",
        })
    }
}
