//! Every field of `config.json` that changes the graph of Granite with experts or Mamba 2. A
//! value that it does not follow fails here, not in the logits.

use nn::{Activation, HfConfig, LoadError, MoeDims, TopK};
use serde::Deserialize;

use crate::{
    config::{check_heads, check_length, check_sizes, config_error, default_act, is_tied},
    mamba2::MambaDims,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerType {
    Mamba,
    Attention,
}

/// How attention knows where tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Positions {
    Rope,
    Nope,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct GraniteHybridConfig {
    pub(crate) hidden_size: usize,
    /// Inner width of an expert; without experts, of the MLP.
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    pub(crate) vocab_size: usize,
    #[serde(default = "default_act")]
    pub(crate) hidden_act: Activation,
    pub(crate) rms_norm_eps: f32,
    #[serde(default)]
    pub(crate) attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    pub(crate) embedding_multiplier: f32,
    pub(crate) attention_multiplier: f32,
    pub(crate) residual_multiplier: f32,
    pub(crate) logits_scaling: f32,
    pub(crate) layer_types: Vec<LayerType>,
    pub(crate) position_embedding_type: Positions,
    num_local_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    /// Inner width of the MLP that every token takes; zero: there is none.
    shared_intermediate_size: Option<usize>,
    #[serde(flatten)]
    mamba: MambaConfig,
    #[serde(skip)]
    pub(crate) tie_word_embeddings: bool,
}

/// Of models with recurrent layers; zeros without.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct MambaConfig {
    mamba_n_heads: usize,
    mamba_d_head: usize,
    mamba_d_state: usize,
    mamba_d_conv: usize,
    mamba_n_groups: usize,
    mamba_proj_bias: bool,
    mamba_conv_bias: bool,
    time_step_limit: Option<[f32; 2]>,
}

impl GraniteHybridConfig {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.check()?;
        Ok(config)
    }

    /// Heads of queries and of keys.
    pub(crate) fn heads(&self) -> [usize; 2] {
        [self.num_attention_heads, self.num_key_value_heads]
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// Layers of one kind, by their place among all.
    pub(crate) fn layers_of(&self, kind: LayerType) -> impl Iterator<Item = usize> {
        (0..self.layer_types.len()).filter(move |&layer| self.layer_types[layer] == kind)
    }

    /// Layers of the same kind before this one: its place in the pool.
    pub(crate) fn place(&self, layer: usize) -> usize {
        self.layers_of(self.layer_types[layer]).take_while(|&other| other < layer).count()
    }

    pub(crate) fn has_experts(&self) -> bool {
        self.num_local_experts.is_some_and(|experts| experts > 0)
    }

    pub(crate) fn expert_dims(&self) -> (MoeDims, TopK) {
        let num_experts = self.num_local_experts.unwrap_or(0);
        let dims = MoeDims { num_experts, hidden: self.hidden_size, inner: self.intermediate_size };
        // A softmax over the chosen alone is one over all, made to add up to one.
        (dims, TopK { top_k: self.num_experts_per_tok.unwrap_or(0), renormalize: true })
    }

    /// Inner width of the MLP beside the experts.
    pub(crate) fn shared_inner(&self) -> Option<usize> {
        self.shared_intermediate_size.filter(|&inner| inner > 0)
    }

    /// Inner width of the MLP of a model without experts.
    pub(crate) fn mlp_inner(&self) -> usize {
        self.shared_inner().unwrap_or(self.intermediate_size)
    }

    /// Inner width of the widest of a step.
    pub(crate) fn widest(&self) -> usize {
        let mlp = match self.has_experts() {
            true => {
                let of_experts = self.num_experts_per_tok.unwrap_or(0) * self.intermediate_size;
                of_experts.max(self.shared_inner().unwrap_or(0))
            }
            false => self.mlp_inner(),
        };
        let recurrent = match self.layer_types.contains(&LayerType::Mamba) {
            true => self.mamba_dims().projected(),
            false => 0,
        };
        mlp.max(recurrent)
    }

    pub(crate) fn mamba_dims(&self) -> MambaDims {
        MambaDims {
            hidden: self.hidden_size,
            heads: self.mamba.mamba_n_heads,
            head_dim: self.mamba.mamba_d_head,
            groups: self.mamba.mamba_n_groups,
            norm_groups: 1,
            state: self.mamba.mamba_d_state,
            taps: self.mamba.mamba_d_conv,
            eps: self.rms_norm_eps,
            proj_bias: self.mamba.mamba_proj_bias,
            conv_bias: self.mamba.mamba_conv_bias,
            step_limit: self.mamba.time_step_limit.unwrap_or([0.0, f32::INFINITY]),
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
        ])?;
        check_heads(self.hidden_size, self.heads(), None)?;
        check_length("layer_types", self.layer_types.len(), self.num_hidden_layers)?;
        if self.logits_scaling == 0.0 {
            return Err(config_error("logits_scaling", "must not be zero".to_owned()));
        }
        if self.mlp_bias {
            let value = "true".to_owned();
            return Err(LoadError::Unsupported { what: "mlp_bias", value });
        }
        match self.layer_types.contains(&LayerType::Mamba) {
            true => self.mamba.check(),
            false => Ok(()),
        }
    }
}

impl MambaConfig {
    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("mamba_n_heads", self.mamba_n_heads),
            ("mamba_d_head", self.mamba_d_head),
            ("mamba_d_state", self.mamba_d_state),
            ("mamba_n_groups", self.mamba_n_groups),
        ])?;
        if !self.mamba_n_heads.is_multiple_of(self.mamba_n_groups) {
            let reason = format!("{} does not divide mamba_n_heads", self.mamba_n_groups);
            return Err(config_error("mamba_n_groups", reason));
        }
        if !(2..=64).contains(&self.mamba_d_conv) {
            let reason = format!("{} is not from 2 to 64", self.mamba_d_conv);
            return Err(config_error("mamba_d_conv", reason));
        }
        match self.time_step_limit {
            Some([least, most]) if !(0.0 <= least && least <= most) => {
                let reason = format!("{least} to {most} holds no steps");
                Err(config_error("time_step_limit", reason))
            }
            _ => Ok(()),
        }
    }
}
