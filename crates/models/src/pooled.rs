//! Models that give a vector for each prompt instead of tokens: embeddings from the hidden
//! states, or scores from a head of a few labels. Decoders of the registry, and encoders.
//!
//! Upstream: `LlamaEmbeddingModel`, `llama_classification.py`, `qwen2_rm.py` and their
//! siblings in `sglang/srt/models/`.

use attention::{AttentionShape, ForwardBatch, StateShape};
use mlx::{Array, Result};
use nn::{Activation, HfConfig, LeftOver, Linear, LoadError, Weights};
use serde_json::{Value, json};

use crate::{CausalLm, bert, config::config_error, registry};

/// The rows that such a model gives in the place of logits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PooledRows {
    /// Hidden states, `[num_sampled, hidden_size]`.
    Hidden,
    /// `[num_sampled, labels.len()]`.
    Scores {
        /// From `id2label`, or `LABEL_0` and so on.
        labels: Vec<String>,
    },
}

/// A model of [`load_pooled`].
pub struct Pooled {
    /// Its `forward` gives [`PooledRows`] of the sampled rows.
    pub model: Box<dyn CausalLm>,
    /// What they are.
    pub rows: PooledRows,
    /// Every token sees all others: a prompt has to come in one step, with nothing cached.
    pub is_encoder: bool,
}

/// What stands in the head's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeadKind {
    Nothing,
    /// `score`, a matrix without a bias.
    Score,
    /// `score.0` and `score.2`, with biases and ReLU between them.
    Reward,
}

/// Architectures that give no tokens, and the family whose body they have.
const ARCHITECTURES: &[(&str, &str, HeadKind)] = &[
    ("LlamaEmbeddingModel", "LlamaForCausalLM", HeadKind::Nothing),
    ("LlamaForSequenceClassification", "LlamaForCausalLM", HeadKind::Score),
    ("LlamaModel", "LlamaForCausalLM", HeadKind::Nothing),
    ("MistralForSequenceClassification", "MistralForCausalLM", HeadKind::Score),
    ("MistralModel", "MistralForCausalLM", HeadKind::Nothing),
    ("Qwen2ForRewardModel", "Qwen2ForCausalLM", HeadKind::Reward),
    ("Qwen2ForSequenceClassification", "Qwen2ForCausalLM", HeadKind::Score),
    ("Qwen2Model", "Qwen2ForCausalLM", HeadKind::Nothing),
    ("Qwen3ForRewardModel", "Qwen3ForCausalLM", HeadKind::Reward),
    ("Qwen3ForSequenceClassification", "Qwen3ForCausalLM", HeadKind::Score),
    ("Qwen3Model", "Qwen3ForCausalLM", HeadKind::Nothing),
];

struct PooledLm {
    model: Box<dyn CausalLm>,
    head: Head,
}

/// Linear layers with ReLU between them; none gives hidden states.
struct Head(Vec<Linear>);

/// Whether a model of this config gives vectors whatever else is asked for.
pub fn is_pooled(config: &HfConfig) -> bool {
    find(config).is_some() || bert::is_encoder(config)
}

/// Builds the model of a checkpoint up to its last norm, and its head of labels if it has
/// one. Tensors of an `lm_head` are left alone, and `model.` may be missing before names.
///
/// # Errors
/// As [`crate::load`]; a family that does not run without its head.
pub fn load_pooled(config: &HfConfig, weights: &Weights) -> std::result::Result<Pooled, LoadError> {
    if bert::is_encoder(config) {
        let (model, num_labels) = bert::load(config, weights)?;
        let rows = num_labels.map_or(PooledRows::Hidden, |count| PooledRows::Scores {
            labels: labels(config, count),
        });
        return Ok(Pooled { model, rows, is_encoder: true });
    }
    let (config, kind) = body_config(config)?;
    let entry = registry::find(&config)?;
    let is_bare = weights.at("model").is_empty();
    let body_weights = if is_bare { weights.without("model") } else { weights.clone() };
    let model = (entry.load)(&config, &body_weights)?;
    if model.body().is_none() {
        let reason = format!("{} gives no embeddings or scores", entry.models);
        return Err(config_error("architectures", reason));
    }
    let (head, rows) = match kind {
        HeadKind::Nothing => (Head(Vec::new()), PooledRows::Hidden),
        kind => {
            let (head, num_labels) = Head::load(&config, weights, kind, model.hidden_size())?;
            (head, PooledRows::Scores { labels: labels(&config, num_labels) })
        }
    };
    let mut left_over = (entry.left_over)(&config);
    left_over.push(LeftOver::Module("lm_head"));
    weights.finish(&left_over)?;
    Ok(Pooled { model: Box::new(PooledLm { model, head }), rows, is_encoder: false })
}

fn find(config: &HfConfig) -> Option<(&'static str, HeadKind)> {
    let named = |name: &String| ARCHITECTURES.iter().find(|entry| entry.0 == name);
    config.architectures().iter().find_map(named).map(|entry| (entry.1, entry.2))
}

/// The config of the family, whose head is tied: there is none to be read.
fn body_config(config: &HfConfig) -> std::result::Result<(HfConfig, HeadKind), LoadError> {
    let mut raw = config.raw().clone();
    raw.insert("tie_word_embeddings".to_owned(), Value::Bool(true));
    let kind = match find(config) {
        Some((family, kind)) => {
            raw.insert("architectures".to_owned(), json!([family]));
            kind
        }
        None => HeadKind::Nothing,
    };
    Ok((HfConfig::from_map(raw)?, kind))
}

/// Names of as many labels.
fn labels(config: &HfConfig, num_labels: usize) -> Vec<String> {
    let names = config.get("id2label").and_then(Value::as_object);
    let name = |id: usize| {
        let name = names.and_then(|names| names.get(&id.to_string())).and_then(Value::as_str);
        name.map_or_else(|| format!("LABEL_{id}"), str::to_owned)
    };
    (0..num_labels).map(name).collect()
}

impl Head {
    /// The head, and how many labels it has.
    fn load(
        config: &HfConfig,
        w: &Weights,
        kind: HeadKind,
        hidden: usize,
    ) -> std::result::Result<(Self, usize), LoadError> {
        let has_two = kind == HeadKind::Reward;
        let last = w.at(if has_two { "score.2" } else { "score" });
        let stored = last.stored_shape("weight").and_then(|shape| shape.first().copied());
        let named = config.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
        // Two is what transformers has where config.json says nothing.
        let num_labels = stored.or(named).unwrap_or(2);
        let first = has_two.then(|| Linear::load(w.at("score.0"), hidden, hidden, true));
        let last = Linear::load(last, hidden, num_labels, has_two)?;
        Ok((Self(first.transpose()?.into_iter().chain([last]).collect()), num_labels))
    }

    fn forward(&self, hidden: Array) -> Result<Array> {
        let mut rows = hidden;
        for (index, linear) in self.0.iter().enumerate() {
            if index > 0 {
                rows = Activation::Relu.apply(&rows)?;
            }
            rows = linear.forward(&rows)?;
        }
        Ok(rows)
    }
}

impl CausalLm for PooledLm {
    /// [`PooledRows`] of the sampled rows.
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let body = self.model.body().expect("looked at while loading");
        self.head.forward(body.hidden_states(batch)?)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        self.model.kv_layout()
    }

    fn state_layout(&self) -> Vec<StateShape> {
        self.model.state_layout()
    }

    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn hidden_size(&self) -> usize {
        self.model.hidden_size()
    }

    fn intermediate_size(&self) -> usize {
        self.model.intermediate_size()
    }

    fn context_length(&self) -> usize {
        self.model.context_length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_families_that_are_there() {
        assert!(ARCHITECTURES.is_sorted_by_key(|entry| entry.0));
        let known = registry::known_architectures();
        for (name, family, _) in ARCHITECTURES {
            assert!(known.contains(family), "{name}");
            assert!(!known.contains(name), "{name}");
        }
    }

    #[test]
    fn labels_have_the_names_of_the_config_or_numbers() {
        let labels = |text, count| labels(&HfConfig::from_json(text).unwrap(), count);
        assert_eq!(labels(r#"{"id2label": {"1": "good", "0": "bad"}}"#, 2), ["bad", "good"]);
        assert_eq!(labels("{}", 2), ["LABEL_0", "LABEL_1"]);
    }
}
