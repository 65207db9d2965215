//! Every path against a plain sum in f64, and rows that do not depend on others.

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;

fn random(rng: &mut SmallRng, len: usize) -> Vec<f32> {
    // Values that bf16 and f16 hold exactly.
    (0..len).map(|_| f32::from(rng.random_range(-100_i8..100)) / 64.0).collect()
}

fn run(isa: Isa, shape: [usize; 3], x: &[f32], w: Values<'_>) -> Vec<f32> {
    let mut y = vec![f32::NAN; shape[0] * shape[1]];
    matmul_with(isa, shape, Values::F32(x), w, &mut ValuesMut::F32(&mut y));
    y
}

#[test]
fn every_path_agrees_with_f64_for_every_type() {
    let mut rng = SmallRng::seed_from_u64(1);
    for columns in [1, 31, 32, 63, 100, 256] {
        for (num_rows, rows) in [(1, 9), (2, 4), (3, 1), (4, 33), (5, 6), (7, 12), (14, 21)] {
            let (x, w) = (random(&mut rng, num_rows * columns), random(&mut rng, rows * columns));
            let w_bf16: Vec<bf16> = w.iter().map(|value| bf16::from_f32(*value)).collect();
            let w_f16: Vec<f16> = w.iter().map(|value| f16::from_f32(*value)).collect();
            let expected: Vec<f64> = x
                .chunks(columns)
                .flat_map(|x| w.chunks(columns).map(move |w| (x, w)))
                .map(|(x, w)| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum())
                .collect();
            for isa in Isa::available() {
                let shape = [num_rows, rows, columns];
                let y = run(isa, shape, &x, Values::F32(&w));
                for (y, expected) in y.iter().zip(&expected) {
                    assert!((f64::from(*y) - expected).abs() < 1e-4, "{shape:?} {isa:?}");
                }
                assert_eq!(run(isa, shape, &x, Values::Bf16(&w_bf16)), y, "{shape:?} {isa:?}");
                assert_eq!(run(isa, shape, &x, Values::F16(&w_f16)), y, "{shape:?} {isa:?}");
            }
        }
    }
}

#[test]
fn a_row_depends_on_nothing_else() {
    let mut rng = SmallRng::seed_from_u64(2);
    let [rows, columns] = [45, 77];
    let x: Vec<f32> = (0..25 * columns).map(|_| rng.random_range(-1.0..1.0)).collect();
    let w: Vec<f32> = (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect();
    for isa in Isa::available() {
        let alone: Vec<f32> = x
            .chunks(columns)
            .flat_map(|x| run(isa, [1, rows, columns], x, Values::F32(&w)))
            .collect();
        for num_rows in 1..=25 {
            let x = &x[..num_rows * columns];
            let y = run(isa, [num_rows, rows, columns], x, Values::F32(&w));
            assert_eq!(y, alone[..num_rows * rows], "{num_rows} rows, {isa:?}");
        }
    }
}
