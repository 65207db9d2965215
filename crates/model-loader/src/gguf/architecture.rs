//! The architectures of GGUF that are read: tensor names and the config they imply.
//!
//! GGUF writes Llama, Mistral and SmolLM alike as `llama`. Its keys hold what config.json
//! held, except for rope scaling of Llama 3, which arrives as a tensor of finished
//! factors: the parameters are found by recomputing them.
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

/// A value of `general.architecture`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    pub(super) name: &'static str,
    /// `architectures` of config.json.
    hf: &'static str,
    /// `model_type` of config.json.
    model_type: &'static str,
    /// Rows of heads are in another order than Hugging Face's.
    is_permuted: bool,
    /// Heads of q and k have norms.
    has_head_norms: bool,
    has_experts: bool,
}

const PLAIN: Architecture = Architecture {
    name: "",
    hf: "",
    model_type: "",
    is_permuted: false,
    has_head_norms: false,
    has_experts: false,
};

/// Sorted by name.
pub(super) const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "llama",
        hf: "LlamaForCausalLM",
        model_type: "llama",
        is_permuted: true,
        ..PLAIN
    },
    Architecture { name: "qwen2", hf: "Qwen2ForCausalLM", model_type: "qwen2", ..PLAIN },
    Architecture {
        name: "qwen3",
        hf: "Qwen3ForCausalLM",
        model_type: "qwen3",
        has_head_norms: true,
        ..PLAIN
    },
    Architecture {
        name: "qwen3moe",
        hf: "Qwen3MoeForCausalLM",
        model_type: "qwen3_moe",
        has_head_norms: true,
        has_experts: true,
        ..PLAIN
    },
];

/// Names of all, for messages.
pub(crate) fn known() -> String {
    ARCHITECTURES.iter().map(|architecture| architecture.name).collect::<Vec<_>>().join(", ")
}

impl Architecture {
    /// The one of this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.name == name)
    }

    /// A key of the metadata.
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }
}

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
    architecture: &'static Architecture,
    tensors: Vec<GgufTensor>,
    heads: &Heads,
    store: &mut WeightStore,
) -> Result<BTreeMap<String, &'static str>, LoadError> {
    let mut decoded = BTreeMap::new();
    for tensor in tensors {
        if tensor.name == ROPE_FREQS {
            continue;
        }
        let Some(target) = target(architecture, &tensor.name, heads) else {
            return Err(tensor.problem(TensorProblem::Unknown(architecture.name)));
        };
        if let TensorKind::Decoded(kind) = tensor.kind {
            decoded.insert(target.module.clone(), kind.name());
        }
        tensor.insert(store, &target.module, target.leaf, target.rotary_heads)?;
    }
    Ok(decoded)
}

fn target(architecture: &Architecture, name: &str, heads: &Heads) -> Option<Target> {
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
        "attn_q_norm" if architecture.has_head_norms => "self_attn.q_norm",
        "attn_k_norm" if architecture.has_head_norms => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate_inp" if architecture.has_experts => "mlp.gate",
        "ffn_gate_exps" if architecture.has_experts => "mlp.switch_mlp.gate_proj",
        "ffn_up_exps" if architecture.has_experts => "mlp.switch_mlp.up_proj",
        "ffn_down_exps" if architecture.has_experts => "mlp.switch_mlp.down_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    let rotary_heads = match part {
        "attn_q" if architecture.is_permuted => Some(heads.query),
        "attn_k" if architecture.is_permuted => Some(heads.kv),
        _ => None,
    };
    Some(Target { module: format!("model.layers.{layer}.{module}"), leaf, rotary_heads })
}

/// The config.json that the metadata amounts to.
pub(super) fn config(
    architecture: &Architecture,
    metadata: &Metadata,
    tensors: &[GgufTensor],
) -> Result<(Map<String, Value>, Heads), ConfigProblem> {
    let key = |name: &str| architecture.key(name);
    let hidden_size = metadata.usize(&key("embedding_length"))?;
    let heads = head_counts(architecture, metadata)?;
    let head_dim = head_dim(architecture, metadata, hidden_size, heads.query)?;
    let experts = experts(architecture, metadata)?;
    let rope_theta = metadata.optional_float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let fields = json!({
        "architectures": [architecture.hf],
        "model_type": architecture.model_type,
        "hidden_size": hidden_size,
        "intermediate_size": metadata.usize(&key("feed_forward_length"))?,
        "num_hidden_layers": metadata.usize(&key("block_count"))?,
        "num_attention_heads": heads.query,
        "num_key_value_heads": heads.kv,
        "head_dim": head_dim,
        "vocab_size": vocab_size(architecture, metadata, tensors)?,
        "hidden_act": "silu",
        "rms_norm_eps": metadata.float(&key("attention.layer_norm_rms_epsilon"))?,
        "rope_theta": rope_theta,
        "max_position_embeddings": metadata.usize(&key("context_length"))?,
        "mlp_bias": has(tensors, ".ffn_up.bias"),
        "tie_word_embeddings": !tensors.iter().any(|tensor| tensor.name == "output.weight"),
        "torch_dtype": compute_dtype(tensors),
        "eos_token_id": eos_token_ids(metadata)?,
    });
    let Value::Object(mut fields) = fields else { unreachable!("an object was written") };
    let rope_scaling = rope_scaling(architecture, metadata, tensors, head_dim, rope_theta)?;
    let window = metadata.optional_usize(&key("attention.sliding_window"))?.map(Value::from);
    let bos = metadata.optional_u32("tokenizer.ggml.bos_token_id")?.map(Value::from);
    let optional =
        [("rope_scaling", rope_scaling), ("sliding_window", window), ("bos_token_id", bos)];
    fields.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    fields.extend(experts);
    // Qwen's bias is on three of four projections, by a field of its own.
    let bias = if architecture.name == "llama" { "attention_bias" } else { "qkv_bias" };
    fields.insert(bias.to_owned(), json!(has(tensors, ".attn_q.bias")));
    Ok((fields, heads))
}

/// The fields of a mixture of experts.
fn experts(
    architecture: &Architecture,
    metadata: &Metadata,
) -> Result<Map<String, Value>, FileProblem> {
    let key = architecture.key("expert_count");
    let count = metadata.optional_usize(&key)?.unwrap_or(0);
    if !architecture.has_experts {
        if count > 0 {
            let reason = format!("a mixture of {count} experts is not supported");
            return Err(FileProblem::metadata(&key, reason));
        }
        return Ok(Map::new());
    }
    let fields = json!({
        "num_experts": count,
        "num_experts_per_tok": metadata.usize(&architecture.key("expert_used_count"))?,
        "moe_intermediate_size": metadata.usize(&architecture.key("expert_feed_forward_length"))?,
        "norm_topk_prob": true,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    });
    let Value::Object(fields) = fields else { unreachable!("an object was written") };
    Ok(fields)
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

fn head_counts(architecture: &Architecture, metadata: &Metadata) -> Result<Heads, FileProblem> {
    let key = architecture.key("attention.head_count");
    let query = metadata.same_for_all_layers(&key)?.ok_or_else(|| missing(&key))?;
    let kv = metadata.same_for_all_layers(&architecture.key("attention.head_count_kv"))?;
    let kv = kv.unwrap_or(query);
    if query == 0 || kv == 0 {
        return Err(FileProblem::metadata(&key, "must not be zero"));
    }
    Ok(Heads { query, kv })
}

fn head_dim(
    architecture: &Architecture,
    metadata: &Metadata,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, FileProblem> {
    let rotary_key = architecture.key("rope.dimension_count");
    let rotary = metadata.optional_usize(&rotary_key)?;
    let key = metadata.optional_usize(&architecture.key("attention.key_length"))?;
    let head_dim = key.or(rotary).unwrap_or(hidden_size / heads);
    if rotary.is_some_and(|rotary| rotary != head_dim) {
        let reason = "rotating a part of a head is not supported";
        return Err(FileProblem::metadata(&rotary_key, reason));
    }
    let value_key = architecture.key("attention.value_length");
    match metadata.optional_usize(&value_key)? {
        Some(value) if value != head_dim => {
            Err(FileProblem::metadata(&value_key, "must equal the length of the keys"))
        }
        _ => Ok(head_dim),
    }
}

fn vocab_size(
    architecture: &Architecture,
    metadata: &Metadata,
    tensors: &[GgufTensor],
) -> Result<usize, FileProblem> {
    let embeddings = tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    match embeddings.and_then(|tensor| tensor.shape.first().copied()) {
        Some(rows) => Ok(rows),
        None => metadata.usize(&architecture.key("vocab_size")),
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
    architecture: &Architecture,
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
    let key = |name: &str| architecture.key(name);
    let (kind_key, factor_key) = (key("rope.scaling.type"), key("rope.scaling.factor"));
    let factor = match metadata.optional_float(&factor_key)? {
        None => metadata.optional_float(&key("rope.scale_linear"))?,
        found => found,
    };
    let kind = metadata.optional_str(&kind_key)?.unwrap_or(match factor {
        Some(_) => "linear",
        None => "none",
    });
    let factor = || factor.ok_or_else(|| missing(&factor_key));
    let origin_key = key("rope.scaling.original_context_length");
    Ok(match kind {
        "none" => None,
        // The context length of the file is the stretched one: said so by the
        // field that stops config readers from stretching it again.
        "linear" => {
            let origin = match metadata.optional_usize(&origin_key)? {
                Some(origin) => origin,
                None => metadata.usize(&key("context_length"))?,
            };
            Some(json!({"rope_type": "linear", "factor": factor()?,
                        "original_max_position_embeddings": origin}))
        }
        "yarn" => {
            let mut scaling = json!({"rope_type": "yarn", "factor": factor()?,
                                     "original_max_position_embeddings": metadata.usize(&origin_key)?});
            if let Some(attn) = metadata.optional_float(&key("rope.scaling.attn_factor"))? {
                scaling["attention_factor"] = json!(attn);
            }
            Some(scaling)
        }
        other => {
            let reason = format!("rope scaling {other:?} is not supported");
            return Err(FileProblem::metadata(&kind_key, reason).into());
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
