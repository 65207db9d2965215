//! Writers of small safetensors and GGUF files, for tests.

use std::path::Path;

use nn::{LoadOptions, Unpack, WeightStore, Weights};
use serde_json::{Map, Value, json};

/// f32 on the CPU, packed weights stay packed.
pub(crate) const PACKED: LoadOptions =
    LoadOptions { compute_dtype: mlx::Dtype::Float32, unpack: Unpack::Never };

/// One tensor: name, safetensors' name of its type, shape, bytes.
pub(crate) type Raw<'a> = (&'a str, &'a str, &'a [usize], Vec<u8>);

pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A header, as JSON, in front of data.
pub(crate) fn safetensors_of(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

pub(crate) fn safetensors(tensors: &[Raw<'_>]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "mlx"}));
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    safetensors_of(&Value::Object(header).to_string(), &data)
}

/// Writes a file and says what opening its folder as a model complains about.
pub(crate) fn folder_error(folder: &Path) -> String {
    match crate::folder::open(folder, PACKED, None) {
        Ok(_) => panic!("the folder opens"),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn weights(store: WeightStore) -> Weights {
    Weights::new(store)
}

/// Builds GGUF files.
#[derive(Clone, Default)]
pub(crate) struct GgufWriter {
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<GgufEntry>,
}

/// A tensor with all that the directory says about it.
#[derive(Clone)]
pub(crate) struct GgufEntry {
    pub(crate) name: String,
    /// Fastest dimension first.
    pub(crate) dims: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn gguf_string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl GgufWriter {
    /// Adds or replaces an entry: type number and value.
    pub(crate) fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.retain(|(old, _)| old != key);
        self.entries.push((key.to_owned(), [&kind.to_le_bytes()[..], value].concat()));
        self
    }

    /// All keys `FROM.x` become `TO.x`.
    pub(crate) fn renamed(mut self, from: &str, to: &str) -> Self {
        for (key, _) in &mut self.entries {
            if let Some(rest) = key.strip_prefix(from).filter(|rest| rest.starts_with('.')) {
                *key = format!("{to}{rest}");
            }
        }
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(old, _)| old != key);
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn str(self, key: &str, value: &str) -> Self {
        self.raw(key, 8, &gguf_string(value))
    }

    pub(crate) fn strings(self, key: &str, values: &[&str]) -> Self {
        let mut bytes = [&8u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        bytes.extend(values.iter().flat_map(|value| gguf_string(value)));
        self.raw(key, 9, &bytes)
    }

    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], kind: u32, bytes: Vec<u8>) -> Self {
        self.tensors.retain(|old| old.name != name);
        self.tensors.push(GgufEntry { name: name.to_owned(), dims: dims.to_vec(), kind, bytes });
        self
    }

    pub(crate) fn f32_tensor(self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        self.tensor(name, dims, 0, f32_bytes(values))
    }

    pub(crate) fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|old| old.name != name);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_with(3, |offset| offset)
    }

    /// The file, with another version or with the offsets changed.
    pub(crate) fn bytes_with(&self, version: u32, offset_of: impl Fn(u64) -> u64) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            bytes.extend(gguf_string(key));
            bytes.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(usize::next_multiple_of(data.len(), 32), 0);
            bytes.extend(gguf_string(&tensor.name));
            bytes.extend((tensor.dims.len() as u32).to_le_bytes());
            bytes.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(offset_of(data.len() as u64).to_le_bytes());
            data.extend_from_slice(&tensor.bytes);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        bytes
    }

    pub(crate) fn write(&self, folder: &Path) -> std::path::PathBuf {
        let path = folder.join("model.gguf");
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }
}
