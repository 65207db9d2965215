//! What can be wrong with a checkpoint. Every variant names the culprit in
//! full, because "shape mismatch" alone sends people to read source code.

use std::{error::Error as StdError, fmt};

use mlx::Dtype;

use crate::QuantSpec;

/// Why a model could not be built from its config and weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model needs a tensor that the checkpoint lacks.
    #[error("weight {name} is missing from the checkpoint")]
    Missing { name: String },

    /// The checkpoint holds tensors that the model did not ask for.
    #[error("the model does not use {}", Listed(names))]
    LeftOver { names: Vec<String> },

    /// Both shapes in the order of the checkpoint's file.
    #[error("weight {name} has shape {found:?}, the model needs {expected:?}")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },

    /// A model asked twice for one tensor: a bug in the model's code.
    #[error("weight {name} was taken twice")]
    TakenTwice { name: String },

    /// Two files, or two entries of one file, hold the same name.
    #[error("weight {name} occurs twice in the checkpoint")]
    Duplicate { name: String },

    /// An element type that makes no sense at this place.
    #[error("weight {name} has element type {found:?}, expected {expected}")]
    Dtype { name: String, expected: &'static str, found: Dtype },

    /// The packed tensors say one thing, config.json another.
    #[error("{path} is quantized with {found}, config.json says {expected}")]
    QuantMismatch { path: String, expected: QuantSpec, found: QuantSpec },

    /// Shapes of `weight` and `scales` fit no group size and bit width.
    #[error(
        "{path}: packed weight {weight:?} and scales {scales:?} fit no quantization of \
         {in_dims} input dimensions"
    )]
    QuantShape { path: String, weight: Vec<usize>, scales: Vec<usize>, in_dims: usize },

    /// A quantization that no code here can run.
    #[error("quantization method {method:?} is not supported")]
    QuantMethod { method: String },

    /// A field of config.json (or generation_config.json) is absent or unusable.
    #[error("{file}: {field}: {reason}")]
    Config { file: &'static str, field: String, reason: String },

    /// A known field with a value that is not supported.
    #[error("{what} {value:?} is not supported")]
    Unsupported { what: &'static str, value: String },

    /// The bytes of a tensor could not be read.
    #[error("weight {name} cannot be read")]
    Read { name: String, source: Box<dyn StdError + Send + Sync> },

    /// A tensor was read, but not turned into an array.
    #[error("weight {name} cannot be placed on the device")]
    Place { name: String, source: mlx::Error },

    /// Whoever was told of a weight could not go on.
    #[error(transparent)]
    Sink { source: Box<dyn StdError + Send + Sync> },

    /// Computing something from weights or config failed.
    #[error("MLX failed while loading")]
    Mlx(#[from] mlx::Error),
}

/// The first few of a list of names, and how many more there are.
struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let shown = self.0.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        write!(f, "{} tensor(s) of the checkpoint: {shown}", self.0.len())?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
