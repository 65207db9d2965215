//! The `llama` architecture of GGUF: tensor names and the config they imply.
//!
//! GGUF writes Llama, Mistral and SmolLM alike as `llama`. Its keys hold what
//! config.json held, except for rope scaling of Llama 3, which arrives as a
//! tensor of finished factors: the parameters are found by recomputing them.
//!
//! Upstream: `sglang/srt/model_loader/loader.py` (`GGUFModelLoader`).

use std::collections::BTreeMap;

use nn::WeightStore;
use serde_json::{Map, Value, json};

use super::{
    metadata::Metadata,
    tensors::{GgufTensor, TensorKind},
};
use crate::{FileProblem, LoadError, TensorProblem};

pub(super) const ARCHITECTURE: &str = "llama";

/// The tensor with the factors of rope scaling.
const ROPE_FREQS: &str = "rope_freqs.weight";

/// Heads, as far as tensor names need them.
pub(super) struct Heads {
    query: usize,
    kv: usize,
}

/// What a tensor is called in the model.
struct Target {
    module: String,
    leaf: &'static str,
    rotary_heads: Option<usize>,
}

/// Moves all tensors into the store. Gives the modules whose matrices are decoded, with
/// the kind of their blocks.
pub(super) fn insert_tensors(
    tensors: Vec<GgufTensor>,
    heads: &Heads,
    store: &mut WeightStore,
) -> Result<BTreeMap<String, &'static str>, LoadError> {
    let mut decoded = BTreeMap::new();
    for tensor in tensors {
        if tensor.name == ROPE_FREQS {
            continue;
        }
        let Some(target) = target(&tensor.name, heads) else {
            return Err(tensor.problem(TensorProblem::Unknown(ARCHITECTURE)));
        };
        if let TensorKind::Decoded(kind) = tensor.kind {
            decoded.insert(target.module.clone(), kind.name());
        }
        tensor.insert(store, &target.module, target.leaf, target.rotary_heads)?;
    }
    Ok(decoded)
}

fn target(name: &str, heads: &Heads) -> Option<Target> {
    let (stem, leaf) = name.rsplit_once('.')?;
    let leaf = ["weight", "bias"].into_iter().find(|known| *known == leaf)?;
    let top = |module: &str| Target { module: module.to_owned(), leaf, rotary_heads: None };
    match stem {
        "token_embd" => return Some(top("model.embed_tokens")),
        "output_norm" => return Some(top("model.norm")),
        "output" => return Some(top("lm_head")),
        _ => {}
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let module = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    let rotary_heads = match part {
        "attn_q" => Some(heads.query),
        "attn_k" => Some(heads.kv),
        _ => None,
    };
    Some(Target { module: format!("model.layers.{layer}.{module}"), leaf, rotary_heads })
}

/// The config.json that the metadata amounts to.
pub(super) fn config(
    metadata: &Metadata,
    tensors: &[GgufTensor],
) -> Result<(Map<String, Value>, Heads), ConfigProblem> {
    let hidden_size = metadata.usize("llama.embedding_length")?;
    let heads = head_counts(metadata)?;
    let head_dim = head_dim(metadata, hidden_size, heads.query)?;
    if let Some(experts @ 1..) = metadata.optional_usize("llama.expert_count")? {
        let reason = format!("a mixture of {experts} experts is not supported");
        return Err(FileProblem::metadata("llama.expert_count", reason).into());
    }
    let vocab_size = vocab_size(metadata, tensors)?;
    let context_length = metadata.usize("llama.context_length")?;
    let rope_theta = metadata.optional_float("llama.rope.freq_base")?.unwrap_or(10_000.0);
    let fields = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden_size,
        "intermediate_size": metadata.usize("llama.feed_forward_length")?,
        "num_hidden_layers": metadata.usize("llama.block_count")?,
        "num_attention_heads": heads.query,
        "num_key_value_heads": heads.kv,
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "hidden_act": "silu",
        "rms_norm_eps": metadata.float("llama.attention.layer_norm_rms_epsilon")?,
        "rope_theta": rope_theta,
        "max_position_embeddings": context_length,
        "attention_bias": has(tensors, ".attn_q.bias"),
        "mlp_bias": has(tensors, ".ffn_up.bias"),
        "tie_word_embeddings": !tensors.iter().any(|tensor| tensor.name == "output.weight"),
        "torch_dtype": compute_dtype(tensors),
        "eos_token_id": eos_token_ids(metadata)?,
    });
    let Value::Object(mut fields) = fields else { unreachable!("an object was written") };
    let optional = [
        ("rope_scaling", rope_scaling(metadata, tensors, head_dim, rope_theta)?),
        (
            "sliding_window",
            metadata.optional_usize("llama.attention.sliding_window")?.map(Value::from),
        ),
        ("bos_token_id", metadata.optional_u32("tokenizer.ggml.bos_token_id")?.map(Value::from)),
    ];
    fields.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Ok((fields, heads))
}

/// A problem of the metadata, or of reading a tensor for the config.
pub(super) enum ConfigProblem {
    File(FileProblem),
    Load(LoadError),
}

impl From<FileProblem> for ConfigProblem {
    fn from(problem: FileProblem) -> Self {
        Self::File(problem)
    }
}

impl From<LoadError> for ConfigProblem {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

fn head_counts(metadata: &Metadata) -> Result<Heads, FileProblem> {
    let query = metadata.same_for_all_layers("llama.attention.head_count")?;
    let query = query.ok_or_else(|| missing("llama.attention.head_count"))?;
    let kv = metadata.same_for_all_layers("llama.attention.head_count_kv")?.unwrap_or(query);
    if query == 0 || kv == 0 {
        return Err(FileProblem::metadata("llama.attention.head_count", "must not be zero"));
    }
    Ok(Heads { query, kv })
}

fn head_dim(metadata: &Metadata, hidden_size: usize, heads: usize) -> Result<usize, FileProblem> {
    const ROTARY: &str = "llama.rope.dimension_count";
    let rotary = metadata.optional_usize(ROTARY)?;
    let key = metadata.optional_usize("llama.attention.key_length")?;
    let head_dim = key.or(rotary).unwrap_or(hidden_size / heads);
    if rotary.is_some_and(|rotary| rotary != head_dim) {
        return Err(FileProblem::metadata(ROTARY, "rotating a part of a head is not supported"));
    }
    const VALUE: &str = "llama.attention.value_length";
    match metadata.optional_usize(VALUE)? {
        Some(value) if value != head_dim => {
            Err(FileProblem::metadata(VALUE, "must equal the length of the keys"))
        }
        _ => Ok(head_dim),
    }
}

fn vocab_size(metadata: &Metadata, tensors: &[GgufTensor]) -> Result<usize, FileProblem> {
    let embeddings = tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    match embeddings.and_then(|tensor| tensor.shape.first().copied()) {
        Some(rows) => Ok(rows),
        None => metadata.usize("llama.vocab_size"),
    }
}

fn eos_token_ids(metadata: &Metadata) -> Result<Value, FileProblem> {
    let mut ids = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        let id = metadata.optional_u32(key)?;
        ids.extend(id.filter(|id| !ids.contains(id)));
    }
    Ok(json!(ids))
}

/// The narrowest type that holds what is stored exactly: the scales of
/// quantized matrices are f16.
fn compute_dtype(tensors: &[GgufTensor]) -> &'static str {
    let matrices = || tensors.iter().filter(|tensor| tensor.shape.len() > 1);
    let all = |dtype| matrices().all(|tensor| tensor.kind == TensorKind::Plain(dtype));
    if all(mlx::Dtype::Float32) {
        "float32"
    } else if all(mlx::Dtype::Bfloat16) {
        "bfloat16"
    } else {
        "float16"
    }
}

fn has(tensors: &[GgufTensor], suffix: &str) -> bool {
    tensors.iter().any(|tensor| tensor.name.ends_with(suffix))
}

fn missing(key: &str) -> FileProblem {
    FileProblem::metadata(key, "is missing")
}

fn rope_scaling(
    metadata: &Metadata,
    tensors: &[GgufTensor],
    head_dim: usize,
    rope_theta: f64,
) -> Result<Option<Value>, ConfigProblem> {
    if let Some(tensor) = tensors.iter().find(|tensor| tensor.name == ROPE_FREQS) {
        let factors = tensor.read_f32()?;
        return match llama3_scaling(&factors, head_dim, rope_theta) {
            Some(scaling) => Ok(scaling),
            None => Err(tensor.problem(TensorProblem::RopeFactors).into()),
        };
    }
    const TYPE: &str = "llama.rope.scaling.type";
    const FACTOR: &str = "llama.rope.scaling.factor";
    let factor = match metadata.optional_float(FACTOR)? {
        None => metadata.optional_float("llama.rope.scale_linear")?,
        found => found,
    };
    let kind = metadata.optional_str(TYPE)?.unwrap_or(match factor {
        Some(_) => "linear",
        None => "none",
    });
    let factor = || factor.ok_or_else(|| missing(FACTOR));
    const ORIGIN: &str = "llama.rope.scaling.original_context_length";
    Ok(match kind {
        "none" => None,
        // The context length of the file is the stretched one: said so by the
        // field that stops config readers from stretching it again.
        "linear" => {
            let origin = match metadata.optional_usize(ORIGIN)? {
                Some(origin) => origin,
                None => metadata.usize("llama.context_length")?,
            };
            Some(json!({"rope_type": "linear", "factor": factor()?,
                        "original_max_position_embeddings": origin}))
        }
        "yarn" => {
            let mut scaling = json!({"rope_type": "yarn", "factor": factor()?,
                                     "original_max_position_embeddings": metadata.usize(ORIGIN)?});
            if let Some(attn) = metadata.optional_float("llama.rope.scaling.attn_factor")? {
                scaling["attention_factor"] = json!(attn);
            }
            Some(scaling)
        }
        other => {
            let reason = format!("rope scaling {other:?} is not supported");
            return Err(FileProblem::metadata(TYPE, reason).into());
        }
    })
}

/// Parameters whose factors are these; `Some(None)` if they scale nothing.
fn llama3_scaling(factors: &[f32], head_dim: usize, rope_theta: f64) -> Option<Option<Value>> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const ORIGIN: f64 = 8192.0;
    if factors.len() != head_dim / 2 {
        return None;
    }
    if factors.iter().all(|&factor| factor == 1.0) {
        return Some(None);
    }
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let expected = |index: usize| {
        let exponent = (2 * index) as f64 / head_dim as f64;
        let wavelength = std::f64::consts::TAU * rope_theta.powf(exponent);
        if wavelength < ORIGIN / HIGH {
            1.0
        } else if wavelength > ORIGIN / LOW {
            factor
        } else {
            let smooth = (ORIGIN / wavelength - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let fits = factors.iter().enumerate().all(|(index, &found)| {
        let expected = expected(index);
        (f64::from(found) - expected).abs() <= 1e-4 * expected
    });
    fits.then(|| {
        Some(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW,
            "high_freq_factor": HIGH, "original_max_position_embeddings": ORIGIN as u64,
        }))
    })
}
