//! A checkpoint's tensor that a test holds in its hand.

use mlx::{Array, Dtype};

use crate::{LoadError, TensorSource};

pub(crate) struct Held {
    array: Array,
    shape: Vec<usize>,
}

impl Held {
    /// Ready for [`crate::WeightStore::insert`].
    pub(crate) fn boxed(array: Array) -> Box<Self> {
        let shape = array.shape();
        Box::new(Self { array, shape })
    }
}

impl TensorSource for Held {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> Dtype {
        self.array.dtype()
    }

    fn load(&self) -> Result<Array, LoadError> {
        Ok(self.array.clone())
    }
}
