//! A model folder: config.json, safetensors shards, what else lies there.
//!
//! MLX format and plain Hugging Face format differ in config.json alone, so
//! there is one reader. The weights are `model*.safetensors`; where an index
//! exists it must be true, since a shard lost in copying is the usual damage.
//!
//! Upstream: `DefaultModelLoader._prepare_weights` in
//! `sglang/srt/model_loader/loader.py`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
};

use nn::{LoadOptions, WeightStore};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    FileProblem, LoadError,
    imports::{Import, Sources},
    safetensors,
};

#[cfg(test)]
mod tests;

const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the headers of all shards.
pub(crate) fn open(
    folder: &Path,
    options: LoadOptions,
    import: Option<&Import>,
) -> Result<WeightStore, LoadError> {
    let index = read_optional(&folder.join(INDEX))?.map(|text| parse_index(folder, &text));
    let index = index.transpose()?;
    let shards = match &index {
        Some(index) => index.weight_map.values().map(|shard| folder.join(shard)).collect(),
        None => glob(folder)?,
    };
    if shards.is_empty() {
        return Err(LoadError::NoWeights { path: folder.to_owned() });
    }
    let mut sources = Sources::new();
    let mut held = BTreeMap::new();
    for shard in &shards {
        for tensor in safetensors::open(shard)? {
            let name = tensor.name().to_owned();
            held.insert(name.clone(), shard.clone());
            if sources.insert(name.clone(), Rc::new(tensor)).is_some() {
                return Err(nn::LoadError::Duplicate { name }.into());
            }
        }
    }
    for (name, shard) in index.iter().flat_map(|index| &index.weight_map) {
        if held.get(name) != Some(&folder.join(shard)) {
            let problem = FileProblem::IndexedTensor { name: name.clone(), shard: shard.clone() };
            return Err(LoadError::File { path: folder.join(INDEX), problem });
        }
    }
    if let Some(import) = import {
        import.rewrite(&mut sources)?;
    }
    let mut store = WeightStore::new(options);
    for (name, source) in sources {
        store.insert(name, Box::new(source))?;
    }
    Ok(store)
}

/// Parses the index; every shard is a plain name and is there.
fn parse_index(folder: &Path, text: &str) -> Result<Index, LoadError> {
    let wrong = |problem| LoadError::File { path: folder.join(INDEX), problem };
    let index: Index =
        serde_json::from_str(text).map_err(|error| wrong(FileProblem::Json(error)))?;
    for shard in index.weight_map.values().collect::<BTreeSet<_>>() {
        let shard = shard.clone();
        if !is_plain_name(&shard) {
            return Err(wrong(FileProblem::ShardName { shard }));
        }
        if !folder.join(&shard).is_file() {
            return Err(wrong(FileProblem::MissingShard { shard }));
        }
    }
    Ok(index)
}

/// Whether a name stays inside its folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// `model*.safetensors`.
fn glob(folder: &Path) -> Result<BTreeSet<PathBuf>, LoadError> {
    let is_shard = |name: &str| name.starts_with("model") && name.ends_with(".safetensors");
    Ok(entries(folder)?
        .into_iter()
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_shard))
        .collect())
}

/// The files of a folder, sorted.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Io { path: folder.to_owned(), source };
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// The text of a file; `None` if there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, LoadError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Io { path: path.to_owned(), source }),
    }
}

/// The settings of ModelOpt, which come in a file of their own where config.json does
/// not name them.
pub(crate) fn quantization_config(
    folder: &Path,
    config: &Map<String, Value>,
) -> Result<Option<Value>, LoadError> {
    if config.contains_key("quantization") || config.contains_key("quantization_config") {
        return Ok(None);
    }
    let path = folder.join("hf_quant_config.json");
    let Some(text) = read_optional(&path)? else { return Ok(None) };
    let mut fields: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| LoadError::File { path, problem: FileProblem::Json(error) })?;
    fields.entry("quant_method").or_insert_with(|| "modelopt".into());
    Ok(Some(Value::Object(fields)))
}
