//! Ways to run a model's graph for one batch.
//!
//! Upstream: `sglang/srt/model_executor/cuda_graph_runner.py` and its siblings.

mod chained;
mod compiled;
mod eager;

use attention::ForwardBatch;
use mlx::{Array, Result};
use models::CausalLm;

/// Runs the model for a batch. Only enqueues.
pub trait GraphRunner {
    /// Logits `[num_sampled, vocab]`.
    ///
    /// # Errors
    /// Those of MLX.
    fn run(&mut self, model: &dyn CausalLm, batch: &ForwardBatch) -> Result<Array>;
}

/// A runner and its name.
#[derive(Debug)]
pub struct RunnerEntry {
    /// For `--graph-runner`.
    pub name: &'static str,
    /// Makes one.
    pub new: fn() -> Box<dyn GraphRunner>,
}

/// Sorted by name.
pub const RUNNERS: &[RunnerEntry] = &[compiled::ENTRY, eager::ENTRY];

/// The runner of this name.
pub fn find(name: &str) -> Option<&'static RunnerEntry> {
    RUNNERS.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(RUNNERS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(find("eager").map(|entry| entry.name), Some("eager"));
        assert!(find("traced").is_none());
    }
}
