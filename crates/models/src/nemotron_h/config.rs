//! Every field of `config.json` that changes Nemotron-H's graph. A value that it does not
//! follow fails here, not in the logits.

use nn::{Activation, ExpertGroups, GroupScore, HfConfig, LoadError, MoeDims, TopK};
use serde::Deserialize;

use crate::{
    config::{check_heads, check_length, check_sizes, config_error, is_tied},
    mamba2::MambaDims,
};

/// What a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerType {
    #[serde(alias = "linear_attention", alias = "conv")]
    Mamba,
    #[serde(alias = "full_attention")]
    Attention,
    Mlp,
    Moe,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NemotronHConfig {
    pub(crate) hidden_size: usize,
    #[serde(default)]
    pub(crate) intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    /// The first models' name for it.
    attention_head_dim: Option<usize>,
    pub(crate) vocab_size: usize,
    pub(crate) layer_norm_epsilon: f32,
    #[serde(default)]
    pub(crate) attention_bias: bool,
    #[serde(default)]
    pub(crate) mlp_bias: bool,
    #[serde(default = "relu2")]
    pub(crate) mlp_hidden_act: Activation,
    sliding_window: Option<usize>,
    #[serde(default)]
    residual_in_fp32: bool,
    #[serde(flatten)]
    mamba: MambaConfig,
    #[serde(flatten)]
    pub(crate) moe: MoeConfig,
    num_hidden_layers: Option<usize>,
    hybrid_override_pattern: Option<Pattern>,
    layers_block_type: Option<Vec<LayerType>>,
    layer_types: Option<Vec<LayerType>>,
    /// As the pattern or the list says.
    #[serde(skip)]
    pub(crate) layers: Vec<LayerType>,
}

/// `M`, `*`, `-` and `E` in a row, or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Pattern {
    Row(String),
    List(Vec<String>),
}

#[derive(Debug, Clone, Deserialize)]
struct MambaConfig {
    mamba_num_heads: usize,
    mamba_head_dim: usize,
    #[serde(default)]
    mamba_proj_bias: bool,
    mamba_hidden_act: Option<Activation>,
    n_groups: usize,
    ssm_state_size: usize,
    conv_kernel: usize,
    #[serde(default = "yes")]
    use_conv_bias: bool,
    time_step_limit: Option<[f32; 2]>,
}

/// Of models with experts.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MoeConfig {
    n_routed_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    moe_intermediate_size: Option<usize>,
    n_shared_experts: Option<usize>,
    moe_shared_expert_intermediate_size: Option<usize>,
    /// Width that the chosen experts work in.
    pub(crate) moe_latent_size: Option<usize>,
    norm_topk_prob: Option<bool>,
    pub(crate) routed_scaling_factor: Option<f32>,
    n_group: Option<usize>,
    topk_group: Option<usize>,
}

fn relu2() -> Activation {
    Activation::Relu2
}

fn yes() -> bool {
    true
}

impl NemotronHConfig {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.head_dim = config.head_dim.or(config.attention_head_dim);
        if is_tied(hf)? {
            return Err(unsupported("tie_word_embeddings", "true"));
        }
        config.layers = config.layers()?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Heads of queries and of keys.
    pub(crate) fn heads(&self) -> [usize; 2] {
        [self.num_attention_heads, self.num_key_value_heads]
    }

    /// Layers of one kind, by their place among all.
    pub(crate) fn layers_of(&self, kind: LayerType) -> impl Iterator<Item = usize> {
        (0..self.layers.len()).filter(move |&layer| self.layers[layer] == kind)
    }

    /// Layers of the same kind before this one: its place in the pool.
    pub(crate) fn place(&self, layer: usize) -> usize {
        self.layers_of(self.layers[layer]).take_while(|&other| other < layer).count()
    }

    pub(crate) fn mamba_dims(&self) -> MambaDims {
        MambaDims {
            hidden: self.hidden_size,
            heads: self.mamba.mamba_num_heads,
            head_dim: self.mamba.mamba_head_dim,
            groups: self.mamba.n_groups,
            norm_groups: self.mamba.n_groups,
            state: self.mamba.ssm_state_size,
            taps: self.mamba.conv_kernel,
            eps: self.layer_norm_epsilon,
            proj_bias: self.mamba.mamba_proj_bias,
            conv_bias: self.mamba.use_conv_bias,
            step_limit: self.mamba.time_step_limit.unwrap_or([0.0, f32::INFINITY]),
        }
    }

    fn layers(&self) -> Result<Vec<LayerType>, LoadError> {
        let listed = self.layers_block_type.as_ref().or(self.layer_types.as_ref());
        let layers = match (&self.hybrid_override_pattern, listed) {
            (None, None) => {
                let reason = "neither it nor layers_block_type is given".to_owned();
                return Err(config_error("hybrid_override_pattern", reason));
            }
            (None, Some(listed)) => listed.clone(),
            (Some(pattern), listed) => {
                let layers = pattern.layers()?;
                if listed.is_some_and(|listed| *listed != layers) {
                    let reason = "is not as hybrid_override_pattern says".to_owned();
                    return Err(config_error("layers_block_type", reason));
                }
                layers
            }
        };
        let expected = self.num_hidden_layers.unwrap_or(layers.len());
        check_length("hybrid_override_pattern", layers.len(), expected)?;
        Ok(layers)
    }

    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.layers.len()),
            ("vocab_size", self.vocab_size),
        ])?;
        check_heads(self.hidden_size, self.heads(), self.head_dim)?;
        if !self.head_dim().is_multiple_of(2) {
            return Err(config_error("head_dim", format!("{} is odd", self.head_dim())));
        }
        if self.layers.contains(&LayerType::Mlp) {
            check_sizes(&[("intermediate_size", self.intermediate_size)])?;
        }
        if self.layers.contains(&LayerType::Moe) {
            self.moe.check()?;
        }
        if let Some(window) = self.sliding_window {
            return Err(unsupported("sliding_window", &window.to_string()));
        }
        if self.residual_in_fp32 {
            return Err(unsupported("residual_in_fp32", "true"));
        }
        self.mamba.check()
    }
}

impl Pattern {
    fn layers(&self) -> Result<Vec<LayerType>, LoadError> {
        let layer = |letter: &str| match letter {
            "M" => Ok(LayerType::Mamba),
            "*" => Ok(LayerType::Attention),
            "-" => Ok(LayerType::Mlp),
            "E" => Ok(LayerType::Moe),
            _ => Err(config_error("hybrid_override_pattern", format!("no layer is `{letter}`"))),
        };
        match self {
            Self::Row(row) => {
                row.chars().map(|letter| layer(letter.encode_utf8(&mut [0; 4]))).collect()
            }
            Self::List(list) => list.iter().map(|letter| layer(letter)).collect(),
        }
    }
}

impl MambaConfig {
    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("mamba_num_heads", self.mamba_num_heads),
            ("mamba_head_dim", self.mamba_head_dim),
            ("n_groups", self.n_groups),
            ("ssm_state_size", self.ssm_state_size),
        ])?;
        if !self.mamba_num_heads.is_multiple_of(self.n_groups) {
            let reason = format!("{} does not divide mamba_num_heads", self.n_groups);
            return Err(config_error("n_groups", reason));
        }
        if !(2..=64).contains(&self.conv_kernel) {
            let reason = format!("{} is not from 2 to 64", self.conv_kernel);
            return Err(config_error("conv_kernel", reason));
        }
        if let Some(act) = self.mamba_hidden_act.filter(|&act| act != Activation::Silu) {
            return Err(unsupported("mamba_hidden_act", &format!("{act:?}")));
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

impl MoeConfig {
    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("n_routed_experts", self.n_routed_experts.unwrap_or(0)),
            ("moe_intermediate_size", self.inner()),
            ("moe_latent_size", self.moe_latent_size.unwrap_or(1)),
            ("n_shared_experts", self.n_shared_experts.unwrap_or(1)),
            ("moe_shared_expert_intermediate_size", self.shared_inner().unwrap_or(1)),
        ])?;
        match self.routed_scaling_factor.filter(|factor| !factor.is_finite()) {
            Some(factor) => Err(config_error("routed_scaling_factor", factor.to_string())),
            None => Ok(()),
        }
    }

    /// Sizes of the experts that are chosen from.
    pub(crate) fn dims(&self, hidden: usize) -> MoeDims {
        MoeDims {
            num_experts: self.n_routed_experts.unwrap_or(0),
            hidden: self.moe_latent_size.unwrap_or(hidden),
            inner: self.inner(),
        }
    }

    fn inner(&self) -> usize {
        self.moe_intermediate_size.unwrap_or(0)
    }

    /// Inner width of the expert that every token takes.
    pub(crate) fn shared_inner(&self) -> Option<usize> {
        self.n_shared_experts.map(|_| self.moe_shared_expert_intermediate_size.unwrap_or(0))
    }

    /// Inner width of what a token takes together.
    pub(crate) fn widest(&self) -> usize {
        (self.top_k().top_k * self.inner()).max(self.shared_inner().unwrap_or(0))
    }

    pub(crate) fn top_k(&self) -> TopK {
        let top_k = self.num_experts_per_tok.unwrap_or(0);
        TopK { top_k, renormalize: top_k > 1 && self.norm_topk_prob == Some(true) }
    }

    pub(crate) fn groups(&self) -> Option<ExpertGroups> {
        let (num_groups, top_groups) = (self.n_group.unwrap_or(1), self.topk_group.unwrap_or(1));
        let groups = ExpertGroups { num_groups, top_groups, score: GroupScore::BestTwo };
        (num_groups != 1).then_some(groups)
    }
}

fn unsupported(what: &'static str, value: &str) -> LoadError {
    LoadError::Unsupported { what, value: value.to_owned() }
}
