//! BERT and XLM-RoBERTa: encoders, whose tokens see all others of their text.
//!
//! Nothing is cached: a text comes whole and leaves no K and V. Attention is one product of
//! MLX for each text of a step.
//!
//! Upstream: `sglang/srt/models/bert.py`, `sglang/srt/models/roberta.py`.

use attention::{AttentionShape, ForwardBatch};
use mlx::{
    Array, Result,
    fast::{SdpaMask, scaled_dot_product_attention},
};
use nn::{
    Activation, Embedding, HfConfig, LayerNorm, LeftOver, Linear, LoadError, MergedLinear, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm,
    config::{check_sizes, config_error},
};

/// Architectures, and where their tensors are unless names are bare.
const ARCHITECTURES: &[(&str, &str)] = &[
    ("BertForSequenceClassification", "bert"),
    ("BertModel", "bert"),
    ("RobertaForSequenceClassification", "roberta"),
    ("RobertaModel", "roberta"),
    ("XLMRobertaForSequenceClassification", "roberta"),
    ("XLMRobertaModel", "roberta"),
];

#[derive(Debug, Clone, Deserialize)]
struct BertConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    hidden_act: Activation,
    layer_norm_eps: f32,
    position_embedding_type: Option<String>,
    pad_token_id: Option<usize>,
}

/// An encoder and its head of labels, if it has one.
struct Bert {
    config: BertConfig,
    first_position: usize,
    embeddings: Embeddings,
    layers: Vec<EncoderLayer>,
    head: Option<Head>,
}

struct Embeddings {
    word_embeddings: Embedding,
    /// `[max_position_embeddings - first_position, hidden]`, from a text's first token on,
    /// with the type of a first text added.
    positions: Array,
    /// `[2, hidden]`, what a token's type adds to that; `None`: there is one type.
    types: Option<Array>,
    norm: LayerNorm,
}

struct EncoderLayer {
    qkv: MergedLinear,
    num_heads: usize,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    act: Activation,
    output: Linear,
    output_norm: LayerNorm,
}

/// Of the first token.
struct Head {
    dense: Linear,
    out_proj: Linear,
    num_labels: usize,
    /// Of the labels' logits.
    act: HeadAct,
}

/// `sbert_ce_default_activation_function`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeadAct {
    Identity,
    Sigmoid,
}

/// Whether a model of this config is an encoder.
pub(crate) fn is_encoder(config: &HfConfig) -> bool {
    prefix(config).is_some()
}

/// The encoder, and how many labels its head has, if it has one.
pub(crate) fn load(
    hf: &HfConfig,
    w: &Weights,
) -> std::result::Result<(Box<dyn CausalLm>, Option<usize>), LoadError> {
    let prefix = prefix(hf).unwrap_or("bert");
    let config = BertConfig::new(hf)?;
    // RoBERTa counts positions from behind that of padding.
    let first_position = match prefix {
        "roberta" => config.pad_token_id.unwrap_or(1) + 1,
        _ => 0,
    };
    if config.max_position_embeddings <= first_position {
        let reason = format!("{} leaves no position", config.max_position_embeddings);
        return Err(config_error("max_position_embeddings", reason));
    }
    let body = if w.at(prefix).is_empty() { w.clone() } else { w.at(prefix) };
    let layers = (0..config.num_hidden_layers)
        .map(|layer| EncoderLayer::load(&config, &body.at("encoder.layer").layer(layer)))
        .collect::<std::result::Result<_, _>>()?;
    let embeddings = Embeddings::load(&config, &body.at("embeddings"), first_position)?;
    let has_head = hf.architectures().iter().any(|name| name.ends_with("Classification"));
    let head = has_head.then(|| Head::load((hf, &config), (w, &body), prefix)).transpose()?;
    let pooler = [body.path(), "pooler"].join(if body.path().is_empty() { "" } else { "." });
    w.finish(&[LeftOver::Module(&pooler), LeftOver::Suffix("embeddings.position_ids")])?;
    let num_labels = head.as_ref().map(|head| head.num_labels);
    let model = Bert { config, first_position, embeddings, layers, head };
    Ok((Box::new(model), num_labels))
}

fn prefix(config: &HfConfig) -> Option<&'static str> {
    let named = |name: &String| ARCHITECTURES.iter().find(|entry| entry.0 == name);
    config.architectures().iter().find_map(named).map(|entry| entry.1)
}

impl CausalLm for Bert {
    /// Hidden states of the sampled rows, `[num_sampled, hidden_size]`, or of the head's
    /// labels, `[num_sampled, num_labels]`: logits, unless its config has them go through
    /// a sigmoid.
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let mut hidden = self.embeddings.forward(batch)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, batch)?;
        }
        let hidden = batch.select_sampled(&hidden)?;
        match &self.head {
            Some(head) => head.forward(&hidden),
            None => Ok(hidden),
        }
    }

    /// None: nothing is cached.
    fn kv_layout(&self) -> Vec<AttentionShape> {
        Vec::new()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn intermediate_size(&self) -> usize {
        self.config.intermediate_size
    }

    fn context_length(&self) -> usize {
        self.config.max_position_embeddings - self.first_position
    }
}

impl Embeddings {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let words = self.word_embeddings.forward(&batch.input_ids)?;
        let mut sum = words.add(&self.positions.take(&batch.positions, 0)?)?;
        if let Some((types, of_tokens)) = self.types.as_ref().zip(batch.token_types.as_ref()) {
            sum = sum.add(&types.take(of_tokens, 0)?)?;
        }
        self.norm.forward(&sum)
    }

    fn load(
        config: &BertConfig,
        w: &Weights,
        first_position: usize,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, all) = (config.hidden_size, config.max_position_embeddings);
        let positions = w.at("position_embeddings").take("weight", &[all, hidden])?;
        let types = w.at("token_type_embeddings");
        let types = types.take("weight", &[config.type_vocab_size, hidden])?;
        let width = hidden as i32;
        let first_type = types.slice(&[0, 0], &[1, width], &[1, 1])?;
        let positions =
            positions.slice(&[first_position as i32, 0], &[all as i32, width], &[1, 1])?;
        let positions = positions.add(&first_type)?;
        positions.eval()?;
        let types = if config.type_vocab_size < 2 {
            None
        } else {
            let more = types.slice(&[0, 0], &[2, width], &[1, 1])?.subtract(&first_type)?;
            more.eval()?;
            Some(more)
        };
        let words = w.at("word_embeddings");
        Ok(Self {
            word_embeddings: Embedding::load(words, config.vocab_size, hidden, false)?,
            positions,
            types,
            norm: LayerNorm::load_biased(w.at("LayerNorm"), hidden, config.layer_norm_eps)?,
        })
    }
}

impl EncoderLayer {
    fn forward(&self, hidden: &Array, batch: &ForwardBatch) -> Result<Array> {
        let attn = self.attend(&self.qkv.forward(hidden)?, batch)?;
        let attn = self.attention_output.forward(&attn)?;
        let hidden = self.attention_norm.forward(&attn.add(hidden)?)?;
        let inner = self.act.apply(&self.intermediate.forward(&hidden)?)?;
        self.output_norm.forward(&self.output.forward(&inner)?.add(&hidden)?)
    }

    /// `[num_tokens, 3 * hidden]` to `[num_tokens, hidden]`, text by text.
    fn attend(&self, qkv: &Array, batch: &ForwardBatch) -> Result<Array> {
        let (width, heads) = (qkv.dim(1) / 3, self.num_heads);
        let head_dim = width / heads;
        let scale = (head_dim as f32).sqrt().recip();
        let texts = batch.extents.iter().map(|extent| {
            let (start, end) = (extent.start as i32, (extent.start + extent.len) as i32);
            let part = |index: usize| {
                let (from, to) = ((index * width) as i32, ((index + 1) * width) as i32);
                qkv.slice(&[start, from], &[end, to], &[1, 1])?
                    .reshape(&[1, extent.len, heads, head_dim])?
                    .transpose(&[0, 2, 1, 3])
            };
            let (q, k, v) = (part(0)?, part(1)?, part(2)?);
            scaled_dot_product_attention(&q, &k, &v, scale, SdpaMask::None, None)?
                .transpose(&[0, 2, 1, 3])?
                .reshape(&[extent.len, width])
        });
        let texts = texts.collect::<Result<Vec<_>>>()?;
        match texts.as_slice() {
            [only] => Ok(only.clone()),
            texts => Array::concatenate(&texts.iter().collect::<Vec<_>>(), 0),
        }
    }

    fn load(config: &BertConfig, w: &Weights) -> std::result::Result<Self, LoadError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let attention = w.at("attention");
        let part = |name| (attention.at("self").at(name), hidden);
        let norm = |w: Weights| LayerNorm::load_biased(w, hidden, config.layer_norm_eps);
        Ok(Self {
            qkv: MergedLinear::load(&[part("query"), part("key"), part("value")], hidden, true)?,
            num_heads: config.num_attention_heads,
            attention_output: Linear::load(attention.at("output.dense"), hidden, hidden, true)?,
            attention_norm: norm(attention.at("output.LayerNorm"))?,
            intermediate: Linear::load(w.at("intermediate.dense"), hidden, inner, true)?,
            act: config.hidden_act,
            output: Linear::load(w.at("output.dense"), inner, hidden, true)?,
            output_norm: norm(w.at("output.LayerNorm"))?,
        })
    }
}

impl Head {
    fn forward(&self, hidden: &Array) -> Result<Array> {
        let logits = self.out_proj.forward(&self.dense.forward(hidden)?.tanh()?)?;
        match self.act {
            HeadAct::Identity => Ok(logits),
            HeadAct::Sigmoid => logits.sigmoid(),
        }
    }

    fn load(
        (hf, config): (&HfConfig, &BertConfig),
        (w, body): (&Weights, &Weights),
        prefix: &str,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = config.hidden_size;
        let (dense, out) = match prefix {
            "roberta" => (w.at("classifier.dense"), w.at("classifier.out_proj")),
            _ => (body.at("pooler.dense"), w.at("classifier")),
        };
        let stored = out.stored_shape("weight").and_then(|shape| shape.first().copied());
        let num_labels = stored.unwrap_or(1);
        Ok(Self {
            dense: Linear::load(dense, hidden, hidden, true)?,
            out_proj: Linear::load(out, hidden, num_labels, true)?,
            num_labels,
            act: HeadAct::new(hf)?,
        })
    }
}

impl HeadAct {
    fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
        let field = "sbert_ce_default_activation_function";
        let name = hf.get(field).map(|name| name.as_str().unwrap_or_default());
        match name.map(|name| name.rsplit('.').next().unwrap_or_default()) {
            None | Some("Identity") => Ok(Self::Identity),
            Some("Sigmoid") => Ok(Self::Sigmoid),
            Some(_) => {
                let reason = "only Identity and Sigmoid are supported";
                Err(config_error(field, reason.to_owned()))
            }
        }
    }
}

impl BertConfig {
    fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
        let config: Self = hf.parse()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_attention_heads", config.num_attention_heads),
            ("vocab_size", config.vocab_size),
            ("type_vocab_size", config.type_vocab_size),
            ("max_position_embeddings", config.max_position_embeddings),
        ])?;
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let reason = format!("{} does not divide hidden_size", config.num_attention_heads);
            return Err(config_error("num_attention_heads", reason));
        }
        match config.position_embedding_type.as_deref() {
            None | Some("absolute") => Ok(config),
            Some(other) => {
                let reason = format!("{other} is not supported (absolute is)");
                Err(config_error("position_embedding_type", reason))
            }
        }
    }
}
