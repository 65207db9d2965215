//! Builds the graph anew each step. The reference, and what the other runners fall
//! back to.

use attention::ForwardBatch;
use mlx::{Array, Result};
use models::CausalLm;

use super::{GraphRunner, RunnerEntry};

pub(super) const ENTRY: RunnerEntry = RunnerEntry { name: "eager", new: |_| Box::new(Eager) };

struct Eager;

impl GraphRunner for Eager {
    fn run(&mut self, model: &dyn CausalLm, batch: &ForwardBatch) -> Result<Array> {
        model.forward(batch)
    }
}
