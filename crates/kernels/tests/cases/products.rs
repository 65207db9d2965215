//! Products with quantized weights.

use kernels::{Call, QmmTiling, QmvSpec, qmm_few, qmv_batch};
use mlx::Dtype;
use rand::{Rng, rngs::SmallRng};

use super::{Data, Device, Value, any_dtype, compare, epsilon, floats, random, rng, rounded};

/// Random weights, and rows of x for them.
struct Product {
    spec: QmvSpec,
    x: Vec<f32>,
    words: Vec<u32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Product {
    fn new(rng: &mut SmallRng, spec: QmvSpec) -> Self {
        let QmvSpec { rows, inputs, outputs, bits, group_size, dtype, .. } = spec;
        let groups = outputs * inputs / group_size;
        let scales = spec.scale_dtype;
        Self {
            spec,
            x: random(rng, dtype, rows * inputs),
            words: (0..outputs * inputs * bits / 32).map(|_| rng.random()).collect(),
            scales: random(rng, scales, groups),
            biases: random(rng, scales, groups),
        }
    }

    /// Runs the call for `rows` rows of x, from `first` on.
    fn run(&self, device: &dyn Device, call: &Call, first: usize) -> Result<Vec<f32>, String> {
        let QmvSpec { inputs, outputs, bits, group_size, dtype, .. } = self.spec;
        let rows = call.outputs[0].0[0];
        let words = Value {
            dtype: Dtype::Uint32,
            shape: vec![outputs, inputs * bits / 32],
            data: Data::Uints(self.words.clone()),
        };
        let groups = [outputs, inputs / group_size];
        let inputs_of_call = [
            &floats(dtype, &[rows, inputs], &self.x[first * inputs..][..rows * inputs]),
            &words,
            &floats(self.spec.scale_dtype, &groups, &self.scales),
            &floats(self.spec.scale_dtype, &groups, &self.biases),
        ];
        Ok(device.run(call, &inputs_of_call)?.outputs.remove(0))
    }

    fn weight(&self, at: usize) -> f64 {
        let QmvSpec { bits, group_size, .. } = self.spec;
        let in_word = 32 / bits;
        let quantized = self.words[at / in_word] >> (at % in_word * bits) & ((1 << bits) - 1);
        let group = at / group_size;
        f64::from(quantized) * f64::from(self.scales[group]) + f64::from(self.biases[group])
    }

    /// Compares with sums in f64 of weights in `weight_dtype`.
    fn compare(&self, actual: &[f32], weight_dtype: Dtype) -> Result<f64, String> {
        let QmvSpec { inputs, outputs, dtype, .. } = self.spec;
        let weights: Vec<f64> = (0..outputs * inputs)
            .map(|at| f64::from(rounded(weight_dtype, self.weight(at) as f32)))
            .collect();
        let (mut expected, mut largest) = (Vec::new(), 1.0_f64);
        for row in self.x.chunks(inputs) {
            for weights in weights.chunks(inputs) {
                let terms = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * w);
                let (sum, size) =
                    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                expected.push(sum);
                largest = largest.max(size);
            }
        }
        // Sums of large terms may be small: their rounding is that of the terms.
        let tolerance = epsilon(dtype) + 1e-6 * largest;
        compare(actual, &expected, tolerance).map_err(|error| format!("{error}, {:?}", self.spec))
    }
}

/// Rows of x and groups of the weights are up to the caller.
fn spec(shapes: &mut SmallRng, dtype: Dtype, most_outputs: usize) -> QmvSpec {
    let group_size = [32, 64, 128][shapes.random_range(0..3)];
    let bits = [4, 8][shapes.random_range(0..2)];
    let outputs = shapes.random_range(1..most_outputs);
    let scale_dtype = dtype;
    QmvSpec { rows: 1, inputs: group_size, outputs, bits, group_size, dtype, scale_dtype }
}

/// A few rows without the matrix unit.
pub(crate) fn qmv(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let mut spec = spec(&mut shapes, dtype, 80);
    spec.rows = shapes.random_range(1..=16);
    spec.inputs *= shapes.random_range(1..20);
    // Checkpoints keep f16 scales where activations are f32.
    if dtype == Dtype::Float32 && shapes.random() {
        spec.scale_dtype = Dtype::Float16;
    }
    let product = Product::new(&mut rng(seed), spec);
    let call = qmv_batch::call(&spec).map_err(|error| error.to_string())?;
    product.compare(&product.run(device, &call, 0)?, Dtype::Float32)
}

/// On the matrix unit. Every row alone, and another tiling, give the same bits.
pub(crate) fn qmm(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = [Dtype::Float16, Dtype::Bfloat16][shapes.random_range(0..2)];
    let mut spec = spec(&mut shapes, dtype, 70);
    let token_tiles = [1, 2, 4, 8][shapes.random_range(0..4)];
    let stages = shapes.random_range(1..=2);
    let tiling = QmmTiling {
        row_tiles: shapes.random_range(1..=2),
        token_tiles,
        stages,
        octets_ahead: stages * shapes.random_range(1..=2),
    };
    let rng = &mut rng(seed);
    spec.rows = rng.random_range(1..=(8 * token_tiles + 4).min(qmm_few::MAX_ROWS));
    spec.inputs *= rng.random_range(1..20);
    let product = Product::new(rng, spec);
    let call = |rows, tiling| {
        qmm_few::call(&QmvSpec { rows, ..spec }, tiling).map_err(|error| error.to_string())
    };
    let all = product.run(device, &call(spec.rows, tiling)?, 0)?;
    let row = rng.random_range(0..spec.rows);
    let one = QmvSpec { rows: 1, ..spec };
    let alone = product.run(device, &call(1, QmmTiling::new(&one))?, row)?;
    if alone != all[row * spec.outputs..][..spec.outputs] {
        return Err(format!("row {row} alone differs, {spec:?}, {tiling:?}"));
    }
    product.compare(&all, dtype)
}
