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

    /// Rows of the largest decode step that is made into a graph; 0: none is.
    fn max_graph_rows(&self) -> usize {
        0
    }
}

/// A runner and its name.
#[derive(Debug)]
pub struct RunnerEntry {
    /// For `--graph-runner`.
    pub name: &'static str,
    /// Makes one that makes graphs of decode steps up to so many rows, or as many as it
    /// can.
    pub new: fn(Option<usize>) -> Box<dyn GraphRunner>,
}

/// Sorted by name.
pub const RUNNERS: &[RunnerEntry] = &[compiled::ENTRY, eager::ENTRY];

/// The runner of this name.
pub fn find(name: &str) -> Option<&'static RunnerEntry> {
    RUNNERS.iter().find(|entry| entry.name == name)
}

/// Rows that decode steps are padded to, where graphs are made up to `max_graph_rows`:
/// the platform's sizes below, and that one. All of the platform's if none is made.
pub(crate) fn row_buckets(platform: &[usize], max_graph_rows: usize) -> Vec<usize> {
    let largest = platform.last().copied().unwrap_or(0);
    if max_graph_rows == 0 || max_graph_rows >= largest {
        return platform.to_vec();
    }
    let below = platform.iter().copied().filter(|&rows| rows < max_graph_rows);
    below.chain([max_graph_rows]).collect()
}

/// What `--cuda-graph-max-bs-decode` comes to, for the log.
pub(crate) fn describe_limit(asked: Option<usize>, max_graph_rows: usize) -> Option<String> {
    match (asked, max_graph_rows) {
        (None, 0) => None,
        (Some(asked), 0) => {
            Some(format!("--cuda-graph-max-bs-decode {asked}: every decode step runs eagerly"))
        }
        (Some(asked), rows) if rows < asked => Some(format!(
            "--cuda-graph-max-bs-decode {asked}: decode steps of more than {rows} requests run \
             eagerly, the kernels of graphs take no more"
        )),
        (_, rows) => Some(format!("decode steps of more than {rows} requests run eagerly")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_with_the_largest_graph() {
        let platform = [1, 8, 16, 24, 32];
        for (max_graph_rows, expected) in [
            (0, &platform[..]),
            (1, &[1]),
            (2, &[1, 2]),
            (16, &[1, 8, 16]),
            (20, &[1, 8, 16, 20]),
            (32, &platform),
            (64, &platform),
        ] {
            assert_eq!(row_buckets(&platform, max_graph_rows), expected, "{max_graph_rows}");
        }
        assert!(row_buckets(&[], 16).is_empty());
    }

    #[test]
    fn the_log_names_what_runs_eagerly() {
        assert_eq!(describe_limit(None, 0), None);
        for (asked, rows, text) in [
            (Some(8), 0, "--cuda-graph-max-bs-decode 8: every decode step runs eagerly"),
            (Some(8), 8, "decode steps of more than 8 requests run eagerly"),
            (None, 64, "decode steps of more than 64 requests run eagerly"),
            (
                Some(256),
                64,
                "--cuda-graph-max-bs-decode 256: decode steps of more than 64 requests run \
                 eagerly, the kernels of graphs take no more",
            ),
        ] {
            assert_eq!(describe_limit(asked, rows).as_deref(), Some(text));
        }
    }

    #[test]
    fn eager_makes_no_graphs() {
        let eager = find("eager").unwrap();
        assert_eq!((eager.new)(Some(8)).max_graph_rows(), 0);
    }

    #[test]
    fn names_are_sorted_and_found() {
        assert!(RUNNERS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(find("eager").map(|entry| entry.name), Some("eager"));
        assert!(find("traced").is_none());
    }
}
