//! `convert`: a checkpoint becomes a folder in the MLX format.
//!
//! The flags are those of `mlx_lm.convert`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use engine::{
    Bytes, ConvertOptions, DeviceChoice, DtypeChoice, LoadConfig, MixedRecipe, QuantSpec,
    Quantization,
};

use crate::{logging, progress::progress};

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A folder, or the id of a model on the hub.
    #[arg(long = "hf-path", visible_aliases = ["model", "model-path"], value_name = "MODEL")]
    model: String,

    /// The folder to write, which must not exist.
    #[arg(long, default_value = "mlx_model", value_name = "FOLDER")]
    mlx_path: PathBuf,

    /// Pack the matrices.
    #[arg(short, long, conflicts_with = "dequantize")]
    quantize: bool,

    /// Elements that share a scale: 32, 64 or 128 for affine packing; by mode otherwise.
    #[arg(long, requires = "quantize", value_name = "ELEMENTS")]
    q_group_size: Option<usize>,

    /// Bits of an element: 2, 3, 4, 5, 6 or 8 for affine packing; by mode otherwise.
    #[arg(long, requires = "quantize", value_name = "BITS")]
    q_bits: Option<usize>,

    /// How elements are packed: affine, mxfp4, mxfp8 or nvfp4.
    #[arg(long, default_value = "affine", requires = "quantize", value_name = "MODE")]
    q_mode: String,

    /// More bits for some matrices: mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6.
    #[arg(long, requires = "quantize", value_name = "RECIPE")]
    quant_predicate: Option<MixedRecipe>,

    /// Unpack packed matrices.
    #[arg(short, long)]
    dequantize: bool,

    /// Element type of what is not packed: float16, bfloat16, float32; auto: the model's.
    #[arg(long, default_value = "auto", value_name = "DTYPE")]
    dtype: DtypeChoice,

    /// Where to compute: mlx (the best there is), metal, cuda, cpu.
    #[arg(long, default_value = "mlx")]
    device: DeviceChoice,

    /// Branch, tag or commit of a model on the hub.
    #[arg(long)]
    revision: Option<String>,

    /// Where a model of the hub is kept.
    #[arg(long, value_name = "FOLDER")]
    download_dir: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

pub(crate) fn run(args: &ConvertArgs) -> Result<ExitCode> {
    logging::init(&args.log_level)?;
    let options = ConvertOptions {
        model_path: args.model.clone(),
        load: LoadConfig {
            revision: args.revision.clone(),
            download_dir: args.download_dir.clone(),
            quantization: args.packing()?.map(Quantization::Pack),
            ..LoadConfig::default()
        },
        recipe: args.quant_predicate,
        dequantize: args.dequantize,
        dtype: match args.dtype {
            DtypeChoice::Auto => None,
            DtypeChoice::Fixed(dtype) => Some(dtype),
        },
        device: args.device,
        target: args.mlx_path.clone(),
    };
    let written = engine::convert(&options, progress().as_ref())?;
    tracing::info!(
        "wrote {}: {} in {} file(s), {:.3} bits per weight",
        args.mlx_path.display(),
        Bytes(written.total_bytes),
        written.num_shards,
        written.bits_per_weight(),
    );
    Ok(ExitCode::SUCCESS)
}

impl ConvertArgs {
    fn packing(&self) -> Result<Option<QuantSpec>> {
        if !self.quantize {
            return Ok(None);
        }
        let spec = QuantSpec::new(&self.q_mode, self.q_group_size, self.q_bits);
        spec.map(Some).with_context(|| format!("--q-mode {}", self.q_mode))
    }
}
