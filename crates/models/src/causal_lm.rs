//! What the engine asks of a model.

use attention::{AttentionShape, ForwardBatch, StateShape};
use mlx::{Array, Result};

/// A model up to its head.
pub trait Body {
    /// Builds the graph of one step. Hidden states of the sampled rows after the last norm,
    /// `[num_sampled, hidden_size]`, in the compute dtype.
    ///
    /// # Errors
    /// Those of MLX.
    fn hidden_states(&self, batch: &ForwardBatch) -> Result<Array>;
}

/// A language model that predicts the next token.
pub trait CausalLm {
    /// Builds the graph of one step. Logits of the sampled rows,
    /// `[num_sampled, vocab_size]`, in the compute dtype.
    ///
    /// # Errors
    /// Those of MLX.
    fn forward(&self, batch: &ForwardBatch) -> Result<Array>;

    /// The model without its head; `None` if the family does not run so.
    fn body(&self) -> Option<&dyn Body> {
        None
    }

    /// Attention layers in the order of their `layer_id`: what the K/V pool
    /// must hold.
    fn kv_layout(&self) -> Vec<AttentionShape>;

    /// Recurrent layers in the order of their `state_id`: what a state must hold.
    fn state_layout(&self) -> Vec<StateShape> {
        Vec::new()
    }

    /// Width of the logits.
    fn vocab_size(&self) -> usize;

    /// Width of the residual stream.
    fn hidden_size(&self) -> usize;

    /// Inner width of the widest MLP.
    fn intermediate_size(&self) -> usize;

    /// Tokens of prompt and completion that the model was made for.
    fn context_length(&self) -> usize;
}
