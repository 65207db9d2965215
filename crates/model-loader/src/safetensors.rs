//! The safetensors format: a JSON header, then the tensors' bytes.
//!
//! The header is checked as a whole before the first tensor is read, and every
//! complaint names the tensor. The `safetensors` crate wants the whole file in
//! memory (or mapped) and reports without names, so the header is parsed here.
//!
//! Upstream: `safetensors_weights_iterator` in
//! `sglang/srt/model_loader/weight_utils.py`.

use std::{collections::BTreeSet, fmt, path::Path};

use mlx::{Array, Dtype};
use nn::TensorSource;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::{
    FileProblem, LoadError, TensorProblem,
    tensor_file::{TensorFile, upload},
};

#[cfg(test)]
mod tests;

/// Bytes of the header's length.
const PREFIX_BYTES: u64 = 8;
/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// One tensor of an open file.
pub(crate) struct SafetensorsTensor {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    offset: u64,
    file: TensorFile,
}

impl SafetensorsTensor {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl TensorSource for SafetensorsTensor {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn load(&self) -> Result<Array, nn::LoadError> {
        let elements = self.shape.iter().skip(1).product::<usize>();
        let row_bytes = elements * self.dtype.size_in_bytes();
        upload(&self.name, &self.shape, self.dtype, |rows, buffer| {
            let offset = self.offset + (rows.start * row_bytes) as u64;
            self.file.read(offset, rows.len() * row_bytes, buffer).map_err(|source| {
                let path = self.file.path().to_owned();
                nn::LoadError::Read {
                    name: self.name.clone(),
                    source: Box::new(LoadError::Io { path, source }),
                }
            })
        })
    }
}

/// All tensors of a file, in the order of their bytes.
pub(crate) fn open(path: &Path) -> Result<Vec<SafetensorsTensor>, LoadError> {
    let file = TensorFile::open(path)?;
    let wrong = |problem| LoadError::File { path: path.to_owned(), problem };
    let failed = |source| LoadError::Io { path: path.to_owned(), source };
    let too_long = |header| wrong(FileProblem::HeaderLength { header, file: file.len() });
    if file.len() < PREFIX_BYTES {
        return Err(too_long(0));
    }
    let mut bytes = Vec::new();
    file.read(0, PREFIX_BYTES as usize, &mut bytes).map_err(failed)?;
    let header_len = u64::from_le_bytes(*bytes.first_chunk().expect("as many as were read"));
    if header_len > MAX_HEADER_BYTES || header_len > file.len() - PREFIX_BYTES {
        return Err(too_long(header_len));
    }
    file.read(PREFIX_BYTES, header_len as usize, &mut bytes).map_err(failed)?;
    let header = serde_json::from_slice(&bytes).map_err(|error| wrong(FileProblem::Json(error)))?;
    check(&file, PREFIX_BYTES + header_len, header).map_err(wrong)
}

fn check(
    file: &TensorFile,
    data_start: u64,
    header: Header,
) -> Result<Vec<SafetensorsTensor>, FileProblem> {
    let available = file.len() - data_start;
    let mut entries = header.0;
    let mut names = BTreeSet::new();
    for (name, entry) in &entries {
        let problem = match names.insert(name.as_str()) {
            false => Some(TensorProblem::Duplicate),
            true => entry.problem(available),
        };
        if let Some(problem) = problem {
            return Err(FileProblem::tensor(name, problem));
        }
    }
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    for pair in entries.windows(2) {
        let [(before, first), (name, second)] = pair else { unreachable!("windows of two") };
        if second.data_offsets.0 < first.data_offsets.1 {
            return Err(FileProblem::tensor(name, TensorProblem::Overlap(before.clone())));
        }
    }
    let sources = entries.into_iter().map(|(name, entry)| SafetensorsTensor {
        name,
        dtype: dtype(&entry.dtype).expect("checked by problem()"),
        shape: entry.shape.iter().map(|&dim| dim as usize).collect(),
        offset: data_start + entry.data_offsets.0,
        file: file.clone(),
    });
    Ok(sources.collect())
}

/// `{"name": {"dtype": .., "shape": .., "data_offsets": ..}}` without the
/// metadata, duplicates kept so that they can be refused.
struct Header(Vec<(String, HeaderEntry)>);

#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl HeaderEntry {
    fn problem(&self, available: u64) -> Option<TensorProblem> {
        let Some(dtype) = dtype(&self.dtype) else {
            return Some(TensorProblem::Type(self.dtype.clone()));
        };
        let (begin, end) = self.data_offsets;
        if begin > end || end > available {
            return Some(TensorProblem::OutOfRange { begin, end, available });
        }
        let size = dtype.size_in_bytes() as u64;
        let dims = self.shape.iter().try_fold(size, |bytes, &dim| {
            i32::try_from(dim).ok().and_then(|_| bytes.checked_mul(dim))
        });
        match dims {
            None => Some(TensorProblem::Shape(self.shape.clone())),
            Some(expected) if expected != end - begin => {
                Some(TensorProblem::Length { expected, found: end - begin })
            }
            Some(_) => None,
        }
    }
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "F32" => Dtype::Float32,
        "F16" => Dtype::Float16,
        "BF16" => Dtype::Bfloat16,
        "U32" => Dtype::Uint32,
        // Floats of one byte are bytes to MLX, too.
        "U8" | "F8_E4M3" | "F8_E8M0" => Dtype::Uint8,
        "I8" => Dtype::Int8,
        "I32" => Dtype::Int32,
        "I64" => Dtype::Int64,
        _ => return None,
    })
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
