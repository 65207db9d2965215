//! Operations, as methods of [`Array`](crate::Array). All are lazy; an error is
//! one of shapes or types, and names the operation.
//!
//! A scalar array takes part in type promotion like any other: an f32 scalar
//! turns a bf16 array into f32. `add_scalar` and `mul_scalar` cast it first.

mod create;
mod elementwise;
mod reduce;
mod shape;
