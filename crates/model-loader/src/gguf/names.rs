//! What the tensors of a GGUF file are called in the model.

use std::collections::BTreeMap;

use nn::WeightStore;

use super::{
    architecture::{Architecture, Heads},
    rope,
    tensors::{GgufTensor, Rewrite, TensorKind},
};
use crate::{LoadError, TensorProblem};

/// Parts of a layer, by GGUF's name and the model's.
pub(super) type Names = &'static [(&'static str, &'static str)];

/// What most architectures share.
const COMMON: Names = &[
    ("attn_k", "self_attn.k_proj"),
    ("attn_norm", "input_layernorm"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_up", "mlp.up_proj"),
];

/// Norms of q and k.
pub(super) const HEAD_NORMS: Names =
    &[("attn_k_norm", "self_attn.k_norm"), ("attn_q_norm", "self_attn.q_norm")];

/// Experts and their router.
pub(super) const EXPERTS: Names = &[
    ("ffn_down_exps", "mlp.switch_mlp.down_proj"),
    ("ffn_gate_exps", "mlp.switch_mlp.gate_proj"),
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_up_exps", "mlp.switch_mlp.up_proj"),
];

/// The expert of all tokens.
pub(super) const SHARED_EXPERT: Names = &[
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
    ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
];

/// Norms before and after both halves of a layer, as Gemma calls them.
pub(super) const GEMMA_NORMS: Names = &[
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// The same, as GLM-4 calls them.
pub(super) const GLM_NORMS: Names =
    &[("post_attention_norm", "post_self_attn_layernorm"), ("post_ffw_norm", "post_mlp_layernorm")];

/// Norms after both halves of a layer and none before.
pub(super) const OLMO_NORMS: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// Another name for the second norm of a layer.
pub(super) const SEED_NORMS: Names = &[("post_attention_norm", "post_attention_layernorm")];

/// q, k and v in one matrix.
pub(super) const FUSED_QKV: Names = &[("attn_qkv", "self_attn.qkv_proj")];

/// Gates and values in one matrix.
pub(super) const FUSED_MLP: Names = &[("ffn_up", "mlp.gate_up_proj")];

/// What a tensor is called in the model, and what is done to it.
struct Target {
    module: String,
    leaf: &'static str,
    rewrite: Rewrite,
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
    for mut tensor in tensors {
        if rope::TENSORS.contains(&tensor.name.as_str()) {
            continue;
        }
        let Some(target) = target(architecture, &tensor.name, heads) else {
            return Err(tensor.problem(TensorProblem::Unknown(architecture.name)));
        };
        if let TensorKind::Decoded(kind) = tensor.kind {
            decoded.insert(target.module.clone(), kind.name());
        }
        // A row, which GGUF writers take for a vector.
        if target.module.ends_with("shared_expert_gate") && tensor.shape.len() == 1 {
            tensor.shape.insert(0, 1);
        }
        tensor.insert(store, &target.module, target.leaf, target.rewrite)?;
    }
    Ok(decoded)
}

fn target(architecture: &Architecture, name: &str, heads: &Heads) -> Option<Target> {
    let (stem, leaf) = name.rsplit_once('.')?;
    let leaf = ["weight", "bias"].into_iter().find(|known| *known == leaf)?;
    let is_norm = leaf == "weight" && stem.ends_with("norm");
    let mut rewrite = match architecture.norms_above_one && is_norm {
        true => Rewrite::LessOne,
        false => Rewrite::None,
    };
    let module = match stem {
        "token_embd" => "model.embed_tokens".to_owned(),
        "output_norm" => "model.norm".to_owned(),
        "output" => "lm_head".to_owned(),
        _ => {
            let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
            let layer: usize = layer.parse().ok()?;
            rewrite = match part {
                "attn_q" if architecture.is_permuted => Rewrite::Unpermute(heads.query),
                "attn_k" if architecture.is_permuted => Rewrite::Unpermute(heads.kv),
                _ => rewrite,
            };
            let mut names = architecture.names.iter().copied().chain([COMMON]).flatten();
            let (_, module) = names.find(|(gguf, _)| *gguf == part)?;
            format!("model.layers.{layer}.{module}")
        }
    };
    Some(Target { module, leaf, rewrite })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted() {
        let tables =
            [COMMON, HEAD_NORMS, EXPERTS, SHARED_EXPERT, GEMMA_NORMS, GLM_NORMS, OLMO_NORMS];
        assert!(tables.iter().all(|names| names.is_sorted()));
    }
}
