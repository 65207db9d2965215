//! Requests that end with their prompt: a model's rows become one vector.
//!
//! Upstream: `sglang/srt/layers/pooler.py`.

/// Which of a prompt's rows, hidden states or scores, become its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// That of the last token.
    Last,
    /// That of the first token.
    First,
    /// The mean of all.
    Mean,
}

/// A model that gives a vector for each prompt and no tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PooledModel {
    /// How rows become the vector.
    pub pooling: Pooling,
    /// What the vector is.
    pub output: PooledOutput,
    /// It reads a prompt whole, which may be a pair of texts.
    pub is_encoder: bool,
}

/// What a pooled vector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PooledOutput {
    /// An embedding, as long as the hidden state.
    Embedding {
        /// Its length.
        size: usize,
        /// Lengths that it may be cut to.
        shorter: Matryoshka,
    },
    /// A score for each label.
    Scores {
        /// Their names, from `id2label`.
        labels: Vec<String>,
    },
}

/// Lengths that a model's embeddings may be cut to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matryoshka {
    /// None: the model was not trained for it.
    No,
    /// These.
    Sizes(Vec<usize>),
    /// Any.
    Any,
}
