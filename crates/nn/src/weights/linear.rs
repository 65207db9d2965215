//! Matrices that may be packed: which they are, and what they become.
//!
//! The tensors decide together with config.json: an entry for the module path
//! rules, otherwise a module is quantized exactly if it has `scales`. Group
//! size and bits follow from the shapes and must agree with the config.

use mlx::{
    Array, Dtype,
    quantized::{QuantMode, dequantize},
};

use super::{LoadError, Unpack, Weights};
use crate::QuantSpec;

/// The weight of a linear layer or an embedding.
#[derive(Clone)]
pub enum LinearWeight {
    /// `[out_dims, in_dims]` in the compute dtype.
    Dense(Array),
    /// Packed rows.
    Quantized {
        /// `[out_dims, in_dims * bits / 32]`, u32.
        weight: Array,
        /// `[out_dims, in_dims / group_size]`; u8 in the fp modes, otherwise
        /// in the compute dtype.
        scales: Array,
        /// As `scales`; only the affine mode has them.
        biases: Option<Array>,
        /// How the rows are packed.
        spec: QuantSpec,
    },
}

impl Weights {
    /// Takes the weight of a linear layer: `weight` or `weight`, `scales` and
    /// `biases`. It may become dense, see
    /// [`Unpack`].
    ///
    /// # Errors
    /// A part is missing, of another shape, or contradicts config.json.
    pub fn linear_parts(&self, in_dims: usize, out_dims: usize) -> Result<LinearWeight, LoadError> {
        self.matmul_parts(&[out_dims], in_dims)
    }

    /// Takes the weight of an embedding, `[num_embeddings, dims]`. It stays
    /// packed, since rows are dequantized as they are gathered, unless it is
    /// `tied` to a head that needs it dense: then both share one array.
    ///
    /// # Errors
    /// As for [`Weights::linear_parts`].
    pub fn embedding_parts(
        &self,
        num_embeddings: usize,
        dims: usize,
        tied: bool,
    ) -> Result<LinearWeight, LoadError> {
        if tied {
            return self.matmul_parts(&[num_embeddings], dims);
        }
        self.packed_parts(&[num_embeddings], dims, Some(self.options().compute_dtype))
    }

    /// Takes a stack of matrices, `[stack, out_dims, in_dims]`: the experts of
    /// a layer.
    ///
    /// # Errors
    /// As for [`Weights::linear_parts`].
    pub fn stacked_linear_parts(
        &self,
        stack: usize,
        in_dims: usize,
        out_dims: usize,
    ) -> Result<LinearWeight, LoadError> {
        self.matmul_parts(&[stack, out_dims], in_dims)
    }

    fn matmul_parts(&self, rows: &[usize], in_dims: usize) -> Result<LinearWeight, LoadError> {
        let options = self.options();
        if options.unpack == Unpack::Never {
            return self.packed_parts(rows, in_dims, Some(options.compute_dtype));
        }
        if options.unpack == Unpack::WithoutKernel && self.has_kernel(in_dims)? {
            return self.packed_parts(rows, in_dims, None);
        }
        // Scales in f32: rounding them to a narrow compute dtype first would
        // lose what dequantizing exactly is for.
        let parts = self.packed_parts(rows, in_dims, Some(Dtype::Float32))?;
        if matches!(parts, LinearWeight::Dense(_)) {
            return Ok(parts);
        }
        let dense = self.place("weight", parts.dequantize(options.compute_dtype))?;
        Ok(LinearWeight::Dense(dense))
    }

    /// Whether the CPU device multiplies this module packed.
    fn has_kernel(&self, in_dims: usize) -> Result<bool, LoadError> {
        let spec = self.quant_spec(in_dims)?.or_else(|| self.spec_on_load(in_dims));
        Ok(spec.is_some_and(|spec| spec.has_cpu_kernel()))
    }

    /// Takes the parts, floats in `dtype` or as stored.
    fn packed_parts(
        &self,
        rows: &[usize],
        in_dims: usize,
        dtype: Option<Dtype>,
    ) -> Result<LinearWeight, LoadError> {
        let shape = |last: usize| [rows, &[last]].concat();
        let stored = self.quant_spec(in_dims)?;
        let Some(spec) = stored.or_else(|| self.spec_on_load(in_dims)) else {
            return self.take("weight", &shape(in_dims)).map(LinearWeight::Dense);
        };
        let groups = shape(in_dims / spec.group_size);
        let words = shape(spec.packed_dims(in_dims));
        if let Some(dummy) = self.dummy() {
            let dtype = dtype.unwrap_or(Dtype::Float16);
            return dummy.quantized(self.path(), &words, &groups, spec, dtype);
        }
        let packed = match stored {
            Some(_) => self.stored_parts(&words, &groups, spec)?,
            None => self.packed_on_load(&shape(in_dims), spec)?,
        };
        let packed = self.with_scales_in(dtype, packed)?;
        self.report(&packed)?;
        Ok(packed)
    }

    fn stored_parts(
        &self,
        words: &[usize],
        groups: &[usize],
        spec: QuantSpec,
    ) -> Result<LinearWeight, LoadError> {
        let part = |name: &str, shape: &[usize]| self.place(name, Ok(self.load(name, shape)?));
        let weight = part("weight", words)?;
        let scales = part("scales", groups)?;
        let biases = spec.has_biases().then(|| part("biases", groups)).transpose()?;
        Ok(LinearWeight::Quantized { weight, scales, biases, spec })
    }

    /// Floating-point scales and biases in `dtype`, if that is given.
    fn with_scales_in(
        &self,
        dtype: Option<Dtype>,
        packed: LinearWeight,
    ) -> Result<LinearWeight, LoadError> {
        let (Some(dtype), LinearWeight::Quantized { weight, scales, biases, spec }) =
            (dtype, &packed)
        else {
            return Ok(packed);
        };
        let cast = |name: &str, part: &Array| match part.dtype().is_float() {
            true => self.place(name, part.astype(dtype)),
            false => Ok(part.clone()),
        };
        Ok(LinearWeight::Quantized {
            weight: weight.clone(),
            scales: cast("scales", scales)?,
            biases: biases.as_ref().map(|biases| cast("biases", biases)).transpose()?,
            spec: *spec,
        })
    }

    /// How this module is packed; `None` if it is dense.
    fn quant_spec(&self, in_dims: usize) -> Result<Option<QuantSpec>, LoadError> {
        let (entry, default) = self.quant_entry();
        if entry == Some(None) {
            return Ok(None);
        }
        let expected = entry.flatten().or(default);
        if self.dummy().is_some() {
            return Ok(expected.filter(|spec| in_dims.is_multiple_of(spec.group_size)));
        }
        if entry.is_none() && !self.has("scales") {
            return Ok(None);
        }
        let found = self.inferred_spec(in_dims)?;
        match expected {
            Some(expected) if expected != found => {
                Err(LoadError::QuantMismatch { path: self.path.clone(), expected, found })
            }
            _ => Ok(Some(found)),
        }
    }

    /// Group size, bits and mode from the tensors alone.
    fn inferred_spec(&self, in_dims: usize) -> Result<QuantSpec, LoadError> {
        let stored = |name: &str| {
            self.stored(name).ok_or_else(|| match self.has(name) {
                true => LoadError::TakenTwice { name: self.full(name) },
                false => LoadError::Missing { name: self.full(name) },
            })
        };
        let (weight, packed_dtype) = stored("weight")?;
        let (scales, dtype) = stored("scales")?;
        if packed_dtype != Dtype::Uint32 {
            let name = self.full("weight");
            let expected = "u32 (packed), since the module is quantized";
            return Err(LoadError::Dtype { name, expected, found: packed_dtype });
        }
        let unfit = || LoadError::QuantShape {
            path: self.path.clone(),
            weight: weight.clone(),
            scales: scales.clone(),
            in_dims,
        };
        let words = weight.last().copied().ok_or_else(unfit)?;
        let groups = scales.last().copied().ok_or_else(unfit)?;
        let group_size = exact_div(in_dims, groups).ok_or_else(unfit)?;
        let bits = words.checked_mul(32).and_then(|bits| exact_div(bits, in_dims));
        let bits = bits.filter(|bits| matches!(bits, 1..=6 | 8)).ok_or_else(unfit)?;
        let mode = match (dtype, bits, group_size) {
            (Dtype::Uint8, 4, 16) => QuantMode::Nvfp4,
            (Dtype::Uint8, 4, 32) => QuantMode::Mxfp4,
            (Dtype::Uint8, 8, 32) => QuantMode::Mxfp8,
            (Dtype::Uint8, ..) => return Err(unfit()),
            (dtype, ..) if dtype.is_float() => QuantMode::Affine,
            (found, ..) => {
                let name = self.full("scales");
                return Err(LoadError::Dtype { name, expected: "a float or u8", found });
            }
        };
        Ok(QuantSpec { group_size, bits, mode })
    }
}

impl LinearWeight {
    /// Matrices of one input, their rows one below the other, evaluated; `None`
    /// if they are not packed alike.
    ///
    /// # Errors
    /// MLX has no room for it.
    pub fn stacked(parts: &[Self]) -> mlx::Result<Option<Self>> {
        Self::stacked_along(0, parts)
    }

    /// The same along another axis, for stacks of matrices.
    pub(crate) fn stacked_along(axis: i32, parts: &[Self]) -> mlx::Result<Option<Self>> {
        let stack = |arrays: Vec<&Array>| {
            if let [only] = arrays[..] {
                return Ok(only.clone());
            }
            let stacked = Array::concatenate(&arrays, axis)?;
            stacked.eval()?;
            Ok::<_, mlx::Error>(stacked)
        };
        let Some(first) = parts.first() else { return Ok(None) };
        let mut dense = Vec::new();
        let (mut words, mut all_scales, mut all_biases) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            match (part, first) {
                (Self::Dense(weight), Self::Dense(_)) => dense.push(weight),
                (
                    Self::Quantized { weight, scales, biases, spec },
                    Self::Quantized { spec: first, .. },
                ) if spec == first => {
                    words.push(weight);
                    all_scales.push(scales);
                    all_biases.extend(biases);
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(match first {
            Self::Dense(_) => Self::Dense(stack(dense)?),
            Self::Quantized { spec, .. } => Self::Quantized {
                weight: stack(words)?,
                scales: stack(all_scales)?,
                biases: (!all_biases.is_empty()).then(|| stack(all_biases)).transpose()?,
                spec: *spec,
            },
        }))
    }

    /// As a stack of one.
    pub(crate) fn expand_dims(&self) -> mlx::Result<Self> {
        self.map(|part| part.expand_dims(0))
    }

    /// With every part changed in the same way, which must leave columns alone.
    pub(crate) fn map(&self, change: impl Fn(&Array) -> mlx::Result<Array>) -> mlx::Result<Self> {
        Ok(match self {
            Self::Dense(weight) => Self::Dense(change(weight)?),
            Self::Quantized { weight, scales, biases, spec } => Self::Quantized {
                weight: change(weight)?,
                scales: change(scales)?,
                biases: biases.as_ref().map(change).transpose()?,
                spec: *spec,
            },
        })
    }

    /// The matrix in `dtype`, computed in it too: what a packed product of that
    /// type sees. Lazy.
    ///
    /// # Errors
    /// MLX refuses the shapes.
    pub fn dequantize_as(&self, dtype: Dtype) -> mlx::Result<Array> {
        match self {
            Self::Dense(weight) => weight.astype(dtype),
            Self::Quantized { weight, scales, biases, spec } => dequantize(
                weight,
                scales,
                biases.as_ref(),
                spec.group_size,
                spec.bits,
                spec.mode,
                Some(dtype),
            ),
        }
    }

    /// The matrix in `dtype`, computed in f32 and rounded once. Lazy.
    ///
    /// # Errors
    /// MLX refuses the shapes.
    pub fn dequantize(&self, dtype: Dtype) -> mlx::Result<Array> {
        let Self::Quantized { weight, scales, biases, spec } = self else {
            return self.dequantize_as(dtype);
        };
        // MLX computes in the type of the scales, whatever it is asked for.
        let wide = |part: &Array| match part.dtype().is_float() {
            true => part.astype(Dtype::Float32),
            false => Ok(part.clone()),
        };
        let wide = Self::Quantized {
            weight: weight.clone(),
            scales: wide(scales)?,
            biases: biases.as_ref().map(wide).transpose()?,
            spec: *spec,
        };
        wide.dequantize_as(Dtype::Float32)?.astype(dtype)
    }
}

fn exact_div(value: usize, by: usize) -> Option<usize> {
    (by != 0 && value != 0 && value.is_multiple_of(by)).then(|| value / by)
}
