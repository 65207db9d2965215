//! Inputs and outputs of a launch, as bytes in memory.

use half::{bf16, f16};

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// 32-bit signed integer.
    I32,
    /// 32-bit unsigned integer.
    U32,
    /// A byte of a packed row of K or V, fp8.
    Fp8Row,
    /// The same, int8.
    Int8Row,
    /// The same, int4.
    Int4Row,
}

impl ElementType {
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
            Self::I32 => 3,
            Self::U32 => 4,
            Self::Fp8Row => 5,
            Self::Int8Row => 6,
            Self::Int4Row => 7,
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Fp8Row | Self::Int8Row | Self::Int4Row => 1,
        }
    }
}

/// A row-contiguous array.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    element: ElementType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// An output: every byte 0xff, so that what a kernel fails to write is NaN.
    pub fn unwritten(element: ElementType, shape: &[usize]) -> Self {
        let len = shape.iter().product::<usize>() * element.size();
        Self { element, shape: shape.to_vec(), bytes: vec![0xff; len] }
    }

    /// Floats, rounded to `element`.
    ///
    /// # Panics
    /// Another number of values than the shape says, or an integer type.
    pub fn floats(element: ElementType, shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = match element {
            ElementType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ElementType::F16 => {
                values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
            }
            ElementType::Bf16 => {
                values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
            }
            other => panic!("floats in a tensor of {other:?}"),
        };
        Self { element, shape: shape.to_vec(), bytes }
    }

    /// 32-bit signed integers.
    ///
    /// # Panics
    /// Another number of values than the shape says.
    pub fn ints(shape: &[usize], values: &[i32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { element: ElementType::I32, shape: shape.to_vec(), bytes }
    }

    /// 32-bit unsigned integers.
    ///
    /// # Panics
    /// Another number of values than the shape says.
    pub fn uints(shape: &[usize], values: &[u32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { element: ElementType::U32, shape: shape.to_vec(), bytes }
    }

    /// Bytes of packed rows.
    ///
    /// # Panics
    /// Another number of bytes than the shape says, or another type.
    pub fn packed(element: ElementType, shape: &[usize], bytes: &[u8]) -> Self {
        assert_eq!((shape.iter().product::<usize>(), element.size()), (bytes.len(), 1));
        Self { element, shape: shape.to_vec(), bytes: bytes.to_vec() }
    }

    /// Its values as floats; of packed rows, its bytes.
    pub fn to_f32(&self) -> Vec<f32> {
        let pairs = || self.bytes.chunks_exact(2).map(|two| [two[0], two[1]]);
        let fours = || self.bytes.chunks_exact(4).map(|four| [four[0], four[1], four[2], four[3]]);
        match self.element {
            ElementType::F32 => fours().map(f32::from_le_bytes).collect(),
            ElementType::F16 => pairs().map(|two| f16::from_le_bytes(two).to_f32()).collect(),
            ElementType::Bf16 => pairs().map(|two| bf16::from_le_bytes(two).to_f32()).collect(),
            ElementType::I32 => fours().map(|four| i32::from_le_bytes(four) as f32).collect(),
            ElementType::U32 => fours().map(|four| u32::from_le_bytes(four) as f32).collect(),
            ElementType::Fp8Row | ElementType::Int8Row | ElementType::Int4Row => {
                self.bytes.iter().map(|byte| f32::from(*byte)).collect()
            }
        }
    }

    /// Its element type.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.element.size()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}
