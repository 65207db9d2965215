//! Requests for a vector of each prompt instead of tokens.
//!
//! Upstream: `_validate_for_matryoshka_dim` in `sglang/srt/managers/tokenizer_manager.py`,
//! `sglang/srt/layers/pooler.py`.

use protocol::{
    OneOrMany,
    native::{MaxNewTokens, SamplingJson},
};
use types::{Matryoshka, PooledModel, PooledOutput, TokenId};

use super::{GenerationPlan, LogprobSpec, Prompts, SamplingSpec, Sequence, SequenceFlags};
use crate::{AppState, error::ApiError};

/// What is made of the vectors of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VectorForm {
    /// Cut to this length and scaled to length one.
    Embedding { size: usize },
    /// Scores as they are.
    Scores,
}

impl VectorForm {
    /// Of this model's vectors, with `dimensions` as the request gives it.
    ///
    /// # Errors
    /// The model gives tokens; dimensions that it does not have.
    pub(crate) fn new(state: &AppState, dimensions: Option<i64>) -> Result<Self, ApiError> {
        let model = state.engine.model();
        let PooledModel { output, .. } = pooled_model(state)?;
        let (size, shorter) = match output {
            PooledOutput::Embedding { size, shorter } => (*size, shorter),
            PooledOutput::Scores { labels } => (labels.len(), &Matryoshka::No),
        };
        let is_embedding = matches!(output, PooledOutput::Embedding { .. });
        let Some(asked) = dimensions else {
            return Ok(if is_embedding { Self::Embedding { size } } else { Self::Scores });
        };
        let wrong = |message: String| Err(ApiError::value(message));
        let path = &model.model_path;
        if *shorter == Matryoshka::No {
            return wrong(format!(
                "Model '{path}' does not support matryoshka representation, changing output \
                 dimensions will lead to poor results."
            ));
        }
        let asked = match usize::try_from(asked) {
            Ok(asked) if asked > 0 => asked,
            _ => return wrong("Requested dimensions must be greater than 0".to_owned()),
        };
        if let Matryoshka::Sizes(sizes) = shorter
            && !sizes.contains(&asked)
        {
            return wrong(format!(
                "Model '{path}' only supports {sizes:?} matryoshka dimensions, using other output \
                 dimensions will lead to poor results."
            ));
        }
        if asked > size {
            return wrong(format!(
                "Provided dimensions are greater than max embedding dimension: {size}"
            ));
        }
        Ok(Self::Embedding { size: asked })
    }

    /// The vector of a sequence that has ended.
    pub(crate) fn vector(self, sequence: &Sequence) -> Vec<f32> {
        let vector = sequence.pooled();
        match self {
            Self::Scores => vector.to_vec(),
            Self::Embedding { size } => normalized(&vector[..size.min(vector.len())]),
        }
    }
}

/// A vector of length one, unless it is zero.
fn normalized(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let scale = length.max(1e-12).recip();
    vector.iter().map(|&x| (f64::from(x) * scale) as f32).collect()
}

/// # Errors
/// The model gives tokens.
fn pooled_model(state: &AppState) -> Result<&PooledModel, ApiError> {
    state.engine.model().pooled.as_ref().ok_or_else(|| {
        ApiError::value(
            "This model does not appear to be an embedding model by default. Please add \
             `--is-embedding` when launching the server or try another model.",
        )
    })
}

/// A plan for the vectors of `prompts`.
///
/// # Errors
/// The model gives tokens.
pub(crate) fn pooled_plan(
    state: &AppState,
    prompts: Prompts,
    rid: Option<OneOrMany<String>>,
    flags: SequenceFlags,
) -> Result<GenerationPlan, ApiError> {
    let pooling = pooled_model(state)?.pooling;
    let spec = SamplingSpec::new(SamplingJson::default(), state.engine.model().vocab_size, 1)?;
    let spec = SamplingSpec { pooling: Some(pooling), ..spec };
    Ok(GenerationPlan { specs: vec![spec; prompts.len()], prompts, rid, flags, session: None })
}

/// A plan for the scores of pairs of texts, by an encoder with a head of one label. Each pair
/// is its tokens, and where the second text begins.
///
/// # Errors
/// The model is another.
pub(crate) fn pair_plan(
    state: &AppState,
    pairs: Vec<(Vec<TokenId>, Option<usize>)>,
    flags: SequenceFlags,
) -> Result<GenerationPlan, ApiError> {
    let (ids, seconds): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let mut plan = pooled_plan(state, Prompts::Ids(ids), None, flags)?;
    for (spec, second_text) in plan.specs.iter_mut().zip(seconds) {
        spec.second_text = second_text;
    }
    Ok(plan)
}

/// A plan for how likely some tokens are after each of `prompts`: one list of them each.
/// They are read with [`Sequence::label_logprobs`].
///
/// # Errors
/// Those of the parameters.
pub(crate) fn label_plan(
    state: &AppState,
    prompts: Prompts,
    labels: Vec<Vec<TokenId>>,
    temperature: f64,
    flags: SequenceFlags,
) -> Result<GenerationPlan, ApiError> {
    let json = SamplingJson {
        max_new_tokens: MaxNewTokens::Exactly(1),
        temperature: Some(temperature),
        ..SamplingJson::default()
    };
    let spec = SamplingSpec::new(json, state.engine.model().vocab_size, 1)?;
    let logprobs = LogprobSpec::of_output(0, "top_logprobs_num")?;
    let spec_of = |labels: Vec<TokenId>| {
        let logprobs = Some(logprobs.clone().with_token_ids(&labels));
        SamplingSpec { logprobs, ..spec.clone() }
    };
    let specs = labels.into_iter().map(spec_of).collect();
    Ok(GenerationPlan { specs, prompts, rid: None, flags, session: None })
}

/// Numbers as shares of their exponentials.
pub(crate) fn softmax(values: &[f32]) -> Vec<f32> {
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f32> = values.iter().map(|value| (value - most).exp()).collect();
    let total: f32 = shares.iter().sum();
    shares.iter().map(|share| share / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_have_length_one_whatever_their_size() {
        assert_eq!(normalized(&[3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(normalized(&[0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(normalized(&[2e30, 0.0]), [1.0, 0.0]);
    }

    #[test]
    fn softmax_of_large_numbers_is_finite() {
        assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
        assert_eq!(softmax(&[0.0, f32::NEG_INFINITY]), [1.0, 0.0]);
    }
}
