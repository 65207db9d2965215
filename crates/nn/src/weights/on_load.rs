//! What may happen to weights on their way to a model: matrices that the
//! checkpoint holds dense are packed (`--quantization`), and somebody else hears of
//! every tensor (`convert`).
//!
//! Upstream: `sglang/srt/layers/quantization/`, online quantization.

use std::{fmt, rc::Rc};

use mlx::{Array, Dtype, quantized};

use super::{LinearWeight, LoadError, Weights, below};
use crate::QuantSpec;

/// What becomes of a matrix when a model is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantChoice {
    /// What becomes of most.
    Default,
    /// It stays dense.
    Dense,
    /// It is packed in a way of its own: a router, say, at 8 bits.
    Like(QuantSpec),
}

/// Packs matrices while they are loaded.
#[derive(Clone)]
pub struct QuantizeOnLoad {
    /// How, where `choose` says nothing else.
    pub spec: QuantSpec,
    /// Rounded to before packing. `None`: to the compute dtype if that is narrower than
    /// what is stored, so that the result is that of a checkpoint in that type.
    pub dtype: Option<Dtype>,
    /// By module path.
    pub choose: Rc<dyn Fn(&str) -> QuantChoice>,
}

impl fmt::Debug for QuantizeOnLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantizeOnLoad").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl QuantizeOnLoad {
    /// A matrix whose rows are no whole number of groups stays dense.
    pub(super) fn spec_of(&self, path: &str, in_dims: usize) -> Option<QuantSpec> {
        if !in_dims.is_multiple_of(self.spec.group_size) {
            return None;
        }
        match (self.choose)(path) {
            QuantChoice::Default => Some(self.spec),
            QuantChoice::Dense => None,
            QuantChoice::Like(spec) => Some(spec),
        }
    }
}

/// Hears of everything that a model takes, under the names of the MLX format.
pub trait WeightSink {
    /// A tensor that is no part of a packed matrix.
    ///
    /// # Errors
    /// Whatever stops the loading.
    fn tensor(&mut self, name: &str, array: &Array) -> Result<(), LoadError>;

    /// A packed matrix, or a stack of them, at a module path.
    ///
    /// # Errors
    /// Whatever stops the loading.
    fn packed(&mut self, path: &str, weight: &LinearWeight) -> Result<(), LoadError>;
}

impl Weights {
    /// From now on packs what the checkpoint holds dense.
    pub fn quantize_on_load(&self, how: QuantizeOnLoad) {
        self.store.borrow_mut().quantize = Some(how);
    }

    /// From now on `sink` hears of everything.
    pub fn set_sink(&self, sink: Box<dyn WeightSink>) {
        self.store.borrow_mut().sink = Some(sink);
    }

    /// Whether some matrix of the checkpoint is packed.
    pub fn has_packed(&self) -> bool {
        self.store.borrow().sources.keys().any(|name| name.ends_with(".scales"))
    }

    /// The same view, of which the sink does not hear: what is taken here has another
    /// form in the MLX format, see [`Weights::report`].
    #[must_use]
    pub fn silent(&self) -> Self {
        Self { is_silent: true, ..self.clone() }
    }

    /// The same view of a module that is at `other` in the MLX format: what is taken here
    /// is packed and told as if it were there.
    #[must_use]
    pub fn told_as(&self, other: &Self) -> Self {
        Self { told: Some(other.told().to_owned()), ..self.clone() }
    }

    /// Path of this view in the MLX format.
    fn told(&self) -> &str {
        self.told.as_deref().unwrap_or(&self.path)
    }

    /// Tells the sink of a matrix that was made from tensors of other names.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn report(&self, weight: &LinearWeight) -> Result<(), LoadError> {
        match weight {
            LinearWeight::Dense(array) => self.report_tensor("weight", array),
            LinearWeight::Quantized { .. } => {
                self.with_sink(|sink| sink.packed(self.told(), weight))
            }
        }
    }

    /// The same of a `bias`.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn report_bias(&self, bias: &Array) -> Result<(), LoadError> {
        self.report_tensor("bias", bias)
    }

    pub(super) fn report_tensor(&self, name: &str, array: &Array) -> Result<(), LoadError> {
        self.with_sink(|sink| sink.tensor(&below(self.told(), name), array))
    }

    fn with_sink(
        &self,
        tell: impl FnOnce(&mut dyn WeightSink) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        match &mut self.store.borrow_mut().sink {
            Some(sink) if !self.is_silent => tell(sink.as_mut()),
            _ => Ok(()),
        }
    }

    /// How this module, dense in the checkpoint, is packed now.
    pub(super) fn spec_on_load(&self, in_dims: usize) -> Option<QuantSpec> {
        let store = self.store.borrow();
        store.quantize.as_ref()?.spec_of(self.told(), in_dims)
    }

    /// What a matrix of this type is rounded to before it is packed.
    fn dtype_on_load(&self, stored: Dtype) -> Dtype {
        let store = self.store.borrow();
        let compute = store.options.compute_dtype;
        let narrower = compute.size_in_bytes() < stored.size_in_bytes();
        let chosen = store.quantize.as_ref().and_then(|how| how.dtype);
        chosen.unwrap_or(if narrower { compute } else { stored })
    }

    /// Takes a dense matrix and packs it.
    pub(super) fn packed_on_load(
        &self,
        shape: &[usize],
        spec: QuantSpec,
    ) -> Result<LinearWeight, LoadError> {
        self.pack(&self.load("weight", shape)?, spec)
    }

    /// A matrix, or a stack of them, that was made from tensors of other names: packed
    /// like one of this view's path, and reported.
    ///
    /// # Errors
    /// Those of MLX and of the sink.
    pub fn derived(&self, dense: &Array) -> Result<LinearWeight, LoadError> {
        let weight = match self.spec_on_load(dense.dim(-1)) {
            Some(spec) => self.pack(dense, spec)?,
            None => LinearWeight::Dense(dense.astype(self.options().compute_dtype)?),
        };
        self.report(&weight)?;
        Ok(weight)
    }

    fn pack(&self, dense: &Array, spec: QuantSpec) -> Result<LinearWeight, LoadError> {
        let found = dense.dtype();
        if !found.is_float() {
            let name = self.full("weight");
            return Err(LoadError::Dtype { name, expected: "floating-point", found });
        }
        let dtype = self.dtype_on_load(found);
        let pack = || {
            let QuantSpec { group_size, bits, mode } = spec;
            let parts = quantized::quantize(&dense.astype(dtype)?, group_size, bits, mode)?;
            let quantized::Quantized { weight, scales, biases } = parts;
            for part in [&weight, &scales].into_iter().chain(&biases) {
                part.eval()?;
            }
            Ok(LinearWeight::Quantized { weight, scales, biases, spec })
        };
        pack().map_err(|source| LoadError::Place { name: self.full("weight"), source })
    }
}
