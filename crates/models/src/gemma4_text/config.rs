//! What config.json says of a Gemma 4, with mlx-lm's values for what it leaves out.

use std::collections::BTreeMap;

use attention::AttentionShape;
use nn::{Activation, HfConfig, LoadError, RopeConfig, RopeScaling};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::{LayerType, check_heads, check_sizes, config_error, sliding_layers};

/// Every field that changes the graph.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Gemma4Config {
    model_type: String,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    /// Of layers without a window; 0 or null: as the others'.
    global_head_dim: Option<usize>,
    num_global_key_value_heads: Option<usize>,
    /// Layers without a window have keys for values.
    attention_k_eq_v: bool,
    pub(crate) vocab_size: usize,
    pub(super) vocab_size_per_layer_input: usize,
    hidden_size_per_layer_input: Option<usize>,
    num_kv_shared_layers: Option<usize>,
    use_double_wide_mlp: bool,
    pub(super) hidden_activation: Activation,
    pub(super) rms_norm_eps: f32,
    rope_parameters: Option<RopeByKind>,
    rope_traditional: bool,
    sliding_window: usize,
    sliding_window_pattern: usize,
    layer_types: Option<Vec<LayerType>>,
    pub(super) max_position_embeddings: usize,
    pub(super) final_logit_softcapping: Option<f32>,
    enable_moe_block: bool,
    num_experts: Option<usize>,
    top_k_experts: Option<usize>,
    moe_intermediate_size: Option<usize>,
    pub(super) tie_word_embeddings: bool,
    attention_bias: bool,
    use_bidirectional_attention: Option<String>,
    /// As transformers writes what is special about layers without a window.
    per_layer_config: Option<BTreeMap<String, LayerConfig>>,
    /// For each layer.
    #[serde(skip)]
    slides: Vec<bool>,
}

/// `rope_parameters`, for each kind of layer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RopeByKind {
    #[serde(default)]
    full_attention: Map<String, Value>,
    #[serde(default)]
    sliding_attention: Map<String, Value>,
}

/// An entry of `per_layer_config`.
#[derive(Debug, Clone, Deserialize)]
struct LayerConfig {
    head_dim: Option<usize>,
    num_key_value_heads: Option<usize>,
}

/// Experts of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct MoeSizes {
    pub(super) num_experts: usize,
    pub(super) top_k: usize,
    pub(super) inner: usize,
}

impl Default for Gemma4Config {
    fn default() -> Self {
        Self {
            model_type: "gemma4_text".to_owned(),
            hidden_size: 1536,
            intermediate_size: 6144,
            num_hidden_layers: 35,
            num_attention_heads: 8,
            num_key_value_heads: 1,
            head_dim: 256,
            global_head_dim: Some(512),
            num_global_key_value_heads: None,
            attention_k_eq_v: false,
            vocab_size: 262_144,
            vocab_size_per_layer_input: 262_144,
            hidden_size_per_layer_input: None,
            num_kv_shared_layers: None,
            use_double_wide_mlp: true,
            hidden_activation: Activation::GeluNew,
            rms_norm_eps: 1e-6,
            rope_parameters: None,
            rope_traditional: false,
            sliding_window: 512,
            sliding_window_pattern: 5,
            layer_types: None,
            max_position_embeddings: 131_072,
            final_logit_softcapping: Some(30.0),
            enable_moe_block: false,
            num_experts: None,
            top_k_experts: None,
            moe_intermediate_size: None,
            tie_word_embeddings: true,
            attention_bias: false,
            use_bidirectional_attention: None,
            per_layer_config: None,
            slides: Vec::new(),
        }
    }
}

impl Gemma4Config {
    pub(crate) fn new(text: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = text.parse()?;
        if text.raw().get("hidden_size_per_layer_input").is_some_and(Value::is_null) {
            config.hidden_size_per_layer_input = Some(0);
        }
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
            ("sliding_window", config.sliding_window),
            ("max_position_embeddings", config.max_position_embeddings),
        ])?;
        let heads = [config.num_attention_heads, config.num_key_value_heads];
        check_heads(config.hidden_size, heads, Some(config.head_dim))?;
        if let Some(kv_heads) = config.num_global_key_value_heads {
            let field = "num_global_key_value_heads";
            check_sizes(&[(field, kv_heads)])?;
            if !config.num_attention_heads.is_multiple_of(kv_heads) {
                let reason = format!("{kv_heads} does not divide num_attention_heads");
                return Err(config_error(field, reason));
            }
        }
        config.slides = sliding_layers(
            config.layer_types.as_deref(),
            config.sliding_window_pattern,
            config.num_hidden_layers,
        )?;
        config.check_values(text)?;
        config.check_sharing()?;
        config.check_per_layer_inputs()?;
        config.check_per_layer_config()?;
        config.moe()?;
        Ok(config)
    }

    /// Values that the graph does not follow.
    fn check_values(&self, text: &HfConfig) -> Result<(), LoadError> {
        if self.attention_bias {
            return Err(config_error("attention_bias", "true is not supported".to_owned()));
        }
        // Towards images alone ("vision"), of which there are none.
        if let Some(towards) = self.use_bidirectional_attention.as_deref()
            && towards != "vision"
        {
            let (what, value) = ("use_bidirectional_attention", towards.to_owned());
            return Err(LoadError::Unsupported { what, value });
        }
        if self.final_logit_softcapping.is_some_and(|cap| cap <= 0.0 || !cap.is_finite()) {
            let reason = "must be positive or null".to_owned();
            return Err(config_error("final_logit_softcapping", reason));
        }
        let field = "global_partial_rotary_factor";
        let of_rope = self.rope(false)?.partial_rotary_factor;
        match text.get(field).and_then(Value::as_f64) {
            Some(factor) if factor as f32 != of_rope => {
                let reason = format!("{factor} where rope_parameters say {of_rope}");
                Err(config_error(field, reason))
            }
            _ => Ok(()),
        }
    }

    /// A layer without K and V of its own has an owner of its kind.
    fn check_sharing(&self) -> Result<(), LoadError> {
        let field = "num_kv_shared_layers";
        if self.num_kv_shared_layers() >= self.num_hidden_layers {
            let reason = format!("{} of {}", self.num_kv_shared_layers(), self.num_hidden_layers);
            return Err(config_error(field, reason));
        }
        let (owners, others) = self.slides.split_at(self.num_owners());
        match others.iter().find(|slides| !owners.contains(slides)) {
            Some(_) => Err(config_error(field, "no layer of the kind before them".to_owned())),
            None => Ok(()),
        }
    }

    fn check_per_layer_inputs(&self) -> Result<(), LoadError> {
        let (field, rows) = ("vocab_size_per_layer_input", self.vocab_size_per_layer_input);
        if self.per_layer_width() > 0 && rows < self.vocab_size {
            return Err(config_error(field, format!("{rows} is below vocab_size")));
        }
        check_sizes(&[(field, rows)])?;
        let width = self.num_hidden_layers.saturating_mul(self.per_layer_width());
        check_sizes(&[("hidden_size_per_layer_input", width.max(1))])
    }

    /// It must not say anything else than the other fields.
    fn check_per_layer_config(&self) -> Result<(), LoadError> {
        for (layer, special) in self.per_layer_config.iter().flatten() {
            let index = layer.parse().ok().filter(|&index| index < self.num_hidden_layers);
            let is_alike = index.is_some_and(|index: usize| {
                let shape = self.attention_shape(index);
                special.head_dim.is_none_or(|dim| dim == shape.head_dim)
                    && special.num_key_value_heads.is_none_or(|heads| heads == shape.num_kv_heads)
            });
            if !is_alike {
                let reason = format!("layer {layer} is not as the other fields say");
                return Err(config_error("per_layer_config", reason));
            }
        }
        Ok(())
    }

    /// The 12B ("unified") has no per-layer inputs and shares nothing unless it says so.
    fn is_unified(&self) -> bool {
        self.model_type == "gemma4_unified_text"
    }

    /// Width of a layer's own input; 0 without such inputs.
    pub(super) fn per_layer_width(&self) -> usize {
        let default = if self.is_unified() { 0 } else { 256 };
        self.hidden_size_per_layer_input.unwrap_or(default)
    }

    fn num_kv_shared_layers(&self) -> usize {
        self.num_kv_shared_layers.unwrap_or(if self.is_unified() { 0 } else { 20 })
    }

    /// Layers with K and V of their own, which come first.
    pub(crate) fn num_owners(&self) -> usize {
        self.num_hidden_layers.saturating_sub(self.num_kv_shared_layers())
    }

    /// The layer whose cache `layer` reads: itself, or the last owner of its kind.
    pub(super) fn owner(&self, layer: usize) -> usize {
        if layer < self.num_owners() {
            return layer;
        }
        let mut owners = self.slides[..self.num_owners()].iter();
        let owner = owners.rposition(|&slides| slides == self.slides[layer]);
        owner.expect("there is one: check_sharing")
    }

    pub(super) fn slides(&self, layer: usize) -> bool {
        self.slides[layer]
    }

    /// Whether a layer takes its keys, before their norm, for values.
    pub(super) fn keys_are_values(&self, layer: usize) -> bool {
        self.attention_k_eq_v && !self.slides[layer]
    }

    pub(super) fn attention_shape(&self, layer: usize) -> AttentionShape {
        let slides = self.slides[layer];
        let global_kv_heads =
            self.num_global_key_value_heads.filter(|_| self.keys_are_values(layer));
        let global_dim = self.global_head_dim.filter(|&dim| dim > 0 && !slides);
        AttentionShape {
            layer_id: self.owner(layer),
            num_heads: self.num_attention_heads,
            num_kv_heads: global_kv_heads.unwrap_or(self.num_key_value_heads),
            head_dim: global_dim.unwrap_or(self.head_dim),
            scale: 1.0,
            sliding_window: slides.then_some(self.sliding_window),
            ..AttentionShape::default()
        }
    }

    /// Width inside the MLP of a layer.
    pub(super) fn mlp_width(&self, layer: usize) -> usize {
        let is_double = self.use_double_wide_mlp && layer >= self.num_owners();
        self.intermediate_size * if is_double { 2 } else { 1 }
    }

    /// The widest rows between a layer's products, all that are made at once.
    pub(super) fn widest(&self) -> usize {
        let mlps = (0..self.num_hidden_layers).map(|layer| self.mlp_width(layer));
        let experts = self.moe().ok().flatten().map_or(0, |moe| moe.top_k * moe.inner);
        let inputs = self.num_hidden_layers * self.per_layer_width();
        mlps.chain([experts, inputs]).max().unwrap_or(0)
    }

    /// The experts beside each layer's MLP, if there are any.
    pub(super) fn moe(&self) -> Result<Option<MoeSizes>, LoadError> {
        if !self.enable_moe_block {
            return Ok(None);
        }
        let size = |field, value: Option<usize>| {
            let value = value.unwrap_or(0);
            check_sizes(&[(field, value)]).map(|()| value)
        };
        Ok(Some(MoeSizes {
            num_experts: size("num_experts", self.num_experts)?,
            top_k: size("top_k_experts", self.top_k_experts)?,
            inner: size("moe_intermediate_size", self.moe_intermediate_size)?,
        }))
    }

    /// How layers with or without a window rotate.
    pub(super) fn rope(&self, slides: bool) -> Result<RopeConfig, LoadError> {
        let parameters = match &self.rope_parameters {
            Some(by_kind) if slides => Value::Object(by_kind.sliding_attention.clone()),
            Some(by_kind) => Value::Object(by_kind.full_attention.clone()),
            None if slides => json!({"rope_type": "default", "rope_theta": 1e4}),
            None => json!({"rope_type": "proportional", "rope_theta": 1e6,
                           "partial_rotary_factor": 0.25}),
        };
        let fields = [
            ("rope_parameters", parameters),
            ("rope_traditional", self.rope_traditional.into()),
            ("max_position_embeddings", self.max_position_embeddings.into()),
        ];
        let fields = fields.map(|(field, value)| (field.to_owned(), value));
        let config = HfConfig::from_map(fields.into_iter().collect())?;
        let rope = RopeConfig::partial_from_config(&config)?;
        match rope.scaling {
            RopeScaling::Proportional { .. } => Ok(rope),
            // The other kinds turn whole heads.
            _ => RopeConfig::from_config(&config),
        }
    }
}
