//! Writes a model folder in the MLX format: what a model takes while it is loaded,
//! under the names of that format, in shards.
//!
//! Everything goes to a folder beside the target, which takes its name at the end, so
//! a conversion that fails leaves nothing that looks like a model.
//!
//! Upstream: `save` in `mlx_lm/utils.py`.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    mem,
    path::{Path, PathBuf},
    rc::Rc,
};

use mlx::{Array, Dtype};
use nn::{LinearWeight, QuantSpec, WeightSink};
use serde_json::{Map, Value, json};

use crate::{LoadError, folder};

#[cfg(test)]
mod tests;

/// Bytes of a shard, unless one tensor is larger.
const SHARD_BYTES: usize = 5 << 30;

/// Files that are copied as they are.
const COMPANIONS: [&str; 13] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tiktoken.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// A folder that is being written.
pub struct MlxFolder {
    target: PathBuf,
    partial: PathBuf,
    content: Rc<RefCell<Content>>,
}

/// What came of a conversion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Written {
    /// All tensors.
    pub total_bytes: usize,
    /// Elements, those of packed matrices counted before packing.
    pub total_parameters: usize,
    /// Files.
    pub num_shards: usize,
}

impl Written {
    /// Of a parameter, scales and biases included.
    pub fn bits_per_weight(&self) -> f64 {
        self.total_bytes as f64 * 8.0 / self.total_parameters.max(1) as f64
    }
}

struct Content {
    folder: PathBuf,
    shard_bytes: usize,
    /// Packed matrices are written dense.
    dequantize: bool,
    pending: BTreeMap<String, Array>,
    pending_bytes: usize,
    /// Names of the tensors in each shard.
    shards: Vec<Vec<String>>,
    total_bytes: usize,
    total_parameters: usize,
    /// Packed matrices by module path.
    packed: BTreeMap<String, QuantSpec>,
}

impl MlxFolder {
    /// Starts a folder at `target`. `dequantize`: packed matrices are written dense.
    ///
    /// # Errors
    /// Something is there already, or no folder can be made there.
    pub fn create(target: &Path, dequantize: bool) -> Result<Self, LoadError> {
        let write = |source| LoadError::Write { path: target.to_owned(), source };
        if target.exists() {
            return Err(write(io::Error::new(io::ErrorKind::AlreadyExists, "it exists already")));
        }
        let name = target.file_name().ok_or_else(|| write(io::ErrorKind::InvalidInput.into()))?;
        let mut partial = name.to_owned();
        partial.push(".partial");
        let partial = target.with_file_name(partial);
        // Of a conversion that was killed.
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(write)?;
        }
        fs::create_dir_all(&partial).map_err(write)?;
        let content = Content {
            folder: partial.clone(),
            shard_bytes: SHARD_BYTES,
            dequantize,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            shards: Vec::new(),
            total_bytes: 0,
            total_parameters: 0,
            packed: BTreeMap::new(),
        };
        let content = Rc::new(RefCell::new(content));
        Ok(Self { target: target.to_owned(), partial, content })
    }

    /// For [`nn::Weights::set_sink`]: writes all that a model takes.
    pub fn sink(&self) -> Box<dyn WeightSink> {
        Box::new(Sink(Rc::clone(&self.content)))
    }

    /// Writes what is left: shards, index, `config` with the packing of `default`, and
    /// the other files of `source`.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn finish(
        mut self,
        config: &Map<String, Value>,
        default: Option<QuantSpec>,
        source: &Path,
    ) -> Result<Written, LoadError> {
        let written = {
            let mut content = self.content.borrow_mut();
            content.flush()?;
            let names = content.name_shards()?;
            content.write_index(&names)?;
            let config = content.config(config, default);
            write_json(&self.partial.join("config.json"), &Value::Object(config))?;
            Written {
                total_bytes: content.total_bytes,
                total_parameters: content.total_parameters,
                num_shards: names.len(),
            }
        };
        copy_companions(source, &self.partial)?;
        fs::rename(&self.partial, &self.target)
            .map_err(|source| LoadError::Write { path: self.target.clone(), source })?;
        self.partial = PathBuf::new();
        Ok(written)
    }
}

impl Drop for MlxFolder {
    fn drop(&mut self) {
        if !self.partial.as_os_str().is_empty() {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

struct Sink(Rc<RefCell<Content>>);

impl WeightSink for Sink {
    fn tensor(&mut self, name: &str, array: &Array) -> Result<(), nn::LoadError> {
        let mut content = self.0.borrow_mut();
        content.total_parameters += array.size();
        content.push(name.to_owned(), array.clone())
    }

    fn packed(&mut self, path: &str, weight: &LinearWeight) -> Result<(), nn::LoadError> {
        let mut content = self.0.borrow_mut();
        let LinearWeight::Quantized { weight: words, scales, biases, spec } = weight else {
            unreachable!("dense matrices are tensors");
        };
        content.total_parameters += words.size() * 32 / spec.bits;
        if content.dequantize {
            // In the type of the scales, where they have one.
            let dtype = if scales.dtype().is_float() { scales.dtype() } else { Dtype::Bfloat16 };
            let dense = weight.dequantize_as(dtype)?;
            dense.eval()?;
            return content.push(format!("{path}.weight"), dense);
        }
        content.packed.insert(path.to_owned(), *spec);
        content.push(format!("{path}.weight"), words.clone())?;
        content.push(format!("{path}.scales"), scales.clone())?;
        match biases {
            Some(biases) => content.push(format!("{path}.biases"), biases.clone()),
            None => Ok(()),
        }
    }
}

impl Content {
    fn push(&mut self, name: String, array: Array) -> Result<(), nn::LoadError> {
        let nbytes = array.nbytes();
        if !self.pending.is_empty() && self.pending_bytes + nbytes > self.shard_bytes {
            self.flush().map_err(|error| nn::LoadError::Sink { source: Box::new(error) })?;
        }
        self.pending_bytes += nbytes;
        self.total_bytes += nbytes;
        self.pending.insert(name, array);
        Ok(())
    }

    /// Writes a shard under a name that does not know how many there will be.
    fn flush(&mut self) -> Result<(), LoadError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (tensors, nbytes) = (mem::take(&mut self.pending), mem::take(&mut self.pending_bytes));
        let path = self.folder.join(unnamed_shard(self.shards.len()));
        tracing::info!("writing shard {}: {} MB", self.shards.len() + 1, nbytes / 1_000_000);
        let write = |source| LoadError::Write { path: path.clone(), source };
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(write)?);
        write_safetensors(&mut file, &tensors).map_err(write)?;
        file.flush().map_err(write)?;
        self.shards.push(tensors.into_keys().collect());
        Ok(())
    }

    fn name_shards(&self) -> Result<Vec<String>, LoadError> {
        let count = self.shards.len();
        let name = |shard: usize| match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", shard + 1),
        };
        let names: Vec<String> = (0..count).map(name).collect();
        for (shard, name) in names.iter().enumerate() {
            let path = self.folder.join(name);
            fs::rename(self.folder.join(unnamed_shard(shard)), &path)
                .map_err(|source| LoadError::Write { path, source })?;
        }
        Ok(names)
    }

    fn write_index(&self, names: &[String]) -> Result<(), LoadError> {
        let entries = names.iter().zip(&self.shards);
        let weight_map: BTreeMap<&String, &String> =
            entries.flat_map(|(file, shard)| shard.iter().map(move |name| (name, file))).collect();
        let index = json!({
            "metadata": {
                "total_size": self.total_bytes,
                "total_parameters": self.total_parameters,
            },
            "weight_map": weight_map,
        });
        write_json(&self.folder.join("model.safetensors.index.json"), &index)
    }

    /// The config of the source with this packing. Modules that are packed differently
    /// have entries of their own; those without scales need none.
    fn config(
        &self,
        source: &Map<String, Value>,
        default: Option<QuantSpec>,
    ) -> Map<String, Value> {
        let mut config = source.clone();
        for key in ["_name_or_path", "vision_config", "quantization", "quantization_config"] {
            config.remove(key);
        }
        let Some(default) = default.filter(|_| !self.packed.is_empty()) else {
            return config;
        };
        let fields = |spec: &QuantSpec| {
            let QuantSpec { group_size, bits, mode } = spec;
            json!({"group_size": group_size, "bits": bits, "mode": mode.name()})
        };
        let mut quantization = fields(&default);
        for (path, spec) in self.packed.iter().filter(|(_, spec)| **spec != default) {
            quantization[path] = fields(spec);
        }
        config.insert("quantization".to_owned(), quantization.clone());
        config.insert("quantization_config".to_owned(), quantization);
        config
    }
}

fn unnamed_shard(shard: usize) -> String {
    format!("shard-{shard}")
}

fn write_json(path: &Path, value: &Value) -> Result<(), LoadError> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    serde::Serialize::serialize(value, &mut serializer).expect("a JSON value to memory");
    fs::write(path, bytes).map_err(|source| LoadError::Write { path: path.to_owned(), source })
}

fn copy_companions(source: &Path, target: &Path) -> Result<(), LoadError> {
    let named = |name: &str| COMPANIONS.contains(&name) || name.ends_with(".tiktoken");
    for path in folder::entries(source)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if named(name) && path.is_file() {
            let to = target.join(name);
            fs::copy(&path, &to).map_err(|source| LoadError::Write { path: to, source })?;
        }
    }
    Ok(())
}

/// Header and bytes, tensors in the order of their names.
fn write_safetensors(out: &mut impl Write, tensors: &BTreeMap<String, Array>) -> io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "mlx"}));
    let mut offset = 0;
    for (name, array) in tensors {
        let end = offset + array.nbytes();
        let entry = json!({
            "dtype": dtype_name(array.dtype()),
            "shape": array.shape(),
            "data_offsets": [offset, end],
        });
        header.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for array in tensors.values() {
        out.write_all(&bytes(array).map_err(io::Error::other)?)?;
    }
    Ok(())
}

fn bytes(array: &Array) -> mlx::Result<Vec<u8>> {
    array.flatten(0, -1)?.view(Dtype::Uint8)?.to_vec()
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Float32 => "F32",
        Dtype::Float16 => "F16",
        Dtype::Bfloat16 => "BF16",
        Dtype::Uint32 => "U32",
        Dtype::Uint8 => "U8",
        Dtype::Int32 => "I32",
        Dtype::Int64 => "I64",
        other => unreachable!("no weight has element type {other:?}"),
    }
}
