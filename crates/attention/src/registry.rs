//! All attention backends, by name.
//!
//! Upstream: `sglang/srt/layers/attention/attention_registry.py`.

use std::rc::Rc;

use kernels::KvDtype;
use mlx::device::{self, DeviceKind};

use crate::{
    AttentionBackend, AttentionError, AttentionShape, CacheKind,
    backends::{paged, sdpa, split::Split},
};

/// A backend that can be chosen.
pub struct BackendEntry {
    /// Name for `--attention-backend`.
    pub name: &'static str,
    /// Whether it can run here and knows every layer of this model.
    pub supports: fn(&[AttentionShape]) -> bool,
    /// Whether it reads pools of packed rows.
    pub reads_packed: bool,
    /// Makes it for a model with these layers, over a pool of such rows.
    pub new: fn(&[AttentionShape], KvDtype) -> Rc<dyn AttentionBackend>,
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

/// Refuses packed rows where layers or a backend cannot have them.
fn check_packed(
    kv_dtype: KvDtype,
    layers: &[AttentionShape],
    entries: [&BackendEntry; 2],
) -> Result<(), AttentionError> {
    if !kv_dtype.is_packed() {
        return Ok(());
    }
    if layers.iter().any(|layer| layer.cache != CacheKind::Full) {
        return Err(AttentionError::PackedLatents { kv_dtype });
    }
    match entries.into_iter().find(|entry| !entry.reads_packed) {
        None => Ok(()),
        Some(BackendEntry { name, .. }) => {
            let known = BACKENDS.iter().filter(|entry| entry.reads_packed).map(|entry| entry.name);
            let known = known.collect::<Vec<_>>().join(", ");
            Err(AttentionError::PackedCache { name, kv_dtype, known })
        }
    }
}

/// The backend whose prompts go to `prefill` and whose decode steps go to `decode`, over a
/// pool of rows of `kv_dtype`.
///
/// # Errors
/// As for [`find`]; two that cannot share a pool, since on a GPU each backend writes it in a
/// way of its own; packed rows for one that does not read them, or for latents.
pub fn build(
    prefill: &str,
    decode: &str,
    layers: &[AttentionShape],
    kv_dtype: KvDtype,
) -> Result<Rc<dyn AttentionBackend>, AttentionError> {
    let (prefill, decode) = (find(prefill, layers)?, find(decode, layers)?);
    check_packed(kv_dtype, layers, [prefill, decode])?;
    if prefill.name == decode.name {
        return Ok((prefill.new)(layers, kv_dtype));
    }
    if !device::default().is_ok_and(|device| device == DeviceKind::Cpu) {
        return Err(AttentionError::Mixed { prefill: prefill.name, decode: decode.name });
    }
    let (prefill, decode) = ((prefill.new)(layers, kv_dtype), (decode.new)(layers, kv_dtype));
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

    #[test]
    fn packed_rows_are_for_full_caches_and_backends_that_read_them() {
        mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
        let full = AttentionShape::default();
        let latent = AttentionShape {
            num_kv_heads: 1,
            cache: CacheKind::Latent { value_dim: 8 },
            ..full.clone()
        };
        let error = |backend: &str, layer: &AttentionShape| {
            build(backend, backend, std::slice::from_ref(layer), KvDtype::Int8)
                .err()
                .map(|e| e.to_string())
        };
        assert_eq!(error("paged", &full), None);
        assert_eq!(
            error("sdpa", &full).as_deref(),
            Some("attention backend \"sdpa\" does not read a K/V cache of int8 (known: paged)")
        );
        assert_eq!(
            error("mlx", &latent).as_deref(),
            Some("latent attention (MLA) keeps no K/V cache of int8: use --kv-cache-dtype auto")
        );
        let plain = KvDtype::Plain(mlx::Dtype::Float32);
        assert!(build("sdpa", "sdpa", &[latent], plain).is_ok());
    }
}
