//! Other weights for the model that runs, without a restart.
//!
//! The new weights are loaded beside the old ones, which serve until the new ones are whole: so
//! a load that fails changes nothing, and there must be memory for both.
//!
//! Upstream: `update_weights_from_disk` in `sglang/srt/model_executor/model_runner.py`.

use std::{fmt::Debug, time::Instant};

use attention::KvDtype;
use mlx::Dtype;
use model_loader::{LoadedModel, Quiet};
use models::CausalLm;
use types::WeightUpdate;

use crate::{
    Bytes, EngineConfig, EngineError, ModelShape, Platform, UnknownName,
    graph_runner::{GraphRunner, RunnerEntry},
    loading::{estimated_bytes, model_shape, open_for},
};

/// What the first weights were loaded with.
pub(crate) struct Reloader {
    pub(crate) config: EngineConfig,
    pub(crate) platform: Platform,
    pub(crate) dtype: Dtype,
    pub(crate) kv_dtype: KvDtype,
    /// Of the model that was planned for.
    pub(crate) shape: ModelShape,
    /// As in its config.json.
    pub(crate) architectures: Vec<String>,
    pub(crate) graph_runner: &'static RunnerEntry,
}

/// A model that can take another's place.
pub(crate) struct Reloaded {
    pub(crate) model: Box<dyn CausalLm>,
    /// Graphs hold the weights that they were made with, so they are made anew.
    pub(crate) graph: Box<dyn GraphRunner>,
    pub(crate) weight_bytes: usize,
}

impl Reloader {
    /// Loads weights of the architecture and the sizes that run already.
    ///
    /// # Errors
    /// The model cannot be read, is another one, or does not fit beside `old`.
    pub(crate) fn load(
        &mut self,
        update: &WeightUpdate,
        old: &dyn CausalLm,
    ) -> Result<Reloaded, EngineError> {
        let start = Instant::now();
        let config = self.config_of(update)?;
        let before = mlx::memory::active_bytes();
        let opened = open_for(&config, &self.platform, &Quiet)?;
        let LoadedModel { config: hf_config, weights, .. } = opened;
        check("architectures", self.architectures.as_slice(), hf_config.architectures())?;
        let dtype = self.platform.dtype(config.dtype, hf_config.dtype());
        check("dtype", self.dtype, dtype)?;
        let estimate = estimated_bytes(&self.platform, &config, &hf_config, &weights);
        // Made-up weights are as large as those that run.
        let needed = before + if estimate > 0 { estimate } else { self.shape.weight_bytes };
        if needed > self.platform.memory_bytes {
            let (needed, memory) = (Bytes(needed), Bytes(self.platform.memory_bytes));
            return Err(EngineError::NoRoomForBoth { needed, memory });
        }
        let model = models::load(&hf_config, &weights)?;
        let weight_bytes = mlx::memory::active_bytes().saturating_sub(before);
        self.check_layout(old, model.as_ref())?;
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!("weights of {} loaded after {seconds:.1} s", update.model_path);
        self.config = config;
        let graph = (self.graph_runner.new)(self.config.cuda_graph_max_bs_decode);
        Ok(Reloaded { model, graph, weight_bytes })
    }

    fn config_of(&self, update: &WeightUpdate) -> Result<EngineConfig, EngineError> {
        let mut config = self.config.clone();
        config.model_path.clone_from(&update.model_path);
        if let Some(name) = &update.load_format {
            config.load.format = name.parse().map_err(|_| EngineError::Unknown {
                option: "load_format",
                source: UnknownName::new(name, ["auto", "dummy", "gguf", "safetensors"]),
            })?;
        }
        Ok(config)
    }

    /// Pool, plan and text side were made for the old one's sizes.
    fn check_layout(&self, old: &dyn CausalLm, new: &dyn CausalLm) -> Result<(), EngineError> {
        let itemsize = self.dtype.size_in_bytes();
        let shape = model_shape(new, self.shape.weight_bytes, itemsize, self.kv_dtype);
        check("sizes", &self.shape, &shape)?;
        check("attention layers", old.kv_layout(), new.kv_layout())?;
        check("recurrent layers", old.state_layout(), new.state_layout())
    }
}

fn check<T: PartialEq + Debug>(
    what: &'static str,
    running: T,
    found: T,
) -> Result<(), EngineError> {
    if running == found {
        return Ok(());
    }
    let text = |value: T| format!("{value:?}");
    Err(EngineError::OtherModel { what, running: text(running), found: text(found) })
}
