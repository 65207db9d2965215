//! Good files arrive as written, damaged ones name the culprit.

use std::{fs, iter};

use nn::WeightStore;
use tempfile::tempdir;

use super::*;
use crate::test_files::{PACKED, f32_bytes, safetensors, safetensors_of, weights};

fn good() -> Vec<u8> {
    safetensors(&[
        ("a", "F32", &[2, 2], f32_bytes(&[1.0, 2.0, 3.0, 4.0])),
        ("b", "BF16", &[2], vec![0x80, 0x3f, 0x00, 0x40]),
        ("c", "F16", &[1, 1], vec![0x00, 0x3c]),
        ("d", "U32", &[1], vec![1, 0, 0, 0]),
        ("e", "U8", &[3], vec![7, 8, 9]),
    ])
}

fn open_bytes(bytes: &[u8]) -> Result<Vec<SafetensorsTensor>, LoadError> {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    open(&path)
}

#[test]
fn every_type_arrives_as_it_was_written() {
    let mut store = WeightStore::new(PACKED);
    for tensor in open_bytes(&good()).unwrap() {
        store.insert(tensor.name().to_owned(), Box::new(tensor)).unwrap();
    }
    let weights = weights(store);
    assert_eq!(weights.take("a", &[2, 2]).unwrap().to_vec::<f32>().unwrap(), [1., 2., 3., 4.]);
    assert_eq!(weights.take("b", &[2]).unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0]);
    assert_eq!(weights.take("c", &[1, 1]).unwrap().to_vec::<f32>().unwrap(), [1.0]);
    assert_eq!(weights.take_as_stored("d", &[1]).unwrap().to_vec::<u32>().unwrap(), [1]);
    assert_eq!(weights.take_as_stored("e", &[3]).unwrap().to_vec::<u8>().unwrap(), [7, 8, 9]);
    weights.finish(&[]).unwrap();
}

fn check(cases: Vec<(Vec<u8>, &str)>) {
    for (bytes, expected) in cases {
        let error = open_bytes(&bytes).err().expect(expected).to_string();
        assert!(error.contains("model.safetensors: "), "{error}");
        assert!(error.contains(expected), "{error}\nexpected: {expected}");
    }
}

#[test]
fn a_damaged_file_names_itself() {
    let header = |header: &str| safetensors_of(header, &[0; 16]);
    let good = good();
    check(vec![
        (vec![], "header of 0 bytes in a file of 0 bytes"),
        (good[..7].to_vec(), "header of 0 bytes in a file of 7 bytes"),
        (good[..100].to_vec(), "in a file of 100 bytes: truncated"),
        (u64::MAX.to_le_bytes().to_vec(), "header of 18446744073709551615 bytes"),
        (good[..good.len() - 1].to_vec(), "tensor e: its bytes 26..29 are not inside the 28 bytes"),
        (good[..good.len() - 9].to_vec(), "tensor c: its bytes 20..22 are not inside"),
        (header("not json"), "malformed JSON"),
        (header("[]"), "malformed JSON: invalid type: sequence, expected a map of tensors"),
        (header(r#"{"w": 1}"#), "malformed JSON"),
    ]);
}

#[test]
fn a_damaged_entry_names_its_tensor() {
    let header = |header: &str| safetensors_of(header, &[0; 16]);
    let tensor = |fields: &str| header(&format!(r#"{{"w": {{{fields}}}}}"#));
    check(vec![
        (tensor(r#""dtype": "F32", "shape": [4]"#), "missing field `data_offsets`"),
        (tensor(r#""dtype": "F32", "shape": [-4], "data_offsets": [0, 16]"#), "malformed JSON"),
        (
            tensor(r#""dtype": "F8_E5M2", "shape": [16], "data_offsets": [0, 16]"#),
            "tensor w: element type F8_E5M2 is not supported",
        ),
        (
            tensor(r#""dtype": "F64", "shape": [2], "data_offsets": [0, 16]"#),
            "tensor w: element type F64 is not supported",
        ),
        (
            tensor(r#""dtype": "F32", "shape": [4], "data_offsets": [0, 17]"#),
            "tensor w: its bytes 0..17 are not inside the 16 bytes",
        ),
        (
            tensor(r#""dtype": "F32", "shape": [4], "data_offsets": [16, 0]"#),
            "tensor w: its bytes 16..0 are not inside",
        ),
        (
            tensor(
                r#""dtype": "F32", "shape": [4], "data_offsets": [18446744073709551600, 18446744073709551615]"#,
            ),
            "tensor w: its bytes 18446744073709551600",
        ),
        (
            tensor(r#""dtype": "F32", "shape": [3], "data_offsets": [0, 16]"#),
            "tensor w: 16 bytes for a shape that needs 12",
        ),
        (
            tensor(
                r#""dtype": "F32", "shape": [1073741824, 1073741824, 1073741824], "data_offsets": [0, 16]"#,
            ),
            "tensor w: shape [1073741824, 1073741824, 1073741824] is too large",
        ),
        (
            tensor(r#""dtype": "F32", "shape": [4294967296, 0], "data_offsets": [0, 0]"#),
            "tensor w: shape [4294967296, 0] is too large",
        ),
        (
            header(
                r#"{"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]},
                    "b": {"dtype": "U8", "shape": [8], "data_offsets": [8, 16]}}"#,
            ),
            "tensor b: its bytes overlap those of a",
        ),
        (
            header(
                r#"{"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
                    "a": {"dtype": "U8", "shape": [8], "data_offsets": [8, 16]}}"#,
            ),
            "tensor a: occurs twice",
        ),
    ]);
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    let good = good();
    for len in 0..good.len() {
        assert!(open_bytes(&good[..len]).is_err(), "{len} bytes open");
    }
    let header_len = good.len() - 29;
    for (at, flip) in (0..header_len).flat_map(|at| iter::repeat(at).zip([0x01, 0x20, 0x80])) {
        let mut bytes = good.clone();
        bytes[at] ^= flip;
        // Some flips only rename a tensor; whatever opens must also load.
        for tensor in open_bytes(&bytes).into_iter().flatten() {
            assert!(tensor.shape().iter().product::<usize>() <= 16);
        }
    }
}

#[test]
fn a_file_that_shrinks_later_is_an_error() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, good()).unwrap();
    let tensors = open(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(20).unwrap();
    let error = tensors[0].load().expect_err("the bytes are gone");
    assert_eq!(error.to_string(), "weight a cannot be read");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.ends_with("model.safetensors"), "{cause}");
}
