//! What can be wrong with a model on disk or on the hub.

use std::{io, path::PathBuf};

use mlx::Dtype;

use crate::{gguf::architecture::known as known_architectures, hub::HubError};

/// Why a model could not be opened. Problems with single weights come later,
/// as [`nn::LoadError`], when the model asks for them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Config or weights do not make a model.
    #[error(transparent)]
    Weights(#[from] nn::LoadError),

    /// The file system said no.
    #[error("cannot read {path}")]
    Io { path: PathBuf, source: io::Error },

    /// The file system does not take a model that is written.
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },

    /// A safetensors or GGUF file, or an index, that breaks its format.
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: FileProblem },

    /// Neither a folder, a file, nor the id of a model on the hub.
    #[error(
        "no model at {spec:?}: there is no such folder or file, and it does not look like a hub \
         id (org/name)"
    )]
    NotFound { spec: String },

    /// A file that is not a GGUF file.
    #[error("{path} is not a model: expected a folder or a .gguf file")]
    NotAModel { path: PathBuf },

    /// A folder without config.json, and not exactly one GGUF file instead.
    #[error("{path} is not a model folder: no config.json, and {ggufs} GGUF files (one would do)")]
    NoConfig { path: PathBuf, ggufs: usize },

    /// A folder with a config but without weights of a known format.
    #[error("{path} has no model*.safetensors")]
    NoWeights { path: PathBuf },

    /// `--load-format` names what the model is not, or nothing known.
    #[error("--load-format {format} does not fit {path}")]
    Format { format: String, path: PathBuf },

    /// A checkpoint of another tool, quantized in a way that MLX cannot compute with.
    #[error("quantization method {method}: {field} {value} is not supported")]
    ImportSetting { method: &'static str, field: &'static str, value: String },

    /// A tensor of such a checkpoint.
    #[error("quantization method {method}: tensor {tensor} {problem}")]
    ImportTensor { method: &'static str, tensor: String, problem: ImportProblem },

    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
}

/// How a file breaks its format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// A safetensors header longer than its file, or than the format allows.
    #[error("header of {header} bytes in a file of {file} bytes: truncated, or not safetensors")]
    HeaderLength { header: u64, file: u64 },

    /// Header or index is not the JSON it should be.
    #[error("malformed JSON: {0}")]
    Json(serde_json::Error),

    /// One tensor.
    #[error("tensor {name}: {problem}")]
    Tensor { name: String, problem: TensorProblem },

    /// A shard that the index lists is not in the folder.
    #[error("the index lists {shard}, which is not there")]
    MissingShard { shard: String },

    /// A shard name that points elsewhere.
    #[error("the index lists {shard:?}, which is not a plain file name")]
    ShardName { shard: String },

    /// The index says a shard holds a tensor that it does not hold.
    #[error("the index says that {shard} holds {name}, but it does not")]
    IndexedTensor { name: String, shard: String },

    /// A step of sentence-transformers that is not known.
    #[error("the module {module} is not supported (Transformer, Pooling and Normalize are)")]
    Module { module: String },

    /// A pooling that is not known, or several at once.
    #[error("pooling by {pooling} is not supported (cls, mean and lasttoken are)")]
    Pooling { pooling: String },

    /// Not GGUF at all.
    #[error("not a GGUF file")]
    Magic,

    /// A version (or byte order) that is not read.
    #[error("GGUF version {0} is not supported (2 and 3 are)")]
    Version(u32),

    /// The file ends before something in it does.
    #[error("truncated or corrupt: {what} at byte {at} does not fit the file")]
    Truncated { what: String, at: u64 },

    /// A metadata entry.
    #[error("metadata {key}: {reason}")]
    Metadata { key: String, reason: String },

    /// An architecture whose tensors have no known names.
    #[error("GGUF architecture {0:?} is not supported (supported: {known})", known = known_architectures())]
    Architecture(String),
}

/// What is wrong with one tensor of a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// An element type that cannot be computed with.
    #[error("element type {0} is not supported")]
    Type(String),
    /// It would lie outside of the file.
    #[error(
        "its bytes {begin}..{end} are not inside the {available} bytes of data: truncated file"
    )]
    OutOfRange { begin: u64, end: u64, available: u64 },
    /// Two tensors share bytes.
    #[error("its bytes overlap those of {0}")]
    Overlap(String),
    /// Length in bytes against what shape and type need.
    #[error("{found} bytes for a shape that needs {expected}")]
    Length { expected: u64, found: u64 },
    /// More elements than can be counted.
    #[error("shape {0:?} is too large")]
    Shape(Vec<u64>),
    /// Its blocks do not fill its rows.
    #[error("rows of {in_dims} elements are no whole number of blocks of {block}")]
    Blocks { in_dims: u64, block: usize },
    /// GGUF demands alignment.
    #[error("offset {0} is not aligned")]
    Alignment(u64),
    /// The name occurs twice.
    #[error("occurs twice")]
    Duplicate,
    /// No counterpart in the model.
    #[error("is not part of the {0} architecture")]
    Unknown(&'static str),
    /// Values that no configuration explains.
    #[error("holds frequency factors of no known rope scaling")]
    RopeFactors,
    /// Rows do not divide into heads.
    #[error("{rows} rows do not divide into {heads} rotary heads")]
    Heads { rows: usize, heads: usize },
}

/// Why a tensor that another tool quantized cannot be imported.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportProblem {
    /// A module lacks a part.
    #[error("is missing")]
    Missing,
    /// Its shape does not fit the other parts of its module.
    #[error("has shape {0:?}, which does not fit the rest of its module")]
    Shape(Vec<usize>),
    /// An element type that the method does not use here.
    #[error("has an element type that does not belong here ({0})")]
    Type(Dtype),
    /// `g_idx` that spreads groups over the inputs, as `desc_act` does.
    #[error("orders the groups by activation, which is not supported")]
    GroupOrder,
}

impl FileProblem {
    pub(crate) fn tensor(name: &str, problem: TensorProblem) -> Self {
        Self::Tensor { name: name.to_owned(), problem }
    }

    pub(crate) fn metadata(key: &str, reason: impl Into<String>) -> Self {
        Self::Metadata { key: key.to_owned(), reason: reason.into() }
    }
}
