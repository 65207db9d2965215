//! A minimal GGUF reader of the tests' own, so that the loader is not checked
//! against itself. It knows what SmolLM2's file holds and no more.

use std::{collections::BTreeMap, fs, ops::Range, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A GGUF file in memory.
pub struct Gguf {
    bytes: Vec<u8>,
    /// Metadata by key.
    pub fields: BTreeMap<String, Value>,
    /// Tensors in the order of the file.
    pub tensors: Vec<GgufTensor>,
}

/// One tensor's entry.
pub struct GgufTensor {
    /// GGUF's name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    /// ggml's number: 0 F32, 3 Q4_1, 8 Q8_0.
    pub kind: u32,
    data: Range<usize>,
}

impl Gguf {
    /// Reads the whole file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let mut reader = Reader { bytes: &bytes, at: 0 };
        ensure!(reader.take(4)? == b"GGUF", "no GGUF file");
        ensure!(reader.u32()? == 3, "GGUF version 3 expected");
        let (num_tensors, num_fields) = (reader.u64()?, reader.u64()?);
        let mut fields = BTreeMap::new();
        for _ in 0..num_fields {
            let key = reader.string()?;
            let kind = reader.u32()?;
            fields.insert(key, reader.value(kind)?);
        }
        let mut tensors =
            (0..num_tensors).map(|_| reader.tensor()).collect::<Result<Vec<GgufTensor>>>()?;
        let base = reader.at.next_multiple_of(32);
        for tensor in &mut tensors {
            tensor.data = base + tensor.data.start..base + tensor.data.end;
        }
        Ok(Self { bytes, fields, tensors })
    }

    /// The bytes of a tensor of this file.
    pub fn data(&self, tensor: &GgufTensor) -> &[u8] {
        &self.bytes[tensor.data.clone()]
    }

    /// A number of the metadata.
    pub fn number(&self, key: &str) -> Result<usize> {
        let number = self.fields.get(key).and_then(Value::as_u64);
        Ok(number.with_context(|| format!("no number {key}"))? as usize)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at + len).context("the file ends early")?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String> {
        let len = self.u64()? as usize;
        Ok(String::from_utf8(self.take(len)?.to_vec())?)
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => json!(self.array::<1>()?[0]),
            4 => json!(self.u32()?),
            5 => json!(i32::from_le_bytes(self.array()?)),
            6 => {
                // By way of decimal text: 1e-5 stays 1e-5 in f64.
                let text = f32::from_le_bytes(self.array()?).to_string();
                json!(text.parse::<f64>()?)
            }
            7 => json!(self.array::<1>()?[0] != 0),
            8 => json!(self.string()?),
            9 => {
                let (kind, len) = (self.u32()?, self.u64()?);
                Value::Array((0..len).map(|_| self.value(kind)).collect::<Result<_>>()?)
            }
            10 => json!(self.u64()?),
            _ => bail!("metadata of type {kind}"),
        })
    }

    /// An entry whose data range is still relative to the data section.
    fn tensor(&mut self) -> Result<GgufTensor> {
        let name = self.string()?;
        let num_dims = self.u32()?;
        let mut shape =
            (0..num_dims).map(|_| Ok(self.u64()? as usize)).collect::<Result<Vec<usize>>>()?;
        shape.reverse();
        let kind = self.u32()?;
        let start = self.u64()? as usize;
        let count: usize = shape.iter().product();
        let len = match kind {
            0 => count * 4,
            3 => count / 32 * 20,
            8 => count / 32 * 34,
            _ => bail!("{name}: tensor type {kind}"),
        };
        Ok(GgufTensor { name, shape, kind, data: start..start + len })
    }
}
