//! The GGUF container: header, metadata, tensor directory.
//!
//! Nothing in the file is believed before it is checked against what is left
//! of the file: a length never decides an allocation, so a corrupt file ends
//! in an error that names the entry, not in an out-of-memory kill.

use std::{
    fs::File,
    io::{BufReader, Read},
};

use crate::FileProblem;

const MAGIC: [u8; 4] = *b"GGUF";
/// Arrays of arrays exist in the format; nobody nests deeper.
const MAX_DEPTH: usize = 4;
/// Vocabularies have a quarter of a million entries, merges twice that.
const MAX_ELEMENTS: u64 = 1 << 24;
/// Chat templates are the longest strings, at tens of kilobytes.
const MAX_STRING_BYTES: u64 = 1 << 26;
/// `general.alignment` unless said otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A metadata value. Integers keep their width only as far as anyone asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GgufValue {
    Int(i64),
    /// Above `i64::MAX`.
    Uint(u64),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Vec<GgufValue>),
}

/// One entry of the tensor directory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GgufTensorInfo {
    pub(crate) name: String,
    /// Fastest dimension first, as stored.
    pub(crate) dims: Vec<u64>,
    /// Element type by number.
    pub(crate) kind: u32,
    /// From the start of the data.
    pub(crate) offset: u64,
}

/// Everything before the tensors' bytes.
#[derive(Debug)]
pub(crate) struct GgufHeader {
    pub(crate) metadata: Vec<(String, GgufValue)>,
    pub(crate) tensors: Vec<GgufTensorInfo>,
    /// Where the tensors' bytes start.
    pub(crate) data_start: u64,
    pub(crate) alignment: u64,
}

impl GgufHeader {
    pub(crate) fn read(file: &File, len: u64) -> Result<Self, FileProblem> {
        let mut reader = Reader { inner: BufReader::new(file), at: 0, len };
        if reader.bytes::<4>("magic").map_err(|_| FileProblem::Magic)? != MAGIC {
            return Err(FileProblem::Magic);
        }
        let version = reader.u32("version")?;
        if !matches!(version, 2 | 3) {
            return Err(FileProblem::Version(version));
        }
        // Smallest tensor entry: name length, one dimension count, type, offset.
        let num_tensors = reader.count("tensor count", 8 + 4 + 4 + 8)?;
        // Smallest metadata entry: key length, type, one byte.
        let num_entries = reader.count("metadata count", 8 + 4 + 1)?;
        let metadata = reader.metadata(num_entries)?;
        let mut tensors = Vec::new();
        for index in 0..num_tensors {
            tensors.push(reader.tensor(index)?);
        }
        let alignment = alignment(&metadata)?;
        let data_start = reader.at.next_multiple_of(alignment);
        if data_start > len && !tensors.is_empty() {
            return Err(FileProblem::Truncated { what: "tensor data".to_owned(), at: data_start });
        }
        Ok(Self { metadata, tensors, data_start, alignment })
    }
}

fn alignment(metadata: &[(String, GgufValue)]) -> Result<u64, FileProblem> {
    const KEY: &str = "general.alignment";
    match metadata.iter().find(|(key, _)| key == KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some((_, GgufValue::Int(value @ 1..=0x10_0000))) if value.count_ones() == 1 => {
            Ok(value.unsigned_abs())
        }
        Some(_) => Err(FileProblem::metadata(KEY, "expected a power of two")),
    }
}

struct Reader<R> {
    inner: R,
    at: u64,
    len: u64,
}

impl<R: Read> Reader<R> {
    fn truncated(&self, what: &str) -> FileProblem {
        FileProblem::Truncated { what: what.to_owned(), at: self.at }
    }

    fn left(&self) -> u64 {
        self.len.saturating_sub(self.at)
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FileProblem> {
        let mut bytes = [0; N];
        match self.inner.read_exact(&mut bytes) {
            Ok(()) => self.at += N as u64,
            Err(_) => return Err(self.truncated(what)),
        }
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, FileProblem> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, FileProblem> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `min_bytes` each.
    fn count(&mut self, what: &str, min_bytes: u64) -> Result<u64, FileProblem> {
        let count = self.u64(what)?;
        match count.checked_mul(min_bytes) {
            Some(bytes) if bytes <= self.left() => Ok(count),
            _ => Err(self.truncated(what)),
        }
    }

    fn string(&mut self, what: &str) -> Result<String, FileProblem> {
        let len = self.count(what, 1)?;
        if len > MAX_STRING_BYTES {
            return Err(FileProblem::metadata(what, format!("is a string of {len} bytes")));
        }
        let mut bytes = Vec::new();
        let read = self.inner.by_ref().take(len).read_to_end(&mut bytes);
        if !read.is_ok_and(|read| read as u64 == len) {
            return Err(self.truncated(what));
        }
        self.at += len;
        String::from_utf8(bytes).map_err(|_| FileProblem::metadata(what, "is not UTF-8"))
    }

    fn metadata(&mut self, num_entries: u64) -> Result<Vec<(String, GgufValue)>, FileProblem> {
        let mut seen = std::collections::BTreeSet::new();
        let mut metadata = Vec::new();
        for index in 0..num_entries {
            let key = self.string(&format!("key of metadata entry {index}"))?;
            let kind = self.u32(&key)?;
            let value = self.value(&key, kind, 0)?;
            if !seen.insert(key.clone()) {
                return Err(FileProblem::metadata(&key, "occurs twice"));
            }
            metadata.push((key, value));
        }
        Ok(metadata)
    }

    fn value(&mut self, key: &str, kind: u32, depth: usize) -> Result<GgufValue, FileProblem> {
        Ok(match kind {
            0 => GgufValue::Int(self.bytes(key).map(u8::from_le_bytes)?.into()),
            1 => GgufValue::Int(self.bytes(key).map(i8::from_le_bytes)?.into()),
            2 => GgufValue::Int(self.bytes(key).map(u16::from_le_bytes)?.into()),
            3 => GgufValue::Int(self.bytes(key).map(i16::from_le_bytes)?.into()),
            4 => GgufValue::Int(self.u32(key)?.into()),
            5 => GgufValue::Int(self.bytes(key).map(i32::from_le_bytes)?.into()),
            6 => GgufValue::Float(self.bytes(key).map(f32::from_le_bytes)?.into()),
            7 => match self.bytes(key)? {
                [0] => GgufValue::Bool(false),
                [1] => GgufValue::Bool(true),
                _ => return Err(FileProblem::metadata(key, "is neither true nor false")),
            },
            8 => GgufValue::String(self.string(key)?),
            9 => self.array(key, depth)?,
            10 => {
                let value = self.u64(key)?;
                i64::try_from(value).map_or(GgufValue::Uint(value), GgufValue::Int)
            }
            11 => GgufValue::Int(self.bytes(key).map(i64::from_le_bytes)?),
            12 => GgufValue::Float(self.bytes(key).map(f64::from_le_bytes)?),
            _ => return Err(FileProblem::metadata(key, format!("has unknown type {kind}"))),
        })
    }

    fn array(&mut self, key: &str, depth: usize) -> Result<GgufValue, FileProblem> {
        if depth == MAX_DEPTH {
            return Err(FileProblem::metadata(key, "nests too deep"));
        }
        let kind = self.u32(key)?;
        let min_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => return Err(FileProblem::metadata(key, format!("has unknown type {kind}"))),
        };
        let count = self.count(key, min_bytes)?;
        if count > MAX_ELEMENTS {
            return Err(FileProblem::metadata(key, format!("is a list of {count} elements")));
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(key, kind, depth + 1)?);
        }
        Ok(GgufValue::Array(values))
    }

    fn tensor(&mut self, index: u64) -> Result<GgufTensorInfo, FileProblem> {
        let name = self.string(&format!("name of tensor {index}"))?;
        let num_dims = self.u32(&name)?;
        if u64::from(num_dims) * 8 > self.left() {
            return Err(self.truncated(&name));
        }
        let mut dims = Vec::new();
        for _ in 0..num_dims {
            dims.push(self.u64(&name)?);
        }
        let kind = self.u32(&name)?;
        let offset = self.u64(&name)?;
        Ok(GgufTensorInfo { name, dims, kind, offset })
    }
}
