//! A file of tensors, read a piece at a time.
//!
//! Reads instead of a memory map: a file that shrinks under a map kills the
//! process with a signal, a short read is an error. Large tensors are uploaded
//! in pieces of whole rows, written in place into one array, so host memory
//! stays at one piece whatever the tensor's size.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use mlx::{Array, Dtype};

use crate::LoadError;

/// Bytes read and uploaded at once.
pub(crate) const PIECE_BYTES: usize = 64 << 20;

/// An open file that several tensors share.
#[derive(Debug, Clone)]
pub(crate) struct TensorFile(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    path: PathBuf,
    len: u64,
}

impl TensorFile {
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        Ok(Self(Rc::new(Inner { file, path: path.to_owned(), len })))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Bytes in the file.
    pub(crate) fn len(&self) -> u64 {
        self.0.len
    }

    pub(crate) fn file(&self) -> &File {
        &self.0.file
    }

    /// Replaces `buffer` by `len` bytes from `offset`.
    pub(crate) fn read(&self, offset: u64, len: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        buffer.resize(len, 0);
        self.0.file.read_exact_at(buffer, offset)
    }
}

/// Builds an array from bytes that `fill` delivers for a range of rows: axis 0,
/// or all at once for a tensor without rows.
pub(crate) fn upload(
    name: &str,
    shape: &[usize],
    dtype: Dtype,
    mut fill: impl FnMut(std::ops::Range<usize>, &mut Vec<u8>) -> Result<(), nn::LoadError>,
) -> Result<Array, nn::LoadError> {
    let place = |source| nn::LoadError::Place { name: name.to_owned(), source };
    let rows = shape.first().copied().unwrap_or(1);
    let bytes = shape.iter().product::<usize>() * dtype.size_in_bytes();
    let mut buffer = Vec::new();
    if bytes <= PIECE_BYTES || shape.len() < 2 {
        fill(0..rows, &mut buffer)?;
        return Array::from_bytes(&buffer, shape, dtype).map_err(place);
    }
    let rows_per_piece = (PIECE_BYTES / (bytes / rows)).max(1);
    let mut array = Array::zeros(shape, dtype).map_err(place)?;
    array.eval().map_err(place)?;
    for begin in (0..rows).step_by(rows_per_piece) {
        let end = rows.min(begin + rows_per_piece);
        fill(begin..end, &mut buffer)?;
        array = write_rows(array, &buffer, begin..end, shape, dtype).map_err(place)?;
    }
    Ok(array)
}

/// Takes the array by value: with one owner left MLX writes in place.
fn write_rows(
    array: Array,
    bytes: &[u8],
    rows: std::ops::Range<usize>,
    shape: &[usize],
    dtype: Dtype,
) -> mlx::Result<Array> {
    let mut piece_shape = shape.to_vec();
    piece_shape[0] = rows.len();
    let piece = Array::from_bytes(bytes, &piece_shape, dtype)?;
    let bound = |row: usize| i32::try_from(row).expect("dimensions are checked on opening");
    let mut start = vec![0; shape.len()];
    start[0] = bound(rows.start);
    let mut stop: Vec<i32> = shape.iter().map(|&dim| bound(dim)).collect();
    stop[0] = bound(rows.end);
    let written = array.slice_update(&piece, &start, &stop, &vec![1; shape.len()])?;
    drop((array, piece));
    written.eval()?;
    mlx::memory::clear_cache();
    Ok(written)
}
