//! Attention backends, one file each.

pub(crate) mod paged;
pub(crate) mod sdpa;
pub(crate) mod split;

pub use sdpa::MAX_LATENT_SCORES;
