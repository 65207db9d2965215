//! A folder, a GGUF file or a hub id becomes a config and strict weights.
//!
//! [`ModelSource::resolve`] finds out what a model path names, [`load`] opens
//! it. Nothing is read ahead: the weights come off the disk one tensor at a
//! time, while the model takes them.
//!
//! Upstream: `sglang/srt/model_loader/`.

mod error;
mod folder;
mod gguf;
mod hub;
mod imports;
mod load;
mod mlx_folder;
mod progress;
mod safetensors;
mod sentence_transformers;
mod source;
mod tensor_file;
#[cfg(test)]
mod test_files;

pub use error::{FileProblem, ImportProblem, LoadError, TensorProblem};
pub use hub::{HubError, HubOptions};
pub use load::{LoadFormat, LoadedModel, LoaderOptions, TokenizerSource, UnknownLoadFormat, load};
pub use mlx_folder::{MlxFolder, Written};
pub use progress::{Progress, Quiet};
pub use source::ModelSource;
