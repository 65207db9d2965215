//! From a checkpoint to a folder in the MLX format (`sglang-mlx convert`).
//!
//! The model itself is loaded, with somebody listening: whatever it takes is what the
//! folder holds, so there is no second list of a family's tensors.
//!
//! Upstream: `mlx_lm/convert.py`.

use std::{path::PathBuf, rc::Rc};

use mlx::{Dtype, quantized::QuantMode};
use model_loader::{LoadedModel, MlxFolder, Progress, Written};
use models::MixedRecipe;
use nn::{LoadOptions, QuantizeOnLoad, Unpack};
use serde_json::Value;

use crate::{
    DeviceChoice, EngineError, LoadConfig, Platform, loading::open, quantization::Quantization,
};

/// What to convert, and to what.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// A folder, a GGUF file or a hub id.
    pub model_path: String,
    /// How it is opened; `load.quantization` packs it.
    pub load: LoadConfig,
    /// More bits for the matrices that need them most.
    pub recipe: Option<MixedRecipe>,
    /// Packed matrices are written dense.
    pub dequantize: bool,
    /// Of everything that is not packed, and of scales; `None`: the model's own.
    pub dtype: Option<Dtype>,
    /// Where packing is computed.
    pub device: DeviceChoice,
    /// The folder, which must not exist.
    pub target: PathBuf,
}

/// Converts a model.
///
/// # Errors
/// As loading; the model is packed already; a file cannot be written.
pub fn convert(options: &ConvertOptions, progress: &dyn Progress) -> Result<Written, EngineError> {
    mlx::check_version()?;
    Platform::select(options.device)?;
    let mut opened = open_in(options, options.dtype.unwrap_or(Dtype::Bfloat16), progress)?;
    let dtype = options.dtype.or(opened.config.dtype()).unwrap_or(Dtype::Float32);
    if options.dtype.is_none() && dtype != Dtype::Bfloat16 {
        opened = open_in(options, dtype, progress)?;
    }
    if opened.path.is_file() {
        return Err(EngineError::ConvertFile { path: opened.path });
    }
    let folder = MlxFolder::create(&options.target, options.dequantize)?;
    opened.weights.set_sink(folder.sink());
    let spec = options.load.quantization.and_then(Quantization::spec);
    let how = options.load.quantization.map(|asked| asked.on_load(&opened)).transpose()?.flatten();
    if let Some(how) = how {
        let choose = match options.recipe {
            Some(recipe) if how.spec.mode != QuantMode::Affine => {
                return Err(EngineError::Recipe { recipe, mode: how.spec.mode });
            }
            Some(recipe) => {
                let layers = opened.config.get("num_hidden_layers").and_then(Value::as_u64);
                Rc::new(recipe.rule(layers.unwrap_or(0) as usize, how.spec))
            }
            None => how.choose,
        };
        opened.weights.quantize_on_load(QuantizeOnLoad { dtype: Some(dtype), choose, ..how });
    }
    tracing::info!("converting {} as {dtype:?}", opened.path.display());
    models::load(&opened.config, &opened.weights)?;
    let default = spec.or(opened.config.quant().default_spec());
    Ok(folder.finish(opened.config.raw(), default, &opened.path)?)
}

fn open_in(
    options: &ConvertOptions,
    compute_dtype: Dtype,
    progress: &dyn Progress,
) -> Result<LoadedModel, EngineError> {
    let weights = LoadOptions { compute_dtype, unpack: Unpack::Never };
    open(&options.model_path, &options.load, weights, 0, progress)
}
