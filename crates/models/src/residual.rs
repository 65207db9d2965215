//! The walk of hidden states through a decoder's layers.

use attention::ForwardBatch;
use mlx::{Array, Result};
use nn::RmsNorm;

/// Takes `hidden` `[num_tokens, hidden]` through all layers and the last norm:
/// `[num_sampled, hidden]`. A layer takes the residual stream and what the one before
/// it adds to it, if any, and gives both anew: its own norm adds and norms at once.
/// Rows that nobody samples are dropped before the last norm.
pub(crate) fn forward_layers<L>(
    hidden: Array,
    layers: &[L],
    norm: &RmsNorm,
    batch: &ForwardBatch,
    forward: impl Fn(&L, &Array, Option<&Array>) -> Result<(Array, Array)>,
) -> Result<Array> {
    let (mut hidden, mut delta) = (hidden, None);
    for layer in layers {
        let (after, added) = forward(layer, &hidden, delta.as_ref())?;
        (hidden, delta) = (after, Some(added));
    }
    let hidden = batch.select_sampled(&hidden)?;
    let delta = delta.map(|delta| batch.select_sampled(&delta)).transpose()?;
    Ok(norm.forward_residual(&hidden, delta.as_ref())?.1)
}
