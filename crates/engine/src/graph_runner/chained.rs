//! Decode steps of the CPU device as one node of MLX's graph each.
//!
//! A step is recorded anew each time, which costs as much as building its graph.
//! A model with an operation of MLX between two kernels of ours is run eagerly
//! from then on, and the log says so.

use attention::{ForwardBatch, ForwardMode};
use kernels::cpu::chain::ChainRecorder;
use mlx::{Array, Result};
use models::CausalLm;

use super::GraphRunner;

#[derive(Default)]
pub(super) struct Chained {
    recorder: ChainRecorder,
    refused: bool,
}

impl GraphRunner for Chained {
    fn run(&mut self, model: &dyn CausalLm, batch: &ForwardBatch) -> Result<Array> {
        // Other backends change the pool as the graph is built, recorded or not.
        let may_chain = batch.mode == ForwardMode::Decode
            && batch.sampled_rows.is_none()
            && batch.backend.writes_in_place();
        if self.refused || !may_chain {
            return model.forward(batch);
        }
        match self.recorder.record(|| model.forward(batch))? {
            Ok(logits) => Ok(logits),
            Err(reason) => {
                tracing::info!("decode steps run eagerly, not as one node: {reason}");
                self.refused = true;
                model.forward(batch)
            }
        }
    }
}
