//! Tensors that are computed from others when a model takes them.

use std::{collections::BTreeMap, rc::Rc};

use mlx::{Array, Dtype};
use nn::TensorSource;

use crate::{ImportProblem, LoadError};

/// All tensors of a checkpoint, by name.
pub(crate) type Sources = BTreeMap<String, Rc<dyn TensorSource>>;

pub(super) type Make = Box<dyn Fn(&[Array]) -> Result<Array, nn::LoadError>>;

/// A tensor made from others, which are read for it alone and then dropped.
pub(super) struct Derived {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    pub(super) parts: Vec<Rc<dyn TensorSource>>,
    pub(super) make: Make,
}

impl TensorSource for Derived {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn load(&self) -> Result<Array, nn::LoadError> {
        let place = |source| nn::LoadError::Place { name: self.name.clone(), source };
        let parts = self.parts.iter().map(|part| part.load()).collect::<Result<Vec<_>, _>>()?;
        let array = (self.make)(&parts)?;
        drop(parts);
        let array = array.contiguous().map_err(place)?;
        array.eval().map_err(place)?;
        debug_assert_eq!((array.shape(), array.dtype()), (self.shape.clone(), self.dtype));
        Ok(array)
    }
}

/// The tensors of one module while its import is set up.
pub(super) struct Module<'a> {
    method: &'static str,
    path: String,
    sources: &'a mut Sources,
}

/// Adds a tensor.
pub(super) fn insert(
    sources: &mut Sources,
    name: String,
    source: Rc<dyn TensorSource>,
) -> Result<(), LoadError> {
    match sources.insert(name.clone(), source) {
        None => Ok(()),
        Some(_) => Err(nn::LoadError::Duplicate { name }.into()),
    }
}

/// Calls `rewrite` for each module that has a tensor called `part`.
pub(super) fn for_modules(
    method: &'static str,
    part: &str,
    sources: &mut Sources,
    rewrite: impl Fn(&mut Module<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let path = |name: &String| {
        name.strip_suffix(part).and_then(|path| path.strip_suffix('.')).map(str::to_owned)
    };
    let paths: Vec<String> = sources.keys().filter_map(path).collect();
    paths.into_iter().try_for_each(|path| rewrite(&mut Module { method, path, sources }))
}

/// Removes what only a product of quantized activations would need.
pub(super) fn drop_activation_scales(sources: &mut Sources) {
    const NAMES: [&str; 7] = [
        "activation_scale",
        "input_global_scale",
        "input_scale",
        "input_scale_ub",
        "input_zero_point",
        "k_scale",
        "v_scale",
    ];
    let last = |name: &str| name.rsplit('.').next().is_some_and(|last| NAMES.contains(&last));
    sources.retain(|name, _| !last(name));
}

impl Module<'_> {
    /// Removes a tensor from the list.
    pub(super) fn take(&mut self, part: &str) -> Result<Rc<dyn TensorSource>, LoadError> {
        let found = self.take_optional(part);
        found.ok_or_else(|| self.refuse(part, ImportProblem::Missing))
    }

    pub(super) fn take_optional(&mut self, part: &str) -> Option<Rc<dyn TensorSource>> {
        self.sources.remove(&self.name(part))
    }

    /// Removes a matrix of one of the element types from the list.
    pub(super) fn take_matrix(
        &mut self,
        part: &str,
        dtypes: &[Dtype],
    ) -> Result<(Rc<dyn TensorSource>, [usize; 2]), LoadError> {
        let found = self.take(part)?;
        if !dtypes.contains(&found.dtype()) {
            return Err(self.refuse(part, ImportProblem::Type(found.dtype())));
        }
        match found.shape().try_into() {
            Ok(shape) => Ok((found, shape)),
            Err(_) => Err(self.wrong_shape(part, &found)),
        }
    }

    /// Adds a tensor that `make` computes from `parts`.
    pub(super) fn put(
        &mut self,
        part: &str,
        (shape, dtype): (Vec<usize>, Dtype),
        parts: Vec<Rc<dyn TensorSource>>,
        make: impl Fn(&[Array]) -> mlx::Result<Array> + 'static,
    ) -> Result<(), LoadError> {
        let name = self.name(part);
        let make = move |parts: &[Array]| {
            make(parts).map_err(|source| nn::LoadError::Place { name: name.clone(), source })
        };
        self.put_checked(part, (shape, dtype), parts, Box::new(make))
    }

    /// The same where the numbers of the parts may be wrong.
    pub(super) fn put_checked(
        &mut self,
        part: &str,
        (shape, dtype): (Vec<usize>, Dtype),
        parts: Vec<Rc<dyn TensorSource>>,
        make: Make,
    ) -> Result<(), LoadError> {
        let name = self.name(part);
        let derived = Derived { name: name.clone(), shape, dtype, parts, make };
        insert(self.sources, name, Rc::new(derived))
    }

    pub(super) fn wrong_shape(&self, part: &str, found: &Rc<dyn TensorSource>) -> LoadError {
        self.refuse(part, ImportProblem::Shape(found.shape().to_vec()))
    }

    pub(super) fn refuse(&self, part: &str, problem: ImportProblem) -> LoadError {
        LoadError::ImportTensor { method: self.method, tensor: self.name(part), problem }
    }

    pub(super) fn name(&self, part: &str) -> String {
        match self.path.as_str() {
            "" => part.to_owned(),
            path => format!("{path}.{part}"),
        }
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }
}
