//! Tensors of a GGUF file as sources for the weight store.
//!
//! A quantized tensor becomes three: `weight`, `scales` and `biases`. Its
//! blocks hold all of them interleaved, so they are read once, with the weight,
//! and the small two wait in a slot that the three sources share.

use std::{cell::RefCell, ops::Range, rc::Rc};

use half::f16;
use mlx::{Array, Dtype};
use nn::{TensorSource, WeightStore};

use super::{
    blocks::{BlockKind, GROUP, Unpacked},
    decoded::DecodedKind,
    reader::{GgufHeader, GgufTensorInfo},
};
use crate::{
    FileProblem, LoadError, TensorProblem,
    tensor_file::{TensorFile, upload},
};

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorKind {
    Plain(Dtype),
    /// Packed as MLX packs.
    Blocks(BlockKind),
    /// Decoded to f32.
    Decoded(DecodedKind),
}

impl TensorKind {
    fn new(kind: u32) -> Result<Self, TensorProblem> {
        Ok(match kind {
            0 => Self::Plain(Dtype::Float32),
            1 => Self::Plain(Dtype::Float16),
            30 => Self::Plain(Dtype::Bfloat16),
            2 => Self::Blocks(BlockKind::Q4_0),
            3 => Self::Blocks(BlockKind::Q4_1),
            6 => Self::Blocks(BlockKind::Q5_0),
            7 => Self::Blocks(BlockKind::Q5_1),
            8 => Self::Blocks(BlockKind::Q8_0),
            10 => Self::Decoded(DecodedKind::Q2K),
            11 => Self::Decoded(DecodedKind::Q3K),
            12 => Self::Blocks(BlockKind::Q4K),
            13 => Self::Blocks(BlockKind::Q5K),
            14 => Self::Decoded(DecodedKind::Q6K),
            20 => Self::Decoded(DecodedKind::Iq4Nl),
            23 => Self::Decoded(DecodedKind::Iq4Xs),
            other => return Err(TensorProblem::Type(type_name(other))),
        })
    }

    /// Bytes of `elements` in a row.
    fn row_bytes(self, elements: u64) -> Option<u64> {
        let (block, bytes) = self.block();
        (elements / block as u64).checked_mul(bytes as u64)
    }

    /// Elements that a row has a multiple of, and their bytes.
    fn block(self) -> (usize, usize) {
        match self {
            Self::Plain(dtype) => (1, dtype.size_in_bytes()),
            Self::Blocks(kind) => (kind.elements(), kind.block_bytes()),
            Self::Decoded(kind) => (kind.elements(), kind.block_bytes()),
        }
    }
}

/// Names of the types that are known but not read.
fn type_name(kind: u32) -> String {
    const NAMES: [&str; 41] = [
        "F32",
        "F16",
        "Q4_0",
        "Q4_1",
        "Q4_2",
        "Q4_3",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q8_1",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "Q8_K",
        "IQ2_XXS",
        "IQ2_XS",
        "IQ3_XXS",
        "IQ1_S",
        "IQ4_NL",
        "IQ3_S",
        "IQ2_S",
        "IQ4_XS",
        "I8",
        "I16",
        "I32",
        "I64",
        "F64",
        "IQ1_M",
        "BF16",
        "Q4_0_4_4",
        "Q4_0_4_8",
        "Q4_0_8_8",
        "TQ1_0",
        "TQ2_0",
        "IQ4_NL_4_4",
        "IQ4_NL_4_8",
        "IQ4_NL_8_8",
        "MXFP4",
        "NVFP4",
    ];
    NAMES.get(kind as usize).map_or_else(|| format!("number {kind}"), ToString::to_string)
}

/// What is undone that the writers of GGUF files did to a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewrite {
    None,
    /// One was added to the weight of a norm.
    LessOne,
    /// Rows of so many heads were put into another order than Hugging Face's.
    Unpermute(usize),
}

/// A tensor whose place in the file was checked.
#[derive(Debug, Clone)]
pub(crate) struct GgufTensor {
    pub(crate) name: String,
    /// Slowest dimension first.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: TensorKind,
    offset: u64,
    file: TensorFile,
}

/// Checks the directory against the file.
pub(crate) fn directory(
    header: &GgufHeader,
    file: &TensorFile,
) -> Result<Vec<GgufTensor>, FileProblem> {
    let mut spans = Vec::new();
    let mut tensors = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for info in &header.tensors {
        let named = |problem| FileProblem::tensor(&info.name, problem);
        if !names.insert(info.name.as_str()) {
            return Err(named(TensorProblem::Duplicate));
        }
        let (tensor, bytes) = placed(header, file, info).map_err(named)?;
        spans.push((info.offset, info.offset + bytes, &info.name));
        tensors.push(tensor);
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if pair[1].0 < pair[0].1 {
            let problem = TensorProblem::Overlap(pair[0].2.clone());
            return Err(FileProblem::tensor(pair[1].2, problem));
        }
    }
    Ok(tensors)
}

/// One entry with its length in bytes.
fn placed(
    header: &GgufHeader,
    file: &TensorFile,
    info: &GgufTensorInfo,
) -> Result<(GgufTensor, u64), TensorProblem> {
    let kind = TensorKind::new(info.kind)?;
    let too_large = || TensorProblem::Shape(info.dims.clone());
    let in_dims = info.dims.first().copied().unwrap_or(1);
    let (block, _) = kind.block();
    if !in_dims.is_multiple_of(block as u64) {
        return Err(TensorProblem::Blocks { in_dims, block });
    }
    if info.dims.iter().any(|&dim| i32::try_from(dim).is_err()) {
        return Err(too_large());
    }
    let bytes = info
        .dims
        .iter()
        .skip(1)
        .try_fold(kind.row_bytes(in_dims).ok_or_else(too_large)?, |bytes, &dim| {
            bytes.checked_mul(dim).ok_or_else(too_large)
        })?;
    let available = file.len().saturating_sub(header.data_start);
    let end = info.offset.checked_add(bytes).ok_or_else(too_large)?;
    if end > available {
        return Err(TensorProblem::OutOfRange { begin: info.offset, end, available });
    }
    if !info.offset.is_multiple_of(header.alignment) {
        return Err(TensorProblem::Alignment(info.offset));
    }
    let tensor = GgufTensor {
        name: info.name.clone(),
        shape: info.dims.iter().rev().map(|&dim| dim as usize).collect(),
        kind,
        offset: header.data_start + info.offset,
        file: file.clone(),
    };
    Ok((tensor, bytes))
}

impl GgufTensor {
    /// Puts the tensor into the store under the name `{module}.{leaf}`.
    pub(crate) fn insert(
        self,
        store: &mut WeightStore,
        module: &str,
        leaf: &str,
        rewrite: Rewrite,
    ) -> Result<(), LoadError> {
        let name = format!("{module}.{leaf}");
        let rotary_heads = match rewrite {
            Rewrite::Unpermute(heads) => Some(heads),
            Rewrite::None | Rewrite::LessOne => None,
        };
        let dtype = match self.kind {
            TensorKind::Plain(dtype) => dtype,
            TensorKind::Blocks(kind) if leaf == "weight" => {
                return insert_blocks(store, module, kind, Source::new(self, name, rotary_heads)?);
            }
            TensorKind::Decoded(kind) if leaf == "weight" => {
                let source = Source::new(self, name.clone(), rotary_heads)?;
                return Ok(store.insert(name, Box::new(DecodedSource { kind, source }))?);
            }
            TensorKind::Blocks(_) | TensorKind::Decoded(_) => {
                let problem = TensorProblem::Type("of blocks for a vector".to_owned());
                return Err(self.problem(problem));
            }
        };
        let is_less_one = rewrite == Rewrite::LessOne;
        let source = Source::new(self, name.clone(), rotary_heads)?;
        let source = PlainSource { dtype, is_less_one, source };
        Ok(store.insert(name, Box::new(source))?)
    }

    /// All elements as f32; for small tensors that are settings, not weights.
    pub(crate) fn read_f32(&self) -> Result<Vec<f32>, LoadError> {
        let TensorKind::Plain(Dtype::Float32) = self.kind else {
            return Err(self.problem(TensorProblem::Type("other than F32".to_owned())));
        };
        let mut bytes = Vec::new();
        let len = self.shape.iter().product::<usize>() * 4;
        let path = || self.file.path().to_owned();
        let read = self.file.read(self.offset, len, &mut bytes);
        read.map_err(|source| LoadError::Io { path: path(), source })?;
        Ok(bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect())
    }

    pub(crate) fn problem(&self, problem: TensorProblem) -> LoadError {
        let path = self.file.path().to_owned();
        LoadError::File { path, problem: FileProblem::tensor(&self.name, problem) }
    }
}

fn insert_blocks(
    store: &mut WeightStore,
    module: &str,
    kind: BlockKind,
    source: Source,
) -> Result<(), LoadError> {
    let shape = |last: usize| {
        let mut shape = source.tensor.shape.clone();
        shape.pop();
        shape.push(last);
        shape
    };
    let in_dims = source.tensor.shape.last().copied().unwrap_or(0);
    let shapes = (shape(in_dims * kind.bits() / 32), shape(in_dims / GROUP));
    let parts = Rc::new(Parts { kind, source, waiting: RefCell::default() });
    for (leaf, part, shape) in [
        ("weight", Part::Weight, shapes.0),
        ("scales", Part::Scales, shapes.1.clone()),
        ("biases", Part::Biases, shapes.1),
    ] {
        let source = PartSource { part, shape, parts: Rc::clone(&parts) };
        store.insert(format!("{module}.{leaf}"), Box::new(source))?;
    }
    Ok(())
}

/// The bytes of a tensor under its new name.
struct Source {
    tensor: GgufTensor,
    name: String,
    rotary_heads: Option<usize>,
}

impl Source {
    fn new(
        tensor: GgufTensor,
        name: String,
        rotary_heads: Option<usize>,
    ) -> Result<Self, LoadError> {
        if let Some(heads) = rotary_heads {
            let rows = tensor.shape.first().copied().unwrap_or(0);
            if heads == 0 || !rows.is_multiple_of(heads * 2) {
                return Err(tensor.problem(TensorProblem::Heads { rows, heads }));
            }
        }
        Ok(Self { tensor, name, rotary_heads })
    }

    fn rows(&self) -> usize {
        self.tensor.shape.first().copied().unwrap_or(1)
    }

    /// Bytes of a row: all dimensions but the first.
    fn row_bytes(&self) -> usize {
        let shape = &self.tensor.shape;
        if shape.len() < 2 {
            let in_dims = if shape.is_empty() { 1 } else { shape[0] };
            let bytes = self.tensor.kind.row_bytes(in_dims as u64).expect("checked on opening");
            return bytes as usize / in_dims.max(1);
        }
        let in_dims = shape[shape.len() - 1] as u64;
        let bytes = self.tensor.kind.row_bytes(in_dims).expect("checked on opening") as usize;
        shape[1..shape.len() - 1].iter().product::<usize>() * bytes
    }

    fn read(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> Result<(), nn::LoadError> {
        let row_bytes = self.row_bytes();
        let offset = |row: usize| self.tensor.offset + (row * row_bytes) as u64;
        let file = &self.tensor.file;
        let read = match self.rotary_heads {
            None => file.read(offset(rows.start), rows.len() * row_bytes, buffer),
            Some(heads) => self.read_rotary(heads, rows, buffer),
        };
        read.map_err(|source| nn::LoadError::Read {
            name: self.name.clone(),
            source: Box::new(LoadError::Io { path: file.path().to_owned(), source }),
        })
    }

    /// GGUF interleaves the halves that a rotation pairs: row `2 i + half` of a
    /// head there is row `half * dims / 2 + i` here. Whole rows move, so the
    /// same holds for packed ones.
    fn read_rotary(
        &self,
        heads: usize,
        rows: Range<usize>,
        buffer: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        let row_bytes = self.row_bytes();
        let head_rows = self.rows() / heads;
        let first_head = rows.start / head_rows;
        let last_head = rows.end.div_ceil(head_rows);
        let base = first_head * head_rows;
        let mut stored = Vec::new();
        let offset = self.tensor.offset + (base * row_bytes) as u64;
        let len = (last_head * head_rows - base) * row_bytes;
        self.tensor.file.read(offset, len, &mut stored)?;
        buffer.clear();
        for row in rows {
            let (head, within) = (row / head_rows, row % head_rows);
            let (half, index) = (within / (head_rows / 2), within % (head_rows / 2));
            let at = (head * head_rows + 2 * index + half - base) * row_bytes;
            buffer.extend_from_slice(&stored[at..at + row_bytes]);
        }
        Ok(())
    }
}

struct PlainSource {
    dtype: Dtype,
    is_less_one: bool,
    source: Source,
}

impl TensorSource for PlainSource {
    fn shape(&self) -> &[usize] {
        &self.source.tensor.shape
    }

    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn load(&self) -> Result<Array, nn::LoadError> {
        let source = &self.source;
        let array = upload(&source.name, &source.tensor.shape, self.dtype, |rows, buffer| {
            source.read(rows, buffer)
        })?;
        if !self.is_less_one {
            return Ok(array);
        }
        array.add_scalar(-1.0).map_err(|error| {
            let name = source.name.clone();
            nn::LoadError::Place { name, source: error }
        })
    }
}

struct DecodedSource {
    kind: DecodedKind,
    source: Source,
}

impl TensorSource for DecodedSource {
    fn shape(&self) -> &[usize] {
        &self.source.tensor.shape
    }

    fn dtype(&self) -> Dtype {
        Dtype::Float32
    }

    fn load(&self) -> Result<Array, nn::LoadError> {
        let source = &self.source;
        let (mut blocks, mut values) = (Vec::new(), Vec::new());
        upload(&source.name, &source.tensor.shape, Dtype::Float32, |rows, buffer| {
            source.read(rows, &mut blocks)?;
            values.clear();
            self.kind.decode(&blocks, &mut values);
            buffer.clear();
            buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            Ok(())
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Weight,
    Scales,
    Biases,
}

/// What the three sources of one tensor share.
struct Parts {
    kind: BlockKind,
    source: Source,
    /// Scales and biases, from the reading of the weight until both are taken.
    waiting: RefCell<Option<Unpacked>>,
}

struct PartSource {
    part: Part,
    shape: Vec<usize>,
    parts: Rc<Parts>,
}

impl TensorSource for PartSource {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> Dtype {
        match self.part {
            Part::Weight => Dtype::Uint32,
            Part::Scales | Part::Biases => Dtype::Float16,
        }
    }

    fn load(&self) -> Result<Array, nn::LoadError> {
        match self.part {
            Part::Weight => self.load_weight(),
            Part::Scales | Part::Biases => self.load_factors(),
        }
    }
}

impl PartSource {
    /// Uploads the packed words; scales and biases stay behind on the host.
    fn load_weight(&self) -> Result<Array, nn::LoadError> {
        let parts = &self.parts;
        let mut factors = Unpacked::default();
        let mut blocks = Vec::new();
        let array = upload(&parts.source.name, &self.shape, Dtype::Uint32, |rows, buffer| {
            parts.source.read(rows, &mut blocks)?;
            buffer.clear();
            factors.packed = std::mem::take(buffer);
            parts.kind.unpack(&blocks, &mut factors);
            *buffer = std::mem::take(&mut factors.packed);
            Ok(())
        })?;
        parts.waiting.replace(Some(factors));
        Ok(array)
    }

    fn load_factors(&self) -> Result<Array, nn::LoadError> {
        let mut waiting = self.parts.waiting.borrow_mut();
        if waiting.is_none() {
            *waiting = Some(self.read_factors()?);
        }
        let factors = waiting.as_ref().expect("filled above");
        let values = match self.part {
            Part::Biases => &factors.biases,
            _ => &factors.scales,
        };
        let array = match factors.fit_f16() {
            true => {
                let narrow: Vec<_> = values.iter().map(|&value| f16::from_f32(value)).collect();
                Array::from_slice(&narrow, &self.shape)
            }
            false => Array::from_slice(values, &self.shape),
        };
        array.map_err(|source| {
            let name = self.parts.source.name.clone();
            nn::LoadError::Place { name, source }
        })
    }

    /// For a caller that takes them before the weight.
    fn read_factors(&self) -> Result<Unpacked, nn::LoadError> {
        let mut blocks = Vec::new();
        self.parts.source.read(0..self.parts.source.rows(), &mut blocks)?;
        let mut factors = Unpacked::default();
        self.parts.kind.unpack(&blocks, &mut factors);
        factors.packed = Vec::new();
        Ok(factors)
    }
}
