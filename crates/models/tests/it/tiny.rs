//! Tiny checkpoints: a golden's config with weights computed from the tensors'
//! names, as in `tools/oracle/tiny_models.py`.

use std::{collections::BTreeMap, fs, path::Path};

use mlx::{
    Array, Dtype,
    quantized::{QuantMode, quantize},
};
use models::{CausalLm, HfConfig};
use nn::{LoadError, LoadOptions, TensorSource, Unpack, WeightStore, Weights};
use serde_json::Value;

mod bailing_moe;
mod gemma4;
mod gpt_oss;
mod granite_hybrid;
mod kimi_linear;
mod lfm2_moe;
mod llama4;
mod minimax;
mod nemotron_h;

/// One file of `testdata`.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) prompt: Vec<i32>,
    pub(crate) output_ids: Vec<i32>,
    pub(crate) margins: Vec<f32>,
    pub(crate) logits: Vec<f32>,
}

/// All of them, by name.
pub(crate) fn goldens() -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let files = |folder: &Path| {
        let mut paths: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let paths = files(&root).into_iter().flat_map(|family| files(&family));
    let goldens: Vec<Golden> = paths.map(|path| Golden::read(&path)).collect();
    assert!(goldens.len() >= 13, "{}", goldens.len());
    goldens
}

pub(crate) fn golden(name: &str) -> Golden {
    goldens().into_iter().find(|golden| golden.name == name).unwrap()
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let mut file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let numbers = |field: &str| -> Vec<f32> {
            let list = file[field].as_array().unwrap().iter();
            list.map(|number| number.as_f64().unwrap() as f32).collect()
        };
        let ids = |field: &str| numbers(field).iter().map(|&id| id as i32).collect();
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            prompt: ids("prompt"),
            output_ids: ids("output_ids"),
            margins: numbers("margins"),
            logits: numbers("logits"),
            config: file["config"].take(),
        }
    }

    pub(crate) fn hf_config(&self) -> HfConfig {
        HfConfig::from_json(&self.config.to_string()).unwrap()
    }

    pub(crate) fn load(&self, unpack: Unpack) -> Box<dyn CausalLm> {
        self.load_as(Dtype::Float32, unpack)
    }

    pub(crate) fn load_as(&self, compute_dtype: Dtype, unpack: Unpack) -> Box<dyn CausalLm> {
        let options = LoadOptions { compute_dtype, unpack };
        load(&self.config, &checkpoint(&self.config), options).unwrap()
    }
}

pub(crate) fn load(
    config: &Value,
    tensors: &BTreeMap<String, Array>,
    options: LoadOptions,
) -> Result<Box<dyn CausalLm>, LoadError> {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let config = HfConfig::from_json(&config.to_string())?;
    let mut store = WeightStore::new(options);
    store.set_quant(config.quant().clone());
    for (name, array) in tensors {
        store.insert(name.as_str(), Box::new(InMemory::new(array.clone())))?;
    }
    models::load(&config, &Weights::new(store))
}

/// Names and shapes.
type Modules = Vec<(String, Vec<usize>)>;

/// Every tensor of the checkpoint, as stored.
pub(crate) fn checkpoint(config: &Value) -> BTreeMap<String, Array> {
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes(config) {
        let array = Array::from_slice(&values(&name, shape.iter().product()), &shape).unwrap();
        let module = name.strip_suffix(".weight").unwrap_or(&name);
        let Some((group_size, bits, mode)) = packing(config, module).filter(|_| {
            let is_matrix = shape.len() >= 2 && name.ends_with(".weight");
            is_matrix && !name.contains("conv1d") && !name.contains("conv.conv")
        }) else {
            tensors.insert(name, array);
            continue;
        };
        let packed = quantize(&array, group_size, bits, mode).unwrap();
        tensors.insert(format!("{module}.scales"), packed.scales);
        tensors.extend(packed.biases.map(|biases| (format!("{module}.biases"), biases)));
        tensors.insert(name, packed.weight);
    }
    tensors
}

/// Group size, bits and mode of a module, if it is quantized.
fn packing(config: &Value, module: &str) -> Option<(usize, usize, QuantMode)> {
    let default = config.get("quantization")?;
    let spec = default.get(module).unwrap_or(default);
    let number = |field: &str| spec.get(field)?.as_u64().map(|value| value as usize);
    let mode = spec.get("mode").map_or("affine", |mode| mode.as_str().unwrap());
    Some((number("group_size")?, number("bits")?, mode.parse().unwrap()))
}

fn shapes(config: &Value) -> Modules {
    match config["model_type"].as_str() {
        Some("bailing_moe") => return bailing_moe::shapes(config),
        Some("gpt_oss") => return gpt_oss::shapes(config),
        Some("granitemoe" | "granitemoehybrid") => return granite_hybrid::shapes(config),
        Some("kimi_linear") => return kimi_linear::shapes(config),
        Some("minimax" | "minimax_m2") => return minimax::shapes(config),
        Some("llama4" | "llama4_text") => return llama4::shapes(config),
        Some("nemotron_h") => return nemotron_h::shapes(config),
        _ => {}
    }
    if let Some(text) = config.get("text_config") {
        let below = |(name, shape)| (format!("language_model.{name}"), shape);
        let mut text = text.clone();
        if let Some(quantization) = config.get("quantization") {
            text["quantization"] = quantization.clone();
        }
        return shapes(&text).into_iter().map(below).collect();
    }
    if kind(config).starts_with("gemma4") {
        return gemma4::shapes(config);
    }
    let required = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, vocab) = (required("hidden_size"), required("vocab_size"));
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        (
            format!("model.{}.weight", if is_lfm2(config) { "embedding_norm" } else { "norm" }),
            vec![hidden],
        ),
    ];
    if config["tie_word_embeddings"] != true {
        shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    }
    for layer in 0..required("num_hidden_layers") {
        let (attention, mut norms) = attention(config, layer);
        let of_rows = layer_norms(kind(config)).iter();
        norms.extend(of_rows.map(|norm| (format!("{norm}_layernorm"), hidden)));
        if is_lfm2(config) {
            norms.extend(["operator_norm", "ffn_norm"].map(|norm| (norm.to_owned(), hidden)));
        }
        let bare = bare_tensors(config, layer).into_iter();
        shapes.extend(bare.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
        for (norm, width) in &norms {
            shapes.push((format!("model.layers.{layer}.{norm}.weight"), vec![*width]));
        }
        for (name, shape) in attention.into_iter().chain(mlp(config, layer)) {
            if has_bias(config, &name) {
                shapes.push((format!("model.layers.{layer}.{name}.bias"), vec![shape[0]]));
            }
            if name.ends_with("mlp.gate") && config["topk_method"] == "noaux_tc" {
                let bias = format!("model.layers.{layer}.{name}.e_score_correction_bias");
                shapes.push((bias, vec![shape[0]]));
            }
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    shapes
}

fn kind(config: &Value) -> &str {
    config["model_type"].as_str().unwrap()
}

/// Norms of a layer's rows.
fn layer_norms(kind: &str) -> &'static [&'static str] {
    match kind {
        "cohere2" => &["input"],
        "lfm2" | "lfm2_moe" => &[],
        "gemma2" | "gemma3_text" => {
            &["input", "post_attention", "pre_feedforward", "post_feedforward"]
        }
        "glm4" => &["input", "post_self_attn", "post_attention", "post_mlp"],
        "olmo2" | "olmo3" => &["post_attention", "post_feedforward"],
        _ => &["input", "post_attention"],
    }
}

fn is_lfm2(config: &Value) -> bool {
    matches!(kind(config), "lfm2" | "lfm2_moe")
}

fn is_hybrid(config: &Value) -> bool {
    kind(config).starts_with("qwen3_5") || kind(config) == "qwen3_next"
}

fn is_recurrent(config: &Value, layer: usize) -> bool {
    if is_lfm2(config) {
        return match config.get("full_attn_idxs").and_then(Value::as_array) {
            Some(attending) => !attending.contains(&Value::from(layer)),
            None => config["layer_types"][layer] == "conv",
        };
    }
    let interval = || config["full_attention_interval"].as_u64().unwrap() as usize;
    is_hybrid(config) && !(layer + 1).is_multiple_of(interval())
}

/// Modules of a gated delta net, and its norm; or of a short convolution.
fn recurrent(config: &Value) -> (Modules, Vec<(String, usize)>) {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let hidden = number("hidden_size");
    if is_lfm2(config) {
        let modules = [("conv.in_proj", [3 * hidden, hidden]), ("conv.out_proj", [hidden, hidden])];
        return (modules.map(|(name, shape)| (name.to_owned(), shape.to_vec())).into(), Vec::new());
    }
    let heads = number("linear_num_value_heads");
    let keys = number("linear_num_key_heads") * number("linear_key_head_dim");
    let values = heads * number("linear_value_head_dim");
    let parts = match kind(config) {
        "qwen3_next" => vec![("qkvz", 2 * keys + 2 * values), ("ba", 2 * heads)],
        _ => vec![("qkv", 2 * keys + values), ("z", values), ("b", heads), ("a", heads)],
    };
    let module = |(name, rows)| (format!("linear_attn.in_proj_{name}"), vec![rows, hidden]);
    let mut modules: Modules = parts.into_iter().map(module).collect();
    modules.push(("linear_attn.out_proj".to_owned(), vec![hidden, values]));
    (modules, vec![("linear_attn.norm".to_owned(), number("linear_value_head_dim"))])
}

/// Tensors of a layer that are no matrices of modules.
fn bare_tensors(config: &Value, layer: usize) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let is_plain = config.get("quantization").is_none();
    let mut tensors = Vec::new();
    if is_lfm2(config) {
        tensors.extend(lfm2_moe::expert_bias(config, layer));
    }
    if is_lfm2(config) && is_recurrent(config, layer) {
        let (hidden, taps) = (number("hidden_size"), number("conv_L_cache"));
        let shape = if is_plain { vec![hidden, 1, taps] } else { vec![hidden, taps, 1] };
        tensors.push(("conv.conv.weight", shape));
        if config["conv_bias"] == true {
            tensors.push(("conv.conv.bias", vec![hidden]));
        }
    } else if is_recurrent(config, layer) {
        let (heads, taps) = (number("linear_num_value_heads"), number("linear_conv_kernel_dim"));
        let keys = number("linear_num_key_heads") * number("linear_key_head_dim");
        let channels = 2 * keys + heads * number("linear_value_head_dim");
        let conv = if is_plain { vec![channels, 1, taps] } else { vec![channels, taps, 1] };
        tensors.push(("linear_attn.conv1d.weight", conv));
        tensors
            .extend(["linear_attn.A_log", "linear_attn.dt_bias"].map(|name| (name, vec![heads])));
    }
    if kind(config).starts_with("qwen3_5_moe") && is_plain {
        let (experts, inner) = (number("num_experts"), number("moe_intermediate_size"));
        let hidden = number("hidden_size");
        tensors.push(("mlp.experts.gate_up_proj", vec![experts, 2 * inner, hidden]));
        tensors.push(("mlp.experts.down_proj", vec![experts, hidden, inner]));
    }
    tensors.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect()
}

/// Modules of a layer's first half and their shapes, and the widths of its norms.
fn attention(config: &Value, layer: usize) -> (Modules, Vec<(String, usize)>) {
    if is_recurrent(config, layer) {
        return recurrent(config);
    }
    let number = |field: &str| config.get(field).and_then(Value::as_u64).map(|n| n as usize);
    let (hidden, heads) = (number("hidden_size").unwrap(), number("num_attention_heads").unwrap());
    if let Some(rank) = number("kv_lora_rank") {
        return latent_attention(config, rank);
    }
    let head_dim = number("head_dim").unwrap_or(hidden / heads);
    let (q, kv) = (heads * head_dim, number("num_key_value_heads").unwrap() * head_dim);
    let mut modules = match kind(config) {
        "phi3" => vec![("self_attn.qkv_proj", vec![q + 2 * kv, hidden])],
        _ => vec![
            ("self_attn.q_proj", vec![if is_hybrid(config) { 2 * q } else { q }, hidden]),
            ("self_attn.k_proj", vec![kv, hidden]),
            ("self_attn.v_proj", vec![kv, hidden]),
        ],
    };
    modules.push(("self_attn.o_proj", vec![hidden, q]));
    if is_lfm2(config) {
        modules.last_mut().unwrap().0 = "self_attn.out_proj";
        let norms = ["q", "k"].map(|part| (format!("self_attn.{part}_layernorm"), head_dim));
        let modules = modules.into_iter().map(|(name, shape)| (name.to_owned(), shape));
        return (modules.collect(), norms.into());
    }
    let norms = match kind(config) {
        "gemma3_text" | "qwen3" | "qwen3_moe" | "qwen3_vl_text" => Some([head_dim, head_dim]),
        _ if is_hybrid(config) || config["use_qk_norm"] == true => Some([head_dim, head_dim]),
        "olmo2" | "olmo3" | "olmoe" => Some([q, kv]),
        _ => None,
    };
    let norms = norms.into_iter().flat_map(|widths| {
        ["q", "k"].map(|part| format!("self_attn.{part}_norm")).into_iter().zip(widths)
    });
    let modules = modules.into_iter().map(|(name, shape)| (name.to_owned(), shape));
    (modules.collect(), norms.collect())
}

/// Modules of multi-head latent attention.
fn latent_attention(config: &Value, rank: usize) -> (Modules, Vec<(String, usize)>) {
    let number = |field: &str| config[field].as_u64().map(|value| value as usize);
    let required = |field: &str| number(field).unwrap();
    let (hidden, heads) = (required("hidden_size"), required("num_attention_heads"));
    let (rope, nope) = (required("qk_rope_head_dim"), required("qk_nope_head_dim"));
    let (q, values) = (heads * (nope + rope), heads * required("v_head_dim"));
    let mut modules = vec![
        ("self_attn.kv_a_proj_with_mqa", vec![rank + rope, hidden]),
        ("self_attn.o_proj", vec![hidden, values]),
    ];
    if config.get("quantization").is_some() && config["model_type"] != "deepseek_v2" {
        modules.push(("self_attn.embed_q", vec![heads, rank, nope]));
        modules.push(("self_attn.unembed_out", vec![heads, values / heads, rank]));
    } else {
        modules.push(("self_attn.kv_b_proj", vec![heads * nope + values, rank]));
    }
    let mut norms = vec![("self_attn.kv_a_layernorm".to_owned(), rank)];
    norms.extend(number("q_lora_rank").map(|rank| ("self_attn.q_a_layernorm".to_owned(), rank)));
    match number("q_lora_rank") {
        None => modules.push(("self_attn.q_proj", vec![q, hidden])),
        Some(rank) => modules.extend([
            ("self_attn.q_a_proj", vec![rank, hidden]),
            ("self_attn.q_b_proj", vec![q, rank]),
        ]),
    }
    (modules.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect(), norms)
}

fn has_bias(config: &Value, name: &str) -> bool {
    let flag = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or(false);
    let is_out = name.contains("o_proj");
    match name.contains("attn") {
        _ if flag("use_bias") || name.starts_with("conv.") => flag("use_bias") || flag("conv_bias"),
        false => flag("mlp_bias"),
        true if is_out && matches!(kind(config), "glm4" | "glm4_moe") => false,
        true if is_out && config.get("attention_out_bias").is_some() => flag("attention_out_bias"),
        true => flag("attention_bias") || flag("qkv_bias") && !is_out,
    }
}

/// Modules of a layer's second half. Experts are stacked in quantized checkpoints,
/// as mlx-lm's converter leaves them, and single in plain ones, as published.
fn mlp(config: &Value, layer: usize) -> Modules {
    let number =
        |field: &str| config.get(field).and_then(Value::as_u64).map(|value| value as usize);
    let (hidden, inner) = (number("hidden_size").unwrap(), number("intermediate_size").unwrap());
    if is_lfm2(config) {
        return lfm2_moe::feed_forward(config, layer);
    }
    if matches!(kind(config), "glm4" | "phi3") {
        let modules = [("gate_up", [2 * inner, hidden]), ("down", [hidden, inner])];
        return modules.map(|(name, shape)| (format!("mlp.{name}_proj"), shape.to_vec())).into();
    }
    let experts = ["num_experts", "num_local_experts", "n_routed_experts"];
    let experts = experts.iter().find_map(|field| number(field)).unwrap_or(0);
    let dense = config.get("mlp_only_layers").and_then(Value::as_array);
    let is_dense = dense.is_some_and(|layers| layers.contains(&Value::from(layer)))
        || layer < number("first_k_dense_replace").unwrap_or(0)
        || !layer.is_multiple_of(number("moe_layer_freq").unwrap_or(1));
    if experts == 0 || is_dense {
        return gated("mlp", hidden, inner, MLP_NAMES);
    }
    let inner = number("moe_intermediate_size").unwrap_or(inner);
    let is_mixtral = config["model_type"] == "mixtral";
    let at = if is_mixtral { "block_sparse_moe" } else { "mlp" };
    let mut parts = if config.get("quantization").is_some() {
        let stack = |(name, shape): (String, Vec<usize>)| (name, [vec![experts], shape].concat());
        let modules = gated(&format!("{at}.switch_mlp"), hidden, inner, MLP_NAMES);
        modules.into_iter().map(stack).collect()
    } else if kind(config).starts_with("qwen3_5_moe") {
        Vec::new() // All in one tensor.
    } else {
        let names = if is_mixtral { ["w1", "w3", "w2"] } else { MLP_NAMES };
        let expert = |n| gated(&format!("{at}.experts.{n}"), hidden, inner, names);
        (0..experts).flat_map(expert).collect::<Vec<_>>()
    };
    parts.push((format!("{at}.gate"), vec![experts, hidden]));
    if let Some(inner) = number("shared_expert_intermediate_size") {
        parts.extend(gated(&format!("{at}.shared_expert"), hidden, inner, MLP_NAMES));
        parts.push((format!("{at}.shared_expert_gate"), vec![1, hidden]));
    }
    if let Some(shared) = number("n_shared_experts") {
        parts.extend(gated(&format!("{at}.shared_experts"), hidden, inner * shared, MLP_NAMES));
    }
    parts
}

const MLP_NAMES: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

fn gated(module: &str, hidden: usize, inner: usize, names: [&str; 3]) -> Modules {
    let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
    let parts = names.iter().zip(shapes);
    parts.map(|(name, shape)| (format!("{module}.{name}"), shape.to_vec())).collect()
}

/// 16 random bits for each element, as an exact f32.
pub(crate) fn values(name: &str, len: usize) -> Vec<f32> {
    let digest = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    let value = |index: u64| {
        let mut x = digest.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
        let unit = f32::from((x >> 48) as u16) / 32768.0 - 1.0;
        match name {
            _ if name.ends_with("norm.weight") => 1.0 + unit * 0.25,
            _ if name.ends_with("layer_scalar") => 0.75 + unit * 0.25,
            _ if name.contains("embed_tokens") => unit,
            // Beyond the limit of gpt-oss's gates and values.
            _ if name.contains(".experts.")
                && name.ends_with("bias")
                && !name.contains("down_proj") =>
            {
                unit * 8.0
            }
            _ => unit * 0.25,
        }
    };
    (1..=len as u64).map(value).collect()
}

pub(crate) struct InMemory {
    array: Array,
    shape: Vec<usize>,
}

impl InMemory {
    pub(crate) fn new(array: Array) -> Self {
        Self { shape: array.shape(), array }
    }
}

impl TensorSource for InMemory {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> Dtype {
        self.array.dtype()
    }

    fn load(&self) -> Result<Array, LoadError> {
        Ok(self.array.clone())
    }
}
