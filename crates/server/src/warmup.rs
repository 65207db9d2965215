//! One request before the first one.

use std::time::Instant;

use protocol::native::{MaxNewTokens, SamplingJson};
use thiserror::Error;

use crate::{
    AppState,
    generation::{GenerationPlan, Prompts, SamplingSpec, SequenceFlags},
};

/// The warm-up request was not answered.
#[derive(Debug, Error)]
#[error("the warm-up request failed: {message}")]
pub struct WarmupError {
    /// What went wrong.
    pub message: String,
}

/// Generates 8 tokens greedily, or asks for a vector, so that the first client does not pay for what
/// the device does only once. Goes past the HTTP layer.
///
/// The caller logs SGLang's ready line ("The server is fired up and ready to
/// roll!") afterwards, or at once if warm-up is skipped.
///
/// # Errors
/// The engine gave the request up or is gone.
pub async fn warmup(state: &AppState) -> Result<(), WarmupError> {
    let json = SamplingJson {
        max_new_tokens: MaxNewTokens::Exactly(8),
        temperature: Some(0.0),
        ignore_eos: Some(true),
        ..SamplingJson::default()
    };
    let run = async {
        let model = state.engine.model();
        let pooling = model.pooled.as_ref().map(|pooled| pooled.pooling);
        let spec = SamplingSpec { pooling, ..SamplingSpec::new(json, model.vocab_size, 1)? };
        let plan = GenerationPlan {
            prompts: match state.tokenizer.is_there() {
                true => Prompts::Texts(vec!["The capital city of France is".to_owned()]),
                false => Prompts::Ids(vec![vec![0; 6]]),
            },
            specs: vec![spec],
            rid: None,
            flags: SequenceFlags {
                arrived: Instant::now(),
                is_streaming: false,
                log_metrics: false,
            },
            session: None,
        };
        plan.start(state).await?.collect().await
    };
    run.await.map(drop).map_err(|error| WarmupError { message: error.message })
}
