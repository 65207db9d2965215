//! What a launcher refuses.

use mlx::Dtype;

/// A kernel cannot do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No kernel for this element type.
    #[error("no kernel for elements of type {dtype:?}")]
    ElementType {
        /// The type.
        dtype: Dtype,
    },
    /// A size that the kernel does not know.
    #[error("{kernel}: {what} of {size} is not supported")]
    Size {
        /// The kernel.
        kernel: &'static str,
        /// Which size.
        what: &'static str,
        /// Its value.
        size: usize,
    },
    /// An input of another shape than the kernel needs.
    #[error("{kernel}: {input} has shape {shape:?}, expected {expected:?}")]
    Shape {
        /// The kernel.
        kernel: &'static str,
        /// Which input.
        input: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// What it should be.
        expected: Vec<usize>,
    },
    /// MLX refused.
    #[error(transparent)]
    Mlx(#[from] mlx::Error),
}

/// For callers who asked what a kernel knows before they called it.
impl From<KernelError> for mlx::Error {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Mlx(error) => error,
            other => Self { op: "kernel", message: other.to_string() },
        }
    }
}
