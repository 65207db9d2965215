//! Which model, and how it is read.

use std::path::PathBuf;

use clap::Args;
use engine::DtypeChoice;
use serde::Serialize;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A folder (MLX or Hugging Face format), a GGUF file or a hub id; without
    /// it, the small model that `make setup` fetches.
    #[arg(long, visible_alias = "model", value_name = "PATH")]
    pub(crate) model_path: Option<String>,

    /// A folder or tokenizer.json to use instead of the model's own.
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer_path: Option<PathBuf>,

    /// Loads no tokenizer: requests and answers are token ids.
    #[arg(long)]
    pub(crate) skip_tokenizer_init: bool,

    /// auto, safetensors, gguf, or dummy: random weights from config.json alone.
    #[arg(long, default_value = "auto", value_name = "FORMAT")]
    pub(crate) load_format: String,

    /// Branch, tag or commit of a hub id.
    #[arg(long)]
    pub(crate) revision: Option<String>,

    /// Where models of the hub are kept.
    #[arg(long, value_name = "DIR")]
    pub(crate) download_dir: Option<PathBuf>,

    /// Tokens of prompt and completion together, at most the model's own.
    #[arg(long, value_name = "TOKENS", value_parser = super::token_count::parse)]
    pub(crate) context_length: Option<usize>,

    /// auto, half, float16, bfloat16, float or float32.
    #[arg(long, default_value = "auto")]
    #[serde(serialize_with = "super::as_text")]
    pub(crate) dtype: DtypeChoice,

    /// Quantize on load: mlx_4bit, mlx_8bit (mlx_2bit to mlx_8bit, mlx_q4 and so on are
    /// the same), mxfp4, mxfp8, nvfp4. Checkpoints that are quantized need no flag; awq,
    /// gptq, fp8, compressed-tensors and modelopt are checked against theirs.
    #[arg(long, value_name = "METHOD")]
    pub(crate) quantization: Option<String>,

    /// What the K/V pool is kept in: auto, as computed; bf16 or bfloat16, with --dtype
    /// bfloat16; packed: int8, fp8_e4m3, or int4, which small models notice.
    #[arg(long, default_value = "auto", value_name = "DTYPE")]
    pub(crate) kv_cache_dtype: String,

    /// Give embeddings instead of tokens. Not needed for models that give nothing else, nor
    /// for folders with a modules.json.
    #[arg(long)]
    pub(crate) is_embedding: bool,

    /// JSON merged over the model's config.json.
    #[arg(long, default_value = "{}", value_name = "JSON")]
    pub(crate) json_model_override_args: String,
}
