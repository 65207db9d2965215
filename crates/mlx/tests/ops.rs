//! Every operation on small inputs, against plain Rust.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod util;

use half::{bf16, f16};
use mlx::{Array, Dtype, Result};
use util::{array, assert_close, floats, vector};

type Unary = fn(&Array) -> Result<Array>;
type Binary = fn(&Array, &Array) -> Result<Array>;
/// Name, operation, and the same on plain numbers.
type UnaryCase = (&'static str, Unary, fn(f32) -> f32);
type BinaryCase = (&'static str, Binary, fn(f32, f32) -> f32);

const X: [f32; 6] = [-2.5, -1.0, 0.25, 0.5, 1.5, 3.0];
const Y: [f32; 6] = [1.5, -2.0, 0.25, 2.0, -0.5, 3.0];

fn truth(value: bool) -> f32 {
    if value { 1.0 } else { 0.0 }
}

/// Abramowitz and Stegun 7.1.26, exact to 1.5e-7.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let poly = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6_f32];
    let sum = poly.iter().fold(0.0, |sum, c| (sum + c) * t);
    x.signum() * (1.0 - sum * (-x * x).exp())
}

#[test]
fn one_array() {
    let cases: &[UnaryCase] = &[
        ("negative", Array::negative, |x| -x),
        ("abs", Array::abs, f32::abs),
        ("exp", Array::exp, f32::exp),
        ("expm1", Array::expm1, f32::exp_m1),
        ("log", Array::log, f32::ln),
        ("log1p", Array::log1p, f32::ln_1p),
        ("sqrt", Array::sqrt, f32::sqrt),
        ("rsqrt", Array::rsqrt, |x| 1.0 / x.sqrt()),
        ("square", Array::square, |x| x * x),
        ("reciprocal", Array::reciprocal, |x| 1.0 / x),
        ("sigmoid", Array::sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        ("tanh", Array::tanh, f32::tanh),
        ("erf", Array::erf, erf),
        ("sin", Array::sin, f32::sin),
        ("cos", Array::cos, f32::cos),
        ("floor", Array::floor, f32::floor),
        ("ceil", Array::ceil, f32::ceil),
        ("round", Array::round, f32::round_ties_even),
        ("sign", Array::sign, f32::signum),
        ("isnan", Array::isnan, |x| truth(x.is_nan())),
        ("isinf", Array::isinf, |x| truth(x.is_infinite())),
        ("isfinite", Array::isfinite, |x| truth(x.is_finite())),
        ("logical_not", Array::logical_not, |x| truth(x == 0.0)),
        ("stop_gradient", Array::stop_gradient, |x| x),
        ("copy", Array::copy, |x| x),
        ("contiguous", Array::contiguous, |x| x),
    ];
    for (name, op, plain) in cases {
        let found = floats(&op(&array(&X, &[2, 3])).unwrap());
        assert_close(name, &found, &X.map(plain), 1e-5);
    }
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
    assert_eq!(vector(&odd).isnan().unwrap().to_vec::<bool>().unwrap(), odd.map(f32::is_nan));
    assert_eq!(vector(&odd).isinf().unwrap().to_vec::<bool>().unwrap(), odd.map(f32::is_infinite));
    assert_eq!(vector(&odd).isfinite().unwrap().to_vec::<bool>().unwrap(), odd.map(f32::is_finite));
    assert_eq!(vector(&[5_u8]).bitwise_invert().unwrap().to_vec::<u8>().unwrap(), [250]);
}

#[test]
fn two_arrays() {
    let cases: &[BinaryCase] = &[
        ("add", Array::add, |x, y| x + y),
        ("subtract", Array::subtract, |x, y| x - y),
        ("multiply", Array::multiply, |x, y| x * y),
        ("divide", Array::divide, |x, y| x / y),
        ("floor_divide", Array::floor_divide, |x, y| (x / y).floor()),
        ("remainder", Array::remainder, |x, y| x - y * (x / y).floor()),
        ("power", Array::power, f32::powf),
        ("maximum", Array::maximum, f32::max),
        ("minimum", Array::minimum, f32::min),
        ("logaddexp", Array::logaddexp, |x, y| (x.exp() + y.exp()).ln()),
        ("equal", Array::equal, |x, y| truth(x == y)),
        ("not_equal", Array::not_equal, |x, y| truth(x != y)),
        ("less", Array::less, |x, y| truth(x < y)),
        ("less_equal", Array::less_equal, |x, y| truth(x <= y)),
        ("greater", Array::greater, |x, y| truth(x > y)),
        ("greater_equal", Array::greater_equal, |x, y| truth(x >= y)),
        ("logical_and", Array::logical_and, |x, y| truth(x != 0.0 && y != 0.0)),
        ("logical_or", Array::logical_or, |x, y| truth(x != 0.0 || y != 0.0)),
    ];
    for (name, op, plain) in cases {
        let found = floats(&op(&vector(&X), &vector(&Y)).unwrap());
        let expected: Vec<f32> = X.iter().zip(Y).map(|(&x, y)| plain(x, y)).collect();
        assert_close(name, &found, &expected, 1e-5);
    }
    // A row against a column.
    let sum = array(&[1.0_f32, 2.0], &[2, 1]).add(&array(&[10.0_f32, 20.0], &[1, 2])).unwrap();
    assert_eq!(floats(&sum), [11.0, 21.0, 12.0, 22.0]);
}

#[test]
fn bits_of_two_arrays() {
    let (a, b) = (vector(&[0b1100_u32, 7, 1]), vector(&[0b1010_u32, 2, 31]));
    let cases: &[(&str, Binary, [u32; 3])] = &[
        ("and", Array::bitwise_and, [0b1000, 2, 1]),
        ("or", Array::bitwise_or, [0b1110, 7, 31]),
        ("xor", Array::bitwise_xor, [0b0110, 5, 30]),
        ("left", Array::left_shift, [0b1100 << 10, 28, 1 << 31]),
        ("right", Array::right_shift, [0, 1, 0]),
    ];
    for (name, op, expected) in cases {
        assert_eq!(op(&a, &b).unwrap().to_vec::<u32>().unwrap(), expected, "{name}");
    }
}

#[test]
fn products_and_choices() {
    let a = array(&[1.0_f32, 2.0, 3.0, 4.0], &[2, 2]);
    let b = array(&[5.0_f32, 6.0, 7.0, 8.0], &[2, 2]);
    assert_eq!(floats(&a.matmul(&b).unwrap()), [19.0, 22.0, 43.0, 50.0]);
    let c = array(&[1.0_f32, -1.0], &[1, 2]).broadcast_to(&[2, 2]).unwrap();
    assert_eq!(floats(&c.addmm(&a, &b, 2.0, 3.0).unwrap()), [41.0, 41.0, 89.0, 97.0]);
    let chosen = vector(&[true, false, true, false]).reshape(&[2, 2]).unwrap().where_(&a, &b);
    assert_eq!(floats(&chosen.unwrap()), [1.0, 6.0, 3.0, 8.0]);
    for dtype in [Dtype::Float16, Dtype::Bfloat16] {
        let product = a.astype(dtype).unwrap().matmul(&b.astype(dtype).unwrap()).unwrap();
        assert_eq!((product.dtype(), floats(&product)), (dtype, vec![19.0, 22.0, 43.0, 50.0]));
    }
}

#[test]
fn dtypes_are_kept_by_scalars_and_changed_on_request() {
    let x = vector(&[bf16::from_f32(1.5), bf16::from_f32(-2.0)]);
    for y in [x.mul_scalar(3.0).unwrap(), x.add_scalar(3.0).unwrap()] {
        assert_eq!(y.dtype(), Dtype::Bfloat16);
    }
    assert_eq!(floats(&x.mul_scalar(3.0).unwrap()), [4.5, -6.0]);
    assert_eq!(floats(&x.add_scalar(3.0).unwrap()), [4.5, 1.0]);
    let promoted = x.multiply(&Array::scalar(3.0_f32).unwrap()).unwrap();
    assert_eq!(promoted.dtype(), Dtype::Float32, "the trap that they are there for");

    let x = vector(&[-1.7_f32, 0.0, 300.0]);
    assert_eq!(x.astype(Dtype::Int32).unwrap().to_vec::<i32>().unwrap(), [-1, 0, 300]);
    assert_eq!(x.astype(Dtype::Bool).unwrap().to_vec::<bool>().unwrap(), [true, false, true]);
    let half = x.astype(Dtype::Float16).unwrap().to_vec::<f16>().unwrap();
    assert_eq!(half, [-1.7, 0.0, 300.0].map(f16::from_f32));
    let bits = vector(&[1.0_f32]).view(Dtype::Uint32).unwrap().to_vec::<u32>().unwrap();
    assert_eq!(bits, [1.0_f32.to_bits()]);
    assert_eq!(vector(&[1_u32, 2]).view(Dtype::Uint8).unwrap().shape(), [8]);
}

#[test]
fn arrays_hold_what_they_were_given() {
    fn there_and_back<T: mlx::Element + PartialEq + std::fmt::Debug>(values: &[T; 4]) {
        let array = array(values, &[2, 2]);
        assert_eq!(array.dtype(), T::DTYPE);
        assert_eq!(array.to_vec::<T>().unwrap(), values);
        assert_eq!(array.nbytes(), 4 * array.dtype().size_in_bytes());
        // Other strides than row-major.
        let [a, b, c, d] = *values;
        let transposed = array.transpose(&[1, 0]).unwrap();
        assert_eq!(transposed.to_vec::<T>().unwrap(), [a, c, b, d]);
        let last = array.slice(&[0, 1], &[2, 2], &[1, 1]).unwrap();
        assert_eq!(last.to_vec::<T>().unwrap(), [b, d]);
        assert_eq!(last.slice(&[0, 0], &[1, 1], &[1, 1]).unwrap().item::<T>().unwrap(), b);
    }
    there_and_back(&[true, false, false, true]);
    there_and_back(&[0_u8, 1, 2, u8::MAX]);
    there_and_back(&[0_u16, 1, 2, u16::MAX]);
    there_and_back(&[0_u32, 1, 2, u32::MAX]);
    there_and_back(&[0_u64, 1, 2, u64::MAX]);
    there_and_back(&[i8::MIN, 1, 2, i8::MAX]);
    there_and_back(&[i16::MIN, 1, 2, i16::MAX]);
    there_and_back(&[i32::MIN, 1, 2, i32::MAX]);
    there_and_back(&[i64::MIN, 1, 2, i64::MAX]);
    there_and_back(&[-1.0, 0.5, 2.0, 3.0].map(f16::from_f32));
    there_and_back(&[-1.0, 0.5, 2.0, 3.0].map(bf16::from_f32));
    there_and_back(&[-1.0_f32, 0.5, f32::MIN, f32::MAX]);
    there_and_back(&[-1.0_f64, 0.5, f64::MIN, f64::MAX]);

    assert_eq!(array::<f32>(&[], &[0, 3]).to_vec::<f32>().unwrap(), [0.0; 0]);
    let scalar = Array::scalar(7_i32).unwrap();
    assert_eq!((scalar.shape(), scalar.item::<i32>().unwrap()), (vec![], 7));
    let bytes = Array::from_bytes(&[1, 0, 0, 0], &[1], Dtype::Uint32).unwrap();
    assert_eq!(bytes.item::<u32>().unwrap(), 1);
    assert_eq!(format!("{:?}", Array::zeros(&[2, 3], Dtype::Int8).unwrap()), "Array(int8 [2, 3])");
}

#[test]
fn made_arrays() {
    assert_eq!(floats(&Array::full(&[2], 1.5, Dtype::Bfloat16).unwrap()), [1.5, 1.5]);
    assert_eq!(Array::ones(&[2], Dtype::Int32).unwrap().to_vec::<i32>().unwrap(), [1, 1]);
    assert_eq!(Array::zeros(&[2], Dtype::Bool).unwrap().to_vec::<bool>().unwrap(), [false; 2]);
    let row = Array::full_array(&[2, 2], &vector(&[1_i32, 2]), Dtype::Int32).unwrap();
    assert_eq!(row.to_vec::<i32>().unwrap(), [1, 2, 1, 2]);
    let range = Array::arange(1.0, 7.0, 2.0, Dtype::Int32).unwrap();
    assert_eq!(range.to_vec::<i32>().unwrap(), [1, 3, 5]);
    let x = array(&[1.0_f32; 9], &[3, 3]);
    assert_eq!(floats(&x.tril(0).unwrap()), [1., 0., 0., 1., 1., 0., 1., 1., 1.]);
    assert_eq!(floats(&x.triu(1).unwrap()), [0., 1., 1., 0., 0., 1., 0., 0., 0.]);
}

#[test]
fn folds_and_orders() {
    let x = array(&[3.0_f32, 1.0, 2.0, -1.0, 5.0, 0.0], &[2, 3]);
    let folds: &[(&str, Array, &[f32])] = &[
        ("sum", x.sum(&[1], false).unwrap(), &[6.0, 4.0]),
        ("sum of all", x.sum(&[0, 1], false).unwrap(), &[10.0]),
        ("sum of none", x.sum(&[], false).unwrap(), &[3.0, 1.0, 2.0, -1.0, 5.0, 0.0]),
        ("prod", x.prod(&[0], false).unwrap(), &[-3.0, 5.0, 0.0]),
        ("max", x.max(&[-1], false).unwrap(), &[3.0, 5.0]),
        ("min", x.min(&[0], false).unwrap(), &[-1.0, 1.0, 0.0]),
        ("mean", x.mean(&[1], false).unwrap(), &[2.0, 4.0 / 3.0]),
        ("argmax", x.argmax(-1, false).unwrap(), &[0.0, 1.0]),
        ("argmin", x.argmin(0, false).unwrap(), &[1.0, 0.0, 1.0]),
        ("all", x.all(&[1], false).unwrap(), &[1.0, 0.0]),
        ("any", x.any(&[1], false).unwrap(), &[1.0, 1.0]),
        ("cumsum", x.cumsum(1, false, true).unwrap(), &[3.0, 4.0, 6.0, -1.0, 4.0, 4.0]),
        ("reverse", x.cumsum(1, true, true).unwrap(), &[6.0, 3.0, 2.0, 4.0, 5.0, 0.0]),
        ("exclusive", x.cumsum(1, false, false).unwrap(), &[0.0, 3.0, 4.0, 0.0, -1.0, 4.0]),
        ("sort", x.sort(1).unwrap(), &[1.0, 2.0, 3.0, -1.0, 0.0, 5.0]),
        ("argsort", x.argsort(1).unwrap(), &[1.0, 2.0, 0.0, 0.0, 2.0, 1.0]),
        ("topk", x.topk(2, 1).unwrap().sort(1).unwrap(), &[2.0, 3.0, 0.0, 5.0]),
    ];
    for (name, found, expected) in folds {
        assert_close(name, &floats(found), expected, 1e-6);
    }
    assert_eq!(x.max(&[1], true).unwrap().shape(), [2, 1]);
    let lse = floats(&x.logsumexp(&[1], false).unwrap());
    let plain = |row: &[f32]| row.iter().map(|x| x.exp()).sum::<f32>().ln();
    assert_close("logsumexp", &lse, &[plain(&[3., 1., 2.]), plain(&[-1., 5., 0.])], 1e-5);
    for precise in [false, true] {
        let softmax = floats(&x.softmax(-1, precise).unwrap());
        let plain: Vec<f32> = [3., 1., 2.].map(|x: f32| (x - lse[0]).exp()).to_vec();
        assert_close("softmax", &softmax[..3], &plain, 1e-5);
    }

    let median = x.partition(1, 1).unwrap().slice(&[0, 1], &[2, 2], &[1, 1]).unwrap();
    assert_eq!(floats(&median), [2.0, 0.0]);
    let place = x.argpartition(1, 1).unwrap().slice(&[0, 1], &[2, 2], &[1, 1]).unwrap();
    assert_eq!(place.to_vec::<u32>().unwrap(), [2, 2]);
}

#[test]
fn shapes() {
    let x = Array::arange(0.0, 6.0, 1.0, Dtype::Int32).unwrap().reshape(&[2, 3]).unwrap();
    let ints = |array: &Array| array.to_vec::<i32>().unwrap();
    let cases: &[(&str, Array, &[usize], &[i32])] = &[
        ("transpose", x.transpose(&[1, 0]).unwrap(), &[3, 2], &[0, 3, 1, 4, 2, 5]),
        ("swapaxes", x.swapaxes(-1, 0).unwrap(), &[3, 2], &[0, 3, 1, 4, 2, 5]),
        ("expand_dims", x.expand_dims(-1).unwrap(), &[2, 3, 1], &[0, 1, 2, 3, 4, 5]),
        ("squeeze", x.expand_dims(1).unwrap().squeeze(1).unwrap(), &[2, 3], &[0, 1, 2, 3, 4, 5]),
        ("flatten", x.flatten(0, -1).unwrap(), &[6], &[0, 1, 2, 3, 4, 5]),
        ("tile", x.tile(&[1, 2]).unwrap(), &[2, 6], &[0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]),
        ("repeat", vector(&[1_i32, 2]).repeat(2, 0).unwrap(), &[4], &[1, 1, 2, 2]),
        ("roll", x.roll(1, 1).unwrap(), &[2, 3], &[2, 0, 1, 5, 3, 4]),
        (
            "stack",
            Array::stack(&[&x, &x], 1).unwrap(),
            &[2, 2, 3],
            &[0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5],
        ),
        (
            "concatenate",
            Array::concatenate(&[&x, &x], 0).unwrap(),
            &[4, 3],
            &[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5],
        ),
        ("broadcast", vector(&[1_i32, 2]).broadcast_to(&[2, 2]).unwrap(), &[2, 2], &[1, 2, 1, 2]),
        ("slice", x.slice(&[0, -1], &[2, -4], &[1, -2]).unwrap(), &[2, 2], &[2, 0, 5, 3]),
        (
            "pad",
            x.pad(&[(0, 0), (1, 0)], &Array::scalar(9_i32).unwrap()).unwrap(),
            &[2, 4],
            &[9, 0, 1, 2, 9, 3, 4, 5],
        ),
    ];
    for (name, found, shape, values) in cases {
        assert_eq!((&found.shape()[..], &ints(found)[..]), (*shape, *values), "{name}");
    }
    let halves = x.split(3, 1).unwrap();
    assert_eq!(halves.iter().map(ints).collect::<Vec<_>>(), [[0, 3], [1, 4], [2, 5]]);
    let parts = x.split_at(&[1], 1).unwrap();
    assert_eq!(parts.iter().map(ints).collect::<Vec<_>>(), [vec![0, 3], vec![1, 2, 4, 5]]);
    assert_eq!((x.dim(-1), x.dim(0), x.ndim(), x.size()), (3, 2, 2, 6));
}

#[test]
fn parts_are_read_and_written() {
    let x = Array::arange(0.0, 6.0, 1.0, Dtype::Int32).unwrap().reshape(&[3, 2]).unwrap();
    let ints = |array: &Array| array.to_vec::<i32>().unwrap();
    assert_eq!(ints(&x.take(&vector(&[2_i32, 0]), 0).unwrap()), [4, 5, 0, 1]);
    assert_eq!(x.take(&array(&[0_u32; 4], &[2, 2]), 1).unwrap().shape(), [3, 2, 2]);
    let column = array(&[1_i32, 0, 1], &[3, 1]);
    assert_eq!(ints(&x.take_along_axis(&column, 1).unwrap()), [1, 2, 5]);
    let put = x.put_along_axis(&column, &array(&[-1_i32, -2, -3], &[3, 1]), 1).unwrap();
    assert_eq!(ints(&put), [0, -1, -2, 3, 4, -3]);
    let update = Array::scalar(9_i32).unwrap();
    let updated = x.slice_update(&update, &[1, 0], &[3, 1], &[1, 1]).unwrap();
    assert_eq!(ints(&updated), [0, 1, 9, 3, 9, 5]);

    // Updates come in another dtype, the result does not.
    let rows = array(&[7.0_f32, 8.0, 9.0, 10.0], &[2, 2]);
    let put = x.put_rows(&vector(&[2_i32, 0]), &rows).unwrap();
    assert_eq!(ints(&put), [9, 10, 2, 3, 7, 8]);
    assert_eq!(ints(&x), [0, 1, 2, 3, 4, 5], "the old array is as it was");
    let put = vector(&[1_i32, 2, 3]).put_rows(&vector(&[1_u32]), &vector(&[5_i32])).unwrap();
    assert_eq!(ints(&put), [1, 5, 3]);
}
