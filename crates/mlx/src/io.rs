//! Files of tensors. Tensors are read from the file when they are evaluated.

use std::{collections::BTreeMap, path::Path};

use mlx_sys::{RawMap, mlxs_load_gguf, mlxs_load_safetensors, mlxs_save_safetensors};

use crate::{
    Array, Error, Result,
    error::check,
    handle::{Map, Value, pointers, text},
};

/// A value of a GGUF file's metadata.
#[derive(Debug, Clone)]
pub enum GgufValue {
    /// A number or a list of numbers.
    Array(Array),
    /// One text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}

/// The tensors and the metadata of a safetensors file. Lazy.
///
/// # Errors
/// The file is missing, or its header cannot be read. A file that is too short
/// for its tensors shows when they are evaluated.
pub fn load_safetensors(
    path: &Path,
) -> Result<(BTreeMap<String, Array>, BTreeMap<String, String>)> {
    const OP: &str = "load_safetensors";
    let (arrays, metadata) = load(OP, path, mlxs_load_safetensors)?;
    let metadata = metadata.into_iter().filter_map(|(name, value)| match value {
        Value::Text(text) => Some((name, text)),
        Value::Array(_) | Value::Texts(_) => None,
    });
    Ok((tensors(arrays), metadata.collect()))
}

/// The tensors and the metadata of a GGUF file. Tensors of types that MLX can
/// pack come as `NAME.weight`, `NAME.scales` and `NAME.biases`, other packed
/// ones as f16.
///
/// # Errors
/// The file is missing or no GGUF file.
pub fn load_gguf(path: &Path) -> Result<(BTreeMap<String, Array>, BTreeMap<String, GgufValue>)> {
    const OP: &str = "load_gguf";
    let (arrays, metadata) = load(OP, path, mlxs_load_gguf)?;
    let metadata = metadata.into_iter().map(|(name, value)| {
        let value = match value {
            Value::Array(array) => GgufValue::Array(array),
            Value::Text(text) => GgufValue::Text(text),
            Value::Texts(texts) => GgufValue::Texts(texts),
        };
        (name, value)
    });
    Ok((tensors(arrays), metadata.collect()))
}

/// Writes tensors and metadata to a safetensors file, whose name must end so.
///
/// # Errors
/// The file cannot be written, or a tensor cannot be computed.
pub fn save_safetensors(
    path: &Path,
    arrays: &BTreeMap<String, Array>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    const OP: &str = "save_safetensors";
    let path = utf8(OP, path)?;
    // MLX would append the ending, and so write to another file.
    if !path.ends_with(".safetensors") {
        return Err(Error::new(OP, format!("`{path}` does not end in .safetensors")));
    }
    let (path, path_len) = text(path);
    let (names, name_lens): (Vec<_>, Vec<_>) = arrays.keys().map(|name| text(name)).unzip();
    let values = pointers(&arrays.values().collect::<Vec<_>>());
    let (texts, text_lens): (Vec<_>, Vec<_>) =
        metadata.iter().flat_map(|(key, value)| [text(key), text(value)]).unzip();
    // SAFETY: each list is as long as the call says, its texts and arrays
    // alive until it returns.
    check(OP, unsafe {
        mlxs_save_safetensors(
            path,
            path_len,
            names.as_ptr(),
            name_lens.as_ptr(),
            values.as_ptr(),
            values.len(),
            texts.as_ptr(),
            text_lens.as_ptr(),
            metadata.len(),
        )
    })
}

type Load =
    unsafe extern "C" fn(*mut *mut RawMap, *mut *mut RawMap, *const std::ffi::c_char, usize) -> i32;
type Entries = Vec<(String, Value)>;

fn load(op: &'static str, path: &Path, call: Load) -> Result<(Entries, Entries)> {
    let path = utf8(op, path)?;
    // MLX's own message for a missing file does not say why.
    std::fs::File::open(path).map_err(|error| Error::new(op, format!("`{path}`: {error}")))?;
    let (name, len) = text(path);
    let (mut arrays, mut metadata) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: both outputs are writable, and the name has `len` bytes.
    let status = unsafe { call(&raw mut arrays, &raw mut metadata, name, len) };
    check(op, status).map_err(|error| Error::new(op, format!("`{path}`: {}", error.message)))?;
    let (arrays, metadata) = (Map::from_raw(op, arrays)?, Map::from_raw(op, metadata)?);
    Ok((arrays.entries(op)?, metadata.entries(op)?))
}

fn tensors(entries: Entries) -> BTreeMap<String, Array> {
    entries
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::Array(array) => Some((name, array)),
            Value::Text(_) | Value::Texts(_) => None,
        })
        .collect()
}

fn utf8<'a>(op: &'static str, path: &'a Path) -> Result<&'a str> {
    path.to_str().ok_or_else(|| Error::new(op, format!("`{}` is not valid UTF-8", path.display())))
}
