//! Each kind of failure is a Rust error with a message for people.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod util;

use std::{cell::Cell, fs, rc::Rc};

use mlx::{Array, Dtype, Error, io};
use util::{array, vector};

#[track_caller]
fn refused<T: std::fmt::Debug>(op: &str, part: &str, result: mlx::Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.op, op, "{error}");
    assert!(error.message.contains(part), "`{part}` is not in: {error}");
}

#[test]
fn bad_shapes() {
    let x = array(&[0.0_f32; 6], &[2, 3]);
    refused("matmul", "(2,3)", x.matmul(&x));
    refused("add", "broadcast", x.add(&vector(&[0.0_f32; 2])));
    refused("reshape", "", x.reshape(&[4]));
    refused("sum", "xis", x.sum(&[2], false));
    refused("argmax", "xis", x.argmax(5, false));
    refused("transpose", "", x.transpose(&[0, 0]));
    refused("concatenate", "", Array::concatenate(&[], 0));
    refused("stack", "", Array::stack(&[], 0));
    refused("split", "", x.split(2, 1));
    refused("split", "", x.split(0, 1));
    refused("slice", "2 axes", x.slice(&[0], &[1], &[1]));
    refused("pad", "1 pairs for 2 axes", x.pad(&[(1, 1)], &x));
    refused("squeeze", "", x.squeeze(0));
    refused("topk", "", x.topk(4, 1));
    refused("item", "6 elements", x.item::<f32>());
    refused("put_rows", "[2, 3]", x.put_rows(&vector(&[0_i32]), &x));
    refused("put_rows", "[2, 3]", x.put_rows(&Array::scalar(0_i32).unwrap(), &x));
    refused("put_rows", "", x.put_rows(&vector(&[0.5_f32, 0.5]), &x));
    refused("rms_norm", "", mlx::fast::rms_norm(&x, Some(&vector(&[1.0_f32; 2])), 1e-5));
}

#[test]
fn bad_data() {
    refused("from_bytes", "8 bytes", Array::from_slice(&[1.0_f32], &[2]));
    refused("from_bytes", "there are 3", Array::from_bytes(&[0; 3], &[1], Dtype::Float32));
    let x = vector(&[1.0_f32]);
    refused("to_vec", "the array is float32, not int32", x.to_vec::<i32>());
    refused("item", "the array is float32, not bool", x.item::<bool>());
    refused("arange", "", Array::arange(0.0, 1.0, 0.0, Dtype::Int32));
}

#[test]
fn absurd_sizes() {
    let max = i32::MAX as usize;
    refused("zeros", "too many elements", Array::zeros(&[usize::MAX, 2], Dtype::Uint8));
    refused("zeros", "more than MLX can count", Array::zeros(&[max + 1], Dtype::Uint8));
    // 2^62 bytes: countable, but nowhere to be had.
    let huge = Array::zeros(&[max, max], Dtype::Uint8).unwrap().copy().unwrap();
    let huge = huge.add(&Array::ones(&[max, max], Dtype::Uint8).unwrap()).unwrap();
    refused("eval", "allocate", huge.eval());
    refused("to_vec", "allocate", huge.to_vec::<u8>());
    // The thread goes on as before.
    assert_eq!(vector(&[1_i32]).add_scalar(1.0).unwrap().item::<i32>().unwrap(), 2);
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    refused("load_safetensors", "No such file", io::load_safetensors(&path("none.safetensors")));
    refused("load_gguf", "No such file", io::load_gguf(&path("none.gguf")));

    // Names that a careless printf would trip over, existing or not.
    let odd = "%s%n%s%n%x.safetensors";
    refused("load_safetensors", odd, io::load_safetensors(&path(odd)));
    fs::write(path(odd), b"no such format").unwrap();
    refused("load_safetensors", odd, io::load_safetensors(&path(odd)));
    fs::write(path("%s%n.gguf"), b"no such format").unwrap();
    refused("load_gguf", "%s%n.gguf", io::load_gguf(&path("%s%n.gguf")));

    let one = [("x".to_owned(), vector(&[1_i32]))].into();
    let none = [].into();
    refused("save_safetensors", "safetensors", io::save_safetensors(&path("x.bin"), &one, &none));
    let nowhere = path("no/such/folder/%n.safetensors");
    refused("save_safetensors", "", io::save_safetensors(&nowhere, &one, &none));
}

#[test]
fn files_are_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("%d ü.safetensors");
    let arrays = [
        ("a".to_owned(), array(&[1.5_f32, -2.0], &[1, 2])),
        ("b.weight".to_owned(), vector(&[1_u8, 2, 3])),
    ];
    let metadata = [("format".to_owned(), "mlx %s".to_owned())].into();
    io::save_safetensors(&path, &arrays.into(), &metadata).unwrap();
    let (loaded, found) = io::load_safetensors(&path).unwrap();
    assert_eq!(found.get("format").map(String::as_str), Some("mlx %s"));
    assert_eq!(loaded.keys().collect::<Vec<_>>(), ["a", "b.weight"]);
    assert_eq!(loaded["a"].to_vec::<f32>().unwrap(), [1.5, -2.0]);
    assert_eq!(loaded["b.weight"].to_vec::<u8>().unwrap(), [1, 2, 3]);
}

#[test]
fn closures() {
    let x = [vector(&[1.0_f32])];
    let returns = mlx::compile(|_| Err(Error { op: "mine", message: "100%s%n".into() }), false);
    refused("compiled", "mine: 100%s%n", returns.unwrap().call(&x));
    let fails = mlx::compile(|x| Ok(vec![x[0].reshape(&[7])?]), false).unwrap();
    refused("compiled", "reshape", fails.call(&x));
    let panics = mlx::compile(|_| panic!("at {}%n", "the disco"), false).unwrap();
    refused("compiled", "panicked: at the disco%n", panics.call(&x));
    let indexes = mlx::compile(|x| Ok(vec![x[1].clone()]), false).unwrap();
    refused("compiled", "out of bounds", indexes.call(&x));
    // A failed call leaves nothing behind that breaks the next.
    assert_eq!(x[0].add(&x[0]).unwrap().item::<f32>().unwrap(), 2.0);
}

/// Only products, which MLX does not fuse: fusing calls a C++ compiler on CPUs.
#[test]
fn closures_are_traced_once_and_freed() {
    // A trace made before the thread has a stream is not found again.
    mlx::synchronize().unwrap();
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let function = mlx::compile(
        move |x| {
            counted.set(counted.get() + 1);
            Ok(vec![x[0].matmul(&x[1])?, x[1].matmul(&x[0])?])
        },
        false,
    )
    .unwrap();
    for scale in [1.0_f32, 2.0] {
        let a = array(&[scale, 0.0, 0.0, scale], &[2, 2]);
        let b = array(&[1.0_f32, 2.0, 3.0, 4.0], &[2, 2]);
        let products = function.call(&[a, b]).unwrap();
        for product in products {
            assert_eq!(product.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0].map(|x| x * scale));
        }
    }
    assert_eq!(calls.get(), 1);
    drop(function);
    assert_eq!(Rc::strong_count(&calls), 1);
}
