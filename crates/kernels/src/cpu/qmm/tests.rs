//! Every path against a plain sum in f64, and rows that do not depend on others.

use half::{bf16, f16};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;
use crate::cpu::parallel::set_num_threads;

/// A matrix of random weights, and the same unpacked.
struct Case {
    weight: Vec<u32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
    dense: Vec<f32>,
    shape: [usize; 2],
    group_size: usize,
    bits: usize,
}

impl Case {
    fn new(rng: &mut SmallRng, shape: [usize; 2], group_size: usize, bits: usize) -> Self {
        let [rows, columns] = shape;
        let num_groups = rows * columns / group_size;
        // Values that bf16 and f16 hold exactly.
        let mut small = || f32::from(rng.random_range(-64_i8..64)) / 1024.0;
        let scales: Vec<f32> = (0..num_groups).map(|_| small()).collect();
        let biases: Vec<f32> = (0..num_groups).map(|_| small()).collect();
        let mut weight = vec![0_u32; rows * columns * bits / 32];
        let mut dense = vec![0.0; rows * columns];
        for (at, dense) in dense.iter_mut().enumerate() {
            let q = rng.random_range(0..1_u64 << bits);
            let (bit, group) = (at * bits, at / group_size);
            let wide = q << (bit % 32);
            weight[bit / 32] |= wide as u32;
            if wide >> 32 != 0 {
                weight[bit / 32 + 1] |= (wide >> 32) as u32;
            }
            *dense = scales[group] * q as f32 + biases[group];
        }
        Self { weight, scales, biases, dense, shape, group_size, bits }
    }

    fn matrix(&self) -> QuantizedMatrix<'_> {
        self.matrix_with(Values::F32(&self.scales), Values::F32(&self.biases))
    }

    fn matrix_with<'a>(&'a self, scales: Values<'a>, biases: Values<'a>) -> QuantizedMatrix<'a> {
        let [rows, columns] = self.shape;
        let (group_size, bits) = (self.group_size, self.bits);
        QuantizedMatrix { weight: &self.weight, scales, biases, rows, columns, group_size, bits }
    }

    fn run(&self, isa: Isa, x: &[f32]) -> Vec<f32> {
        let num_rows = x.len() / self.shape[1];
        let mut y = vec![f32::NAN; num_rows * self.shape[0]];
        let out = &mut ValuesMut::F32(&mut y);
        quantized_matmul_with(isa, num_rows, Values::F32(x), &self.matrix(), out);
        y
    }

    /// The largest error of `y`, relative to the sum of absolute products.
    fn error(&self, x: &[f32], y: &[f32]) -> f64 {
        let [rows, columns] = self.shape;
        let mut worst = 0.0_f64;
        for (x, y) in x.chunks(columns).zip(y.chunks(rows)) {
            for (w, y) in self.dense.chunks(columns).zip(y) {
                let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let sum: f64 = products().sum();
                let scale: f64 = products().map(f64::abs).sum();
                worst = worst.max((sum - f64::from(*y)).abs() / scale.max(1e-30));
            }
        }
        worst
    }
}

fn activations(rng: &mut SmallRng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

#[test]
fn every_path_agrees_with_f64() {
    let mut rng = SmallRng::seed_from_u64(1);
    for bits in BITS {
        for (group_size, shape) in [(32, [37, 96]), (64, [16, 192]), (128, [5, 256])] {
            let case = Case::new(&mut rng, shape, group_size, bits);
            for num_rows in [1, 2, 3, 4, 5, 6, 7, 13] {
                let x = activations(&mut rng, num_rows * shape[1]);
                for isa in Isa::available() {
                    let error = case.error(&x, &case.run(isa, &x));
                    assert!(error < 1e-6, "{bits} bits, {shape:?}, {num_rows}, {isa:?}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_row_depends_on_nothing_else() {
    let mut rng = SmallRng::seed_from_u64(2);
    for (bits, shape) in [(4, [61, 96]), (6, [34, 128]), (8, [130, 64])] {
        let case = Case::new(&mut rng, shape, 32, bits);
        let [rows, columns] = shape;
        let x = activations(&mut rng, 29 * columns);
        for isa in Isa::available() {
            let alone: Vec<f32> = x.chunks(columns).flat_map(|row| case.run(isa, row)).collect();
            for num_rows in 1..=29 {
                let y = case.run(isa, &x[..num_rows * columns]);
                assert_eq!(y, alone[..num_rows * rows], "{bits} bits, {num_rows} rows, {isa:?}");
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let mut rng = SmallRng::seed_from_u64(3);
    let case = Case::new(&mut rng, [515, 256], 64, 4);
    for num_rows in [1, 3, 20] {
        let x = activations(&mut rng, num_rows * 256);
        let many = case.run(Isa::detect(), &x);
        set_num_threads(1);
        let one = case.run(Isa::detect(), &x);
        set_num_threads(usize::MAX);
        assert_eq!(one, many);
    }
}

#[test]
fn other_element_types() {
    let mut rng = SmallRng::seed_from_u64(4);
    let case = Case::new(&mut rng, [43, 128], 32, 4);
    let isa = Isa::detect();
    for num_rows in [1, 3, 11] {
        let x = activations(&mut rng, num_rows * 128);
        let x_bf16: Vec<bf16> = x.iter().map(|value| bf16::from_f32(*value)).collect();
        let x_f16: Vec<f16> = x.iter().map(|value| f16::from_f32(*value)).collect();
        let narrow = |values: &[f32]| values.iter().map(|v| bf16::from_f32(*v)).collect::<Vec<_>>();
        let (scales, biases) = (narrow(&case.scales), narrow(&case.biases));
        let matrix = case.matrix_with(Values::Bf16(&scales), Values::Bf16(&biases));
        let mut y = vec![bf16::ZERO; num_rows * 43];
        let out = &mut ValuesMut::Bf16(&mut y);
        quantized_matmul_with(isa, num_rows, Values::Bf16(&x_bf16), &matrix, out);
        let widened: Vec<f32> = x_bf16.iter().map(|value| value.to_f32()).collect();
        assert_eq!(y, narrow(&case.run(isa, &widened)));

        let narrow = |values: &[f32]| values.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>();
        let (scales, biases) = (narrow(&case.scales), narrow(&case.biases));
        let matrix = case.matrix_with(Values::F16(&scales), Values::F16(&biases));
        let mut y = vec![f16::ZERO; num_rows * 43];
        let out = &mut ValuesMut::F16(&mut y);
        quantized_matmul_with(isa, num_rows, Values::F16(&x_f16), &matrix, out);
        let widened: Vec<f32> = x_f16.iter().map(|value| value.to_f32()).collect();
        assert_eq!(y, narrow(&case.run(isa, &widened)));
    }
}

#[test]
fn more_rows_than_are_worked_on_at_a_time() {
    let mut rng = SmallRng::seed_from_u64(5);
    let case = Case::new(&mut rng, [4, 32], 32, 8);
    let x = activations(&mut rng, 1027 * 32);
    assert!(case.error(&x, &case.run(Isa::detect(), &x)) < 1e-6);
}

#[test]
fn nothing_to_do() {
    let mut rng = SmallRng::seed_from_u64(6);
    assert_eq!(Case::new(&mut rng, [4, 32], 32, 4).run(Isa::detect(), &[]), []);
}
