//! Strict, scoped access to the tensors of a checkpoint.
//!
//! A model walks its structs, asks for each tensor by name and shape, and at
//! the end [`Weights::finish`] fails on everything nobody asked for. So a
//! typo, a forgotten bias or a wrong config cannot load. Tensors are read,
//! converted and evaluated one at a time: at no moment does more than one of
//! them exist twice.
//!
//! Upstream: `sglang/srt/model_loader/weight_utils.py`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, btree_map::Entry},
    rc::Rc,
};

use mlx::{Array, Dtype};

use crate::{QuantConfig, QuantSpec};

mod dummy;
mod error;
mod linear;
mod on_load;
#[cfg(test)]
mod tests;

use dummy::DummyTensors;

pub use error::LoadError;
pub use linear::LinearWeight;
pub use on_load::{QuantChoice, QuantizeOnLoad, WeightSink};

/// Packed matrices that are unpacked on load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpack {
    /// None: the device has a product for each packing.
    Never,
    /// Those that the CPU device has no kernel of ours for. The others keep
    /// scales and biases as stored, since the kernels widen them.
    WithoutKernel,
    /// All.
    Always,
}

/// How weights become arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Element type of every floating-point weight after loading.
    pub compute_dtype: Dtype,
    /// Which packed matmul weights become dense ones while loading. The one
    /// switch for devices whose packed product is slower than a dense one.
    pub unpack: Unpack,
}

/// One tensor of a checkpoint, not read yet.
pub trait TensorSource {
    /// Shape as stored.
    fn shape(&self) -> &[usize];
    /// Element type as stored.
    fn dtype(&self) -> Dtype;
    /// Reads the tensor. A store does so at most once.
    ///
    /// # Errors
    /// The bytes cannot be read, or hold something else than promised.
    fn load(&self) -> Result<Array, LoadError>;
}

impl<T: TensorSource + ?Sized> TensorSource for Rc<T> {
    fn shape(&self) -> &[usize] {
        (**self).shape()
    }

    fn dtype(&self) -> Dtype {
        (**self).dtype()
    }

    fn load(&self) -> Result<Array, LoadError> {
        (**self).load()
    }
}

/// All tensors of a checkpoint, by name.
pub struct WeightStore {
    /// `None` once taken.
    sources: BTreeMap<String, Option<Box<dyn TensorSource>>>,
    quant: QuantConfig,
    options: LoadOptions,
    dummy: Option<DummyTensors>,
    quantize: Option<QuantizeOnLoad>,
    sink: Option<Box<dyn WeightSink>>,
}

/// A left-over tensor that is no mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOver<'a> {
    /// Exactly this tensor: `lm_head.weight`.
    Name(&'a str),
    /// Every tensor of this module: `lm_head` covers `lm_head.scales`.
    Module(&'a str),
    /// Every tensor whose name ends so: `rotary_emb.inv_freq`.
    Suffix(&'a str),
    /// Every tensor of the layers `model.layers.N` from this one on: what predicts
    /// further tokens at once.
    LayersFrom(usize),
    /// Every tensor of this module in the layers `...layers.N` from one on: `k_proj` of
    /// layers that use another's.
    ModuleFrom {
        /// That layer.
        first: usize,
        /// Below a layer: `self_attn.k_proj`.
        module: &'a str,
    },
}

/// A view of a [`WeightStore`] below one module path. Clones share the store.
#[derive(Clone)]
pub struct Weights {
    store: Rc<RefCell<WeightStore>>,
    path: String,
    /// The path in the MLX format, where it is another one.
    told: Option<String>,
    /// A module below this view whose tensors are stored without its name.
    omitted: Option<&'static str>,
    /// Hides what is taken from the store's sink.
    is_silent: bool,
}

impl WeightStore {
    /// An empty store.
    pub fn new(options: LoadOptions) -> Self {
        Self {
            sources: BTreeMap::new(),
            quant: QuantConfig::default(),
            options,
            dummy: None,
            quantize: None,
            sink: None,
        }
    }

    /// A store that answers every name with small random numbers in the shape
    /// asked for, packed where `quant` says so: memory and speed of the real
    /// model from its config alone. The same name gets the same numbers.
    pub fn dummy(options: LoadOptions, quant: QuantConfig, seed: u64) -> Self {
        Self { quant, dummy: Some(DummyTensors::new(seed)), ..Self::new(options) }
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// The name is there already.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        source: Box<dyn TensorSource>,
    ) -> Result<(), LoadError> {
        match self.sources.entry(name.into()) {
            Entry::Occupied(entry) => Err(LoadError::Duplicate { name: entry.key().clone() }),
            Entry::Vacant(entry) => {
                entry.insert(Some(source));
                Ok(())
            }
        }
    }

    /// Says which modules are quantized. Without it the tensors decide.
    pub fn set_quant(&mut self, quant: QuantConfig) {
        self.quant = quant;
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Marks a tensor as taken and hands out its source.
    fn take_source(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<Box<dyn TensorSource>, LoadError> {
        let Some(slot) = self.sources.get_mut(name) else {
            return Err(LoadError::Missing { name: name.to_owned() });
        };
        let Some(source) = slot.as_ref() else {
            return Err(LoadError::TakenTwice { name: name.to_owned() });
        };
        if source.shape() != shape {
            return Err(LoadError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: source.shape().to_vec(),
            });
        }
        Ok(slot.take().expect("matched as present above"))
    }
}

impl Weights {
    /// The whole checkpoint.
    pub fn new(store: WeightStore) -> Self {
        let store = Rc::new(RefCell::new(store));
        Self { store, path: String::new(), told: None, omitted: None, is_silent: false }
    }

    /// The view below a module: `at("self_attn")`.
    #[must_use]
    pub fn at(&self, name: &str) -> Self {
        let told = self.told.as_ref().map(|told| below(told, name));
        let path = if self.omitted == Some(name) { self.path.clone() } else { self.full(name) };
        Self { path, told, omitted: None, ..self.clone() }
    }

    /// This view, for a model that has a module where the checkpoint has the module's own
    /// modules: `without("model")` finds `model.norm` at `norm`.
    #[must_use]
    pub fn without(&self, module: &'static str) -> Self {
        Self { omitted: Some(module), ..self.clone() }
    }

    /// The view below one element of a list of modules.
    #[must_use]
    pub fn layer(&self, index: usize) -> Self {
        self.at(&index.to_string())
    }

    /// Module path of this view; empty at the top.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How weights become arrays.
    pub fn options(&self) -> LoadOptions {
        self.store.borrow().options
    }

    /// Whether the checkpoint holds a tensor, taken or not. Dummy weights say
    /// no: they hold what the config asks for and nothing optional.
    pub fn has(&self, name: &str) -> bool {
        self.store.borrow().sources.contains_key(&self.full(name))
    }

    /// Whether the checkpoint holds no tensor below this path. Dummy weights say
    /// yes.
    pub fn is_empty(&self) -> bool {
        let (store, prefix) = (self.store.borrow(), self.full(""));
        let next = store.sources.range(prefix.clone()..).next();
        next.is_none_or(|(name, _)| !name.starts_with(&prefix))
    }

    /// Takes a tensor, floating-point, in the compute dtype, evaluated.
    ///
    /// # Errors
    /// Missing, taken before, of another shape or no float, or unreadable.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Array, LoadError> {
        let dtype = self.options().compute_dtype;
        if let Some(dummy) = self.dummy() {
            return dummy.float(&self.full(name), shape, dtype);
        }
        let array = self.load(name, shape)?;
        let found = array.dtype();
        if !found.is_float() {
            let name = self.full(name);
            return Err(LoadError::Dtype { name, expected: "floating-point", found });
        }
        let array = self.place(name, array.astype(dtype))?;
        self.report_tensor(name, &array)?;
        Ok(array)
    }

    /// Takes a tensor in the element type of the checkpoint, evaluated.
    ///
    /// # Errors
    /// As for [`Weights::take`].
    pub fn take_as_stored(&self, name: &str, shape: &[usize]) -> Result<Array, LoadError> {
        if let Some(dummy) = self.dummy() {
            return dummy.float(&self.full(name), shape, Dtype::Float32);
        }
        let array = self.load(name, shape)?;
        let array = self.place(name, Ok(array))?;
        self.report_tensor(name, &array)?;
        Ok(array)
    }

    /// Fails on tensors that were never taken, except the allowed ones. Names
    /// are full names, whatever view this is called on.
    ///
    /// # Errors
    /// [`LoadError::LeftOver`] with all names.
    pub fn finish(&self, allowed: &[LeftOver<'_>]) -> Result<(), LoadError> {
        let store = self.store.borrow();
        let names: Vec<String> = store
            .sources
            .iter()
            .filter(|(name, source)| {
                source.is_some() && !allowed.iter().any(|rule| rule.covers(name))
            })
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() { Ok(()) } else { Err(LoadError::LeftOver { names }) }
    }

    fn full(&self, name: &str) -> String {
        below(&self.path, name)
    }

    fn dummy(&self) -> Option<DummyTensors> {
        self.store.borrow().dummy
    }

    /// Reads a tensor without conversion.
    fn load(&self, name: &str, shape: &[usize]) -> Result<Array, LoadError> {
        let full = self.full(name);
        let source = self.store.borrow_mut().take_source(&full, shape)?;
        source.load()
    }

    /// Evaluates, so that the bytes it was made from can go.
    fn place(&self, name: &str, array: mlx::Result<Array>) -> Result<Array, LoadError> {
        let evaluated = array.and_then(|array| array.eval().map(|()| array));
        evaluated.map_err(|source| LoadError::Place { name: self.full(name), source })
    }

    /// Bytes of the tensors that were not taken yet, as they are stored. Dummy weights
    /// have none.
    pub fn stored_bytes(&self) -> usize {
        let store = self.store.borrow();
        let bytes = |source: &dyn TensorSource| {
            source.shape().iter().product::<usize>() * source.dtype().size_in_bytes()
        };
        store.sources.values().flatten().map(|source| bytes(source.as_ref())).sum()
    }

    /// Shape of a tensor that was not taken yet; `None` without it, and for dummy weights.
    pub fn stored_shape(&self, name: &str) -> Option<Vec<usize>> {
        self.stored(name).map(|(shape, _)| shape)
    }

    /// Takes the `weight` of a convolution over time, each channel by itself:
    /// `[channels, taps]`, stored `[channels, taps, 1]` or, by others than MLX,
    /// `[channels, 1, taps]`.
    ///
    /// # Errors
    /// As for [`Weights::take`].
    pub fn take_conv(&self, channels: usize, taps: usize) -> Result<Array, LoadError> {
        let shape = match self.stored_shape("weight") {
            Some(shape) if shape == [channels, 1, taps] => shape,
            _ => vec![channels, taps, 1],
        };
        let weight = self.silent().take("weight", &shape)?;
        let reshaped = |shape: &[usize]| self.place("weight", weight.reshape(shape));
        self.report_tensor("weight", &reshaped(&[channels, taps, 1])?)?;
        reshaped(&[channels, taps])
    }

    /// Takes the `weight` `[dims]` of a norm that is stored as what is added to one, and
    /// is whole in the MLX format.
    ///
    /// # Errors
    /// As for [`Weights::take`].
    pub fn take_above_one(&self, dims: usize) -> Result<Array, LoadError> {
        let weight = self.silent().take("weight", &[dims])?;
        let weight = self.place("weight", weight.add_scalar(1.0))?;
        self.report_tensor("weight", &weight)?;
        Ok(weight)
    }

    /// Shape and element type of a tensor that was not taken yet.
    fn stored(&self, name: &str) -> Option<(Vec<usize>, Dtype)> {
        let store = self.store.borrow();
        let source = store.sources.get(&self.full(name))?.as_ref()?;
        Some((source.shape().to_vec(), source.dtype()))
    }

    fn quant_entry(&self) -> (Option<Option<QuantSpec>>, Option<QuantSpec>) {
        let store = self.store.borrow();
        (store.quant.entry(&self.path), store.quant.default_spec())
    }
}

/// The full name of what is called `name` below a module.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl LeftOver<'_> {
    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Name(exact) => name == *exact,
            Self::Module(path) => name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')),
            Self::Suffix(suffix) => {
                name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::LayersFrom(first) => {
                let layer =
                    name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
                layer
                    .and_then(|(layer, _)| layer.parse().ok())
                    .is_some_and(|layer: usize| layer >= *first)
            }
            Self::ModuleFrom { first, module } => {
                let below = name.split_once("layers.").and_then(|(_, rest)| rest.split_once('.'));
                below.is_some_and(|(layer, rest)| {
                    layer.parse().is_ok_and(|layer: usize| layer >= *first)
                        && rest.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
                })
            }
        }
    }
}
