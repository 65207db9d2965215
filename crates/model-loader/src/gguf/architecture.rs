//! The architectures of GGUF that are read, and the config.json that their keys amount to.
//!
//! GGUF writes Llama, Mistral and SmolLM alike as `llama`. Its keys hold what config.json
//! held, or what a program with the architecture's defaults needs beside them: where they say
//! nothing, the defaults below are those of the writers' own runtime.
//!
//! Upstream: `sglang/srt/model_loader/loader.py` (`GGUFModelLoader`).

use serde_json::{Map, Value, json};

use super::{
    metadata::Metadata,
    names::{
        EXPERTS, FUSED_MLP, FUSED_QKV, GEMMA_NORMS, GLM_NORMS, HEAD_NORMS, Names, OLMO_NORMS,
        SEED_NORMS, SHARED_EXPERT,
    },
    rope,
    tensors::{GgufTensor, TensorKind},
};
use crate::{FileProblem, LoadError};

/// Many times those of the deepest models. What is kept of each layer is made before its tensors
/// are looked for.
const MAX_LAYERS: usize = 10_000;

/// A value of `general.architecture`.
#[derive(Debug)]
pub(super) struct Architecture {
    pub(super) name: &'static str,
    /// `architectures` of config.json.
    hf: &'static str,
    /// `model_type` of config.json.
    model_type: &'static str,
    /// Rows of heads are in another order than Hugging Face's.
    pub(super) is_permuted: bool,
    /// Weights of norms are stored plus one.
    pub(super) norms_above_one: bool,
    /// Heads may rotate in part.
    rotates_partly: bool,
    /// Parts of a layer beside the common ones, or in their place.
    pub(super) names: &'static [Names],
    /// Fields of config.json that only it has, or that are others than usual.
    fields: fn(&GgufModelFile<'_>) -> Result<Value, FileProblem>,
}

const PLAIN: Architecture = Architecture {
    name: "",
    hf: "",
    model_type: "",
    is_permuted: false,
    norms_above_one: false,
    rotates_partly: false,
    names: &[],
    fields: |_| Ok(json!({})),
};

/// Sorted by name.
pub(super) const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "cohere2",
        hf: "Cohere2ForCausalLM",
        model_type: "cohere2",
        fields: cohere2,
        ..PLAIN
    },
    Architecture {
        name: "gemma2",
        hf: "Gemma2ForCausalLM",
        model_type: "gemma2",
        norms_above_one: true,
        names: &[GEMMA_NORMS],
        fields: gemma2,
        ..PLAIN
    },
    Architecture {
        name: "gemma3",
        hf: "Gemma3ForCausalLM",
        model_type: "gemma3_text",
        norms_above_one: true,
        names: &[GEMMA_NORMS, HEAD_NORMS],
        fields: gemma3,
        ..PLAIN
    },
    Architecture {
        name: "glm4",
        hf: "Glm4ForCausalLM",
        model_type: "glm4",
        rotates_partly: true,
        names: &[GLM_NORMS, FUSED_MLP],
        ..PLAIN
    },
    Architecture {
        name: "granite",
        hf: "GraniteForCausalLM",
        model_type: "granite",
        is_permuted: true,
        fields: granite,
        ..PLAIN
    },
    Architecture {
        name: "llama",
        hf: "LlamaForCausalLM",
        model_type: "llama",
        is_permuted: true,
        ..PLAIN
    },
    Architecture {
        name: "olmo2",
        hf: "Olmo2ForCausalLM",
        model_type: "olmo2",
        names: &[OLMO_NORMS, HEAD_NORMS],
        fields: olmo2,
        ..PLAIN
    },
    Architecture {
        name: "phi3",
        hf: "Phi3ForCausalLM",
        model_type: "phi3",
        rotates_partly: true,
        names: &[FUSED_QKV, FUSED_MLP],
        ..PLAIN
    },
    Architecture {
        name: "qwen2",
        hf: "Qwen2ForCausalLM",
        model_type: "qwen2",
        fields: qkv_bias,
        ..PLAIN
    },
    Architecture {
        name: "qwen2moe",
        hf: "Qwen2MoeForCausalLM",
        model_type: "qwen2_moe",
        names: &[EXPERTS, SHARED_EXPERT],
        fields: qwen2moe,
        ..PLAIN
    },
    Architecture {
        name: "qwen3",
        hf: "Qwen3ForCausalLM",
        model_type: "qwen3",
        names: &[HEAD_NORMS],
        fields: qkv_bias,
        ..PLAIN
    },
    Architecture {
        name: "qwen3moe",
        hf: "Qwen3MoeForCausalLM",
        model_type: "qwen3_moe",
        names: &[HEAD_NORMS, EXPERTS],
        fields: qwen3moe,
        ..PLAIN
    },
    Architecture {
        name: "seed_oss",
        hf: "SeedOssForCausalLM",
        model_type: "seed_oss",
        names: &[SEED_NORMS],
        fields: |file| Ok(json!({"attention_out_bias": file.has(".attn_output.bias")})),
        ..PLAIN
    },
    Architecture {
        name: "smollm3",
        hf: "SmolLM3ForCausalLM",
        model_type: "smollm3",
        is_permuted: true,
        fields: |_| Ok(json!({"no_rope_layer_interval": 4})),
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

    fn has_experts(&self) -> bool {
        self.names.contains(&EXPERTS)
    }
}

/// Heads, as far as tensor names need them.
pub(super) struct Heads {
    pub(super) query: usize,
    pub(super) kv: usize,
}

/// What of a file tells its config: keys are looked up below the architecture's name.
pub(super) struct GgufModelFile<'a> {
    architecture: &'static Architecture,
    metadata: &'a Metadata,
    tensors: &'a [GgufTensor],
}

impl<'a> GgufModelFile<'a> {
    pub(super) fn new(
        architecture: &'static Architecture,
        metadata: &'a Metadata,
        tensors: &'a [GgufTensor],
    ) -> Self {
        Self { architecture, metadata, tensors }
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.name)
    }

    pub(super) fn usize(&self, name: &str) -> Result<usize, FileProblem> {
        self.metadata.usize(&self.key(name))
    }

    fn num_layers(&self) -> Result<usize, FileProblem> {
        const NAME: &str = "block_count";
        match self.usize(NAME)? {
            count if count > MAX_LAYERS => {
                Err(self.problem(NAME, format!("{count} layers, of {MAX_LAYERS} at most")))
            }
            count => Ok(count),
        }
    }

    fn float(&self, name: &str) -> Result<f64, FileProblem> {
        self.metadata.float(&self.key(name))
    }

    pub(super) fn optional_usize(&self, name: &str) -> Result<Option<usize>, FileProblem> {
        self.metadata.optional_usize(&self.key(name))
    }

    pub(super) fn optional_float(&self, name: &str) -> Result<Option<f64>, FileProblem> {
        self.metadata.optional_float(&self.key(name))
    }

    pub(super) fn optional_str(&self, name: &str) -> Result<Option<&str>, FileProblem> {
        self.metadata.optional_str(&self.key(name))
    }

    pub(super) fn problem(&self, name: &str, reason: impl Into<String>) -> FileProblem {
        FileProblem::metadata(&self.key(name), reason)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'a GgufTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    fn has(&self, suffix: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.name.ends_with(suffix))
    }

    /// The config.json that the file amounts to.
    pub(super) fn config(&self) -> Result<(Map<String, Value>, Heads), ConfigProblem> {
        let hidden_size = self.usize("embedding_length")?;
        let heads = self.head_counts()?;
        let head_dim = self.head_dim(hidden_size, heads.query)?;
        let rotary_dims = self.rotary_dims(head_dim)?;
        let rope_theta = self.optional_float("rope.freq_base")?.unwrap_or(10_000.0);
        let mut fields = object(json!({
            "architectures": [self.architecture.hf],
            "model_type": self.architecture.model_type,
            "hidden_size": hidden_size,
            "intermediate_size": self.usize("feed_forward_length")?,
            "num_hidden_layers": self.num_layers()?,
            "num_attention_heads": heads.query,
            "num_key_value_heads": heads.kv,
            "head_dim": head_dim,
            "vocab_size": self.vocab_size()?,
            "hidden_act": "silu",
            "rope_theta": rope_theta,
            "max_position_embeddings": self.usize("context_length")?,
            "attention_bias": self.has(".attn_q.bias"),
            "mlp_bias": self.has(".ffn_up.bias"),
            "tie_word_embeddings": self.tensor("output.weight").is_none(),
            "torch_dtype": self.compute_dtype(),
            "eos_token_id": self.eos_token_ids()?,
        }));
        let part = rotary_dims as f64 / head_dim as f64;
        let optional = [
            (
                "bos_token_id",
                self.metadata.optional_u32("tokenizer.ggml.bos_token_id")?.map(Value::from),
            ),
            ("partial_rotary_factor", (rotary_dims != head_dim).then(|| json!(part))),
            ("rope_scaling", rope::scaling(self, rotary_dims, rope_theta)?),
            ("sliding_window", self.window()?.map(Value::from)),
        ];
        fields
            .extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        self.check_experts()?;
        fields.extend(object((self.architecture.fields)(self)?));
        if !fields.contains_key("layer_norm_eps") {
            let eps = self.float("attention.layer_norm_rms_epsilon")?;
            fields.insert("rms_norm_eps".to_owned(), json!(eps));
        }
        Ok((fields, heads))
    }

    /// Refuses experts of an architecture that has none here.
    fn check_experts(&self) -> Result<(), FileProblem> {
        match self.optional_usize("expert_count")? {
            Some(count) if count > 0 && !self.architecture.has_experts() => {
                let reason = format!("a mixture of {count} experts is not supported");
                Err(self.problem("expert_count", reason))
            }
            _ => Ok(()),
        }
    }

    fn head_counts(&self) -> Result<Heads, FileProblem> {
        const KEY: &str = "attention.head_count";
        let query = self.metadata.same_for_all_layers(&self.key(KEY))?;
        let query = query.ok_or_else(|| self.problem(KEY, "is missing"))?;
        let kv = self.metadata.same_for_all_layers(&self.key("attention.head_count_kv"))?;
        let kv = kv.unwrap_or(query);
        if query == 0 || kv == 0 {
            return Err(self.problem(KEY, "must not be zero"));
        }
        Ok(Heads { query, kv })
    }

    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize, FileProblem> {
        let key = self.optional_usize("attention.key_length")?;
        let rotary = self.optional_usize("rope.dimension_count")?;
        let rotary = rotary.filter(|_| !self.architecture.rotates_partly);
        let head_dim = key.or(rotary).unwrap_or(hidden_size / heads);
        match self.optional_usize("attention.value_length")? {
            Some(value) if value != head_dim => {
                let reason = "must equal the length of the keys";
                Err(self.problem("attention.value_length", reason))
            }
            _ if head_dim == 0 => Err(self.problem("attention.key_length", "must not be zero")),
            _ => Ok(head_dim),
        }
    }

    fn rotary_dims(&self, head_dim: usize) -> Result<usize, FileProblem> {
        const KEY: &str = "rope.dimension_count";
        let dims = self.optional_usize(KEY)?.unwrap_or(head_dim);
        if dims != head_dim && !self.architecture.rotates_partly {
            return Err(self.problem(KEY, "rotating a part of a head is not supported"));
        }
        if dims == 0 || dims > head_dim {
            return Err(self.problem(KEY, format!("{dims} of {head_dim} elements of a head")));
        }
        Ok(dims)
    }

    fn vocab_size(&self) -> Result<usize, FileProblem> {
        let embeddings = self.tensor("token_embd.weight");
        match embeddings.and_then(|tensor| tensor.shape.first().copied()) {
            Some(rows) => Ok(rows),
            None => self.usize("vocab_size"),
        }
    }

    fn eos_token_ids(&self) -> Result<Value, FileProblem> {
        let mut ids = Vec::new();
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
            let id = self.metadata.optional_u32(key)?;
            ids.extend(id.filter(|id| !ids.contains(id)));
        }
        Ok(json!(ids))
    }

    /// The narrowest type that holds what is stored exactly: the scales of
    /// quantized matrices are f16.
    fn compute_dtype(&self) -> &'static str {
        let matrices = || self.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
        let all = |dtype| matrices().all(|tensor| tensor.kind == TensorKind::Plain(dtype));
        if all(mlx::Dtype::Float32) {
            "float32"
        } else if all(mlx::Dtype::Bfloat16) {
            "bfloat16"
        } else {
            "float16"
        }
    }

    /// Tokens of the window, if there is one.
    fn window(&self) -> Result<Option<usize>, FileProblem> {
        Ok(self.optional_usize("attention.sliding_window")?.filter(|&window| window > 0))
    }

    /// The kind of each layer: as the file lists them, or all but every nth with a window, where
    /// n is what the file says or `pattern`.
    fn layer_types(&self, pattern: usize) -> Result<Value, FileProblem> {
        const NAME: &str = "attention.sliding_window_pattern";
        let (key, num_layers) = (self.key(NAME), self.num_layers()?);
        let name = |slides| if slides { "sliding_attention" } else { "full_attention" };
        if !self.metadata.is_list(&key) {
            let pattern = self.metadata.optional_usize(&key)?.unwrap_or(pattern);
            return Ok((1..=num_layers).map(|nth| name(!nth.is_multiple_of(pattern))).collect());
        }
        let slides = self.metadata.optional_bools(&key)?.unwrap_or_default();
        if slides.len() != num_layers {
            let reason = format!("{} entries for {num_layers} layers", slides.len());
            return Err(self.problem(NAME, reason));
        }
        Ok(slides.into_iter().map(name).collect())
    }

    /// What queries are scaled by (the inverse root of it): heads' width, or in the largest
    /// Gemmas, which no key tells from the others, what a head has of the hidden size.
    fn query_scalar(&self, largest: usize) -> Result<usize, FileProblem> {
        let (hidden_size, heads) = (self.usize("embedding_length")?, self.head_counts()?);
        match self.num_layers()? == largest {
            true => Ok(hidden_size / heads.query),
            false => self.head_dim(hidden_size, heads.query),
        }
    }
}

fn object(fields: Value) -> Map<String, Value> {
    let Value::Object(fields) = fields else { unreachable!("an object was written") };
    fields
}

fn cohere2(file: &GgufModelFile<'_>) -> Result<Value, FileProblem> {
    Ok(json!({
        "layer_norm_eps": file.float("attention.layer_norm_epsilon")?,
        "logit_scale": file.float("logit_scale")?,
        "sliding_window": file.usize("attention.sliding_window")?,
        "layer_types": file.layer_types(4)?,
    }))
}

fn gemma2(file: &GgufModelFile<'_>) -> Result<Value, FileProblem> {
    let cap = |key, default| Ok::<_, FileProblem>(file.optional_float(key)?.unwrap_or(default));
    Ok(json!({
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": cap("attn_logit_softcapping", 50.0)?,
        "final_logit_softcapping": cap("final_logit_softcapping", 30.0)?,
        "query_pre_attn_scalar": file.query_scalar(46)?,
        "sliding_window": file.window()?.unwrap_or(4096),
        "layer_types": file.layer_types(2)?,
    }))
}

fn gemma3(file: &GgufModelFile<'_>) -> Result<Value, FileProblem> {
    const CAP: &str = "final_logit_softcapping";
    if file.optional_float(CAP)?.is_some_and(|cap| cap != 0.0) {
        return Err(file.problem(CAP, "caps on logits are not supported"));
    }
    Ok(json!({
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": file.query_scalar(62)?,
        "rope_local_base_freq": file.optional_float("rope.freq_base_swa")?.unwrap_or(10_000.0),
        "sliding_window": file.usize("attention.sliding_window")?,
        "layer_types": file.layer_types(6)?,
    }))
}

fn granite(file: &GgufModelFile<'_>) -> Result<Value, FileProblem> {
    let head_dim = file.head_dim(file.usize("embedding_length")?, file.head_counts()?.query)?;
    let scale = |key, default| Ok::<_, FileProblem>(file.optional_float(key)?.unwrap_or(default));
    Ok(json!({
        "attention_multiplier": scale("attention.scale", (head_dim as f64).sqrt().recip())?,
        "embedding_multiplier": scale("embedding_scale", 1.0)?,
        "residual_multiplier": scale("residual_scale", 1.0)?,
        "logits_scaling": file.float("logit_scale")?,
    }))
}

/// OLMo 3 has the name of OLMo 2, and windows.
fn olmo2(file: &GgufModelFile<'_>) -> Result<Value, FileProblem> {
    Ok(match file.window()? {
        None => json!({}),
        Some(_) => json!({
            "architectures": ["Olmo3ForCausalLM"],
            "model_type": "olmo3",
            "layer_types": file.layer_types(4)?,
        }),
    })
}

/// Qwen's bias is on three of four projections, by a field of its own.
fn qkv_bias(file: &GgufModelFile<'_>) -> Result<Value, FileProblem> {
    Ok(json!({"qkv_bias": file.has(".attn_q.bias")}))
}

fn qwen2moe(file: &GgufModelFile<'_>) -> Result<Value, FileProblem> {
    let shared = file.usize("expert_shared_feed_forward_length")?;
    let mut fields = experts(file, false)?;
    fields["shared_expert_intermediate_size"] = json!(shared);
    Ok(fields)
}

fn qwen3moe(file: &GgufModelFile<'_>) -> Result<Value, FileProblem> {
    experts(file, true)
}

/// Qwen's mixtures of experts, in every layer.
fn experts(file: &GgufModelFile<'_>, norm_topk_prob: bool) -> Result<Value, FileProblem> {
    let count = file.optional_usize("expert_count")?;
    Ok(json!({
        "num_experts": count.unwrap_or(0),
        "num_experts_per_tok": file.usize("expert_used_count")?,
        "moe_intermediate_size": file.usize("expert_feed_forward_length")?,
        "norm_topk_prob": norm_topk_prob,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "qkv_bias": file.has(".attn_q.bias"),
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_sorted() {
        assert!(ARCHITECTURES.is_sorted_by_key(|architecture| architecture.name));
    }
}
