//! Two backends over one pool: prompts go to one, decode steps to the other.
//!
//! Upstream: `sglang/srt/layers/attention/hybrid_attn_backend.py`.

use std::rc::Rc;

use mlx::{Array, Result};

use crate::{
    AttentionBackend, AttentionCall, ForwardMetadata, ForwardMode, Qkv, QkvRows, StepLayout,
};

pub(crate) struct Split {
    pub(crate) prefill: Rc<dyn AttentionBackend>,
    pub(crate) decode: Rc<dyn AttentionBackend>,
}

/// The metadata of the backend that a step goes to.
struct OfMode {
    mode: ForwardMode,
    inner: ForwardMetadata,
}

impl Split {
    fn backend(&self, mode: ForwardMode) -> &dyn AttentionBackend {
        match mode {
            ForwardMode::Extend => self.prefill.as_ref(),
            ForwardMode::Decode => self.decode.as_ref(),
        }
    }
}

fn inner<'a>(call: &AttentionCall<'a>) -> AttentionCall<'a> {
    let of_mode: &OfMode = call.metadata.get();
    AttentionCall { metadata: &of_mode.inner, ..*call }
}

impl AttentionBackend for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn init_forward_metadata(&self, step: &StepLayout<'_>) -> Result<ForwardMetadata> {
        let inner = self.backend(step.mode).init_forward_metadata(step)?;
        Ok(ForwardMetadata::new(OfMode { mode: step.mode, inner }))
    }

    fn writes_in_place(&self) -> bool {
        self.prefill.writes_in_place() && self.decode.writes_in_place()
    }

    fn pads_rows(&self) -> bool {
        self.decode.pads_rows()
    }

    fn replay_inputs<'a>(&self, metadata: &'a ForwardMetadata) -> Option<Vec<&'a Array>> {
        let of_mode: &OfMode = metadata.get();
        self.backend(of_mode.mode).replay_inputs(&of_mode.inner)
    }

    fn forward_extend(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        self.prefill.forward_extend(&inner(call), qkv)
    }

    fn forward_decode(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        self.decode.forward_decode(&inner(call), qkv)
    }

    fn forward_rows(&self, call: &AttentionCall<'_>, rows: &QkvRows<'_>) -> Result<Option<Array>> {
        let of_mode: &OfMode = call.metadata.get();
        self.backend(of_mode.mode).forward_rows(&inner(call), rows)
    }
}
