//! All attention backends, by name.
//!
//! Upstream: `sglang/srt/layers/attention/attention_registry.py`.

use std::rc::Rc;

use mlx::device::{self, DeviceKind};

use crate::{
    AttentionBackend, AttentionError, AttentionShape,
    backends::{paged, sdpa, split::Split},
};

/// A backend that can be chosen.
pub struct BackendEntry {
    /// Name for `--attention-backend`.
    pub name: &'static str,
    /// Whether it can run here and knows every layer of this model.
    pub supports: fn(&[AttentionShape]) -> bool,
    /// Makes it for a model with these layers.
    pub new: fn(&[AttentionShape]) -> Rc<dyn AttentionBackend>,
}

/// Sorted by name.
pub const BACKENDS: &[BackendEntry] = &[paged::ENTRY, sdpa::ENTRY];

/// What `mlx` stands for: the first of these that supports the model.
const PREFERENCE: &[&str] = &["paged", "sdpa"];

/// The backend for `--attention-backend`; `mlx` is the best that supports the
/// model.
///
/// # Errors
/// No backend has this name, or it cannot run this model.
pub fn find(
    name: &str,
    layers: &[AttentionShape],
) -> Result<&'static BackendEntry, AttentionError> {
    let entry = |name: &str| BACKENDS.iter().find(|entry| entry.name == name);
    if name == "mlx" {
        let mut best = PREFERENCE.iter().filter_map(|name| entry(name));
        return best
            .find(|entry| (entry.supports)(layers))
            .ok_or(AttentionError::Unsupported { name: "mlx" });
    }
    let Some(found) = entry(name) else {
        let names: Vec<&str> =
            std::iter::once("mlx").chain(BACKENDS.iter().map(|e| e.name)).collect();
        return Err(AttentionError::UnknownBackend {
            name: name.to_owned(),
            known: names.join(", "),
        });
    };
    if (found.supports)(layers) {
        Ok(found)
    } else {
        Err(AttentionError::Unsupported { name: found.name })
    }
}

/// The backend whose prompts go to `prefill` and whose decode steps go to `decode`.
///
/// # Errors
/// As for [`find`], and two that cannot share a pool: on a GPU each backend writes it
/// in a way of its own.
pub fn build(
    prefill: &str,
    decode: &str,
    layers: &[AttentionShape],
) -> Result<Rc<dyn AttentionBackend>, AttentionError> {
    let (prefill, decode) = (find(prefill, layers)?, find(decode, layers)?);
    if prefill.name == decode.name {
        return Ok((prefill.new)(layers));
    }
    if !device::default().is_ok_and(|device| device == DeviceKind::Cpu) {
        return Err(AttentionError::Mixed { prefill: prefill.name, decode: decode.name });
    }
    let (prefill, decode) = ((prefill.new)(layers), (decode.new)(layers));
    Ok(Rc::new(Split { prefill, decode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted() {
        assert!(BACKENDS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(PREFERENCE.iter().all(|name| BACKENDS.iter().any(|entry| entry.name == *name)));
    }

    #[test]
    fn mlx_is_the_best_and_unknown_names_list_the_known() {
        mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
        assert_eq!(find("mlx", &[]).map(|entry| entry.name).ok(), Some("paged"));
        assert_eq!(find("sdpa", &[]).map(|entry| entry.name).ok(), Some("sdpa"));
        assert_eq!(
            find("flashinfer", &[]).err().unwrap().to_string(),
            "unknown attention backend \"flashinfer\" (known: mlx, paged, sdpa)"
        );
    }
}
