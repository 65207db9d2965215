//! Files of arrays.

use std::{collections::BTreeMap, path::Path};

use crate::{
    array::Array,
    error::{Error, Result, check},
    map::Map,
};

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// Text metadata.
pub type Metadata = BTreeMap<String, String>;

/// Arrays are read from the file when they are evaluated.
///
/// # Errors
/// If the file is missing or not in the format.
pub fn load_safetensors(path: &Path) -> Result<(Arrays, Metadata)> {
    let op = "load_safetensors";
    let name = existing(op, path)?;
    // SAFETY: the path is copied.
    let map = Map::build(op, |out| unsafe {
        mlx_sys::smlx_load_safetensors(name.as_ptr().cast(), name.len(), out)
    })?;
    Ok((map.arrays(op)?, map.texts()))
}

/// A GGUF file through MLX's own reader; metadata that is not text is left out.
///
/// # Errors
/// If the file is missing or not in the format.
pub fn load_gguf(path: &Path) -> Result<(Arrays, Metadata)> {
    let op = "load_gguf";
    let name = existing(op, path)?;
    // SAFETY: the path is copied.
    let map = Map::build(op, |out| unsafe {
        mlx_sys::smlx_load_gguf(name.as_ptr().cast(), name.len(), out)
    })?;
    Ok((map.arrays(op)?, map.texts()))
}

/// Evaluates the arrays and writes them.
///
/// # Errors
/// If the file cannot be written.
pub fn save_safetensors(path: &Path, arrays: &Arrays, metadata: &Metadata) -> Result<()> {
    let op = "save_safetensors";
    let name = text(op, path)?;
    let mut map = Map::new(op)?;
    for (key, array) in arrays {
        map.push_array(op, key, array)?;
    }
    for (key, value) in metadata {
        map.push_text(op, key, value)?;
    }
    // SAFETY: the path is copied and the map is alive.
    check(op, unsafe {
        mlx_sys::smlx_save_safetensors(name.as_ptr().cast(), name.len(), map.as_ptr())
    })
}

fn text<'a>(op: &'static str, path: &'a Path) -> Result<&'a str> {
    path.to_str().ok_or_else(|| Error::new(op, format!("{} is not UTF-8", path.display())))
}

/// MLX may only notice a missing file when it is read; say it at once.
fn existing<'a>(op: &'static str, path: &'a Path) -> Result<&'a str> {
    if !path.is_file() {
        return Err(Error::new(op, format!("no such file: {}", path.display())));
    }
    text(op, path)
}
