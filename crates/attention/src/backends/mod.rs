//! Attention backends, one file each.

pub(crate) mod sdpa;
