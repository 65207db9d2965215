//! Products with quantized weights.

use std::ops::Range;

use kernels::{Call, GatherSpec, QmmTiling, QmvSpec, qmm_few, qmv_batch};
use mlx::Dtype;
use rand::{Rng, rngs::SmallRng};

use super::{
    Data, Device, Value, any_dtype, chain, compare, epsilon, floats, random, rng, rounded, sizes,
};

/// Random weights, of several experts if it has slots, and rows of x for them.
struct Product {
    spec: QmvSpec,
    x: Vec<f32>,
    num_experts: usize,
    words: Vec<u32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Product {
    fn new(rng: &mut SmallRng, spec: QmvSpec, num_experts: usize) -> Self {
        let QmvSpec { rows, inputs, outputs, bits, group_size, dtype, scale_dtype } = spec;
        let elements = num_experts * outputs * inputs;
        Self {
            spec,
            x: random(rng, dtype, rows * inputs),
            num_experts,
            words: (0..elements * bits / 32).map(|_| rng.random()).collect(),
            scales: random(rng, scale_dtype, elements / group_size),
            biases: random(rng, scale_dtype, elements / group_size),
        }
    }

    /// Arrays of the call: x (its given rows), words, scales, biases.
    fn arrays(&self, rows: Range<usize>) -> [Value; 4] {
        let QmvSpec { inputs, outputs, bits, group_size, dtype, scale_dtype, .. } = self.spec;
        let matrix = |columns| match self.num_experts {
            1 => vec![outputs, columns],
            experts => vec![experts, outputs, columns],
        };
        let words = Value {
            dtype: Dtype::Uint32,
            shape: matrix(inputs * bits / 32),
            data: Data::Uints(self.words.clone()),
        };
        let groups = matrix(inputs / group_size);
        let x = &self.x[rows.start * inputs..rows.end * inputs];
        [
            floats(dtype, &[rows.len(), inputs], x),
            words,
            floats(scale_dtype, &groups, &self.scales),
            floats(scale_dtype, &groups, &self.biases),
        ]
    }

    fn run(
        &self,
        device: &dyn Device,
        call: &Call,
        rows: Range<usize>,
        experts: Option<&[usize]>,
    ) -> Result<Vec<f32>, String> {
        let arrays = self.arrays(rows);
        let experts = experts.map_or_else(chain, sizes);
        let mut inputs: Vec<&Value> = arrays.iter().chain([&experts]).collect();
        inputs.truncate(call.kernel.inputs().len());
        Ok(device.run(call, &inputs)?.outputs.remove(0))
    }

    fn weight(&self, at: usize) -> f64 {
        let QmvSpec { bits, group_size, .. } = self.spec;
        let in_word = 32 / bits;
        let quantized = self.words[at / in_word] >> (at % in_word * bits) & ((1 << bits) - 1);
        let group = at / group_size;
        f64::from(quantized) * f64::from(self.scales[group]) + f64::from(self.biases[group])
    }

    /// Compares with sums in f64 of weights in `weight_dtype`. `slots` are row of x
    /// and expert of each row.
    fn compare(
        &self,
        actual: &[f32],
        weight_dtype: Dtype,
        slots: &[(usize, usize)],
    ) -> Result<f64, String> {
        let QmvSpec { inputs, outputs, dtype, .. } = self.spec;
        let weights: Vec<f64> = (0..self.num_experts * outputs * inputs)
            .map(|at| f64::from(rounded(weight_dtype, self.weight(at) as f32)))
            .collect();
        let (mut expected, mut largest) = (Vec::new(), 1.0_f64);
        for (row, expert) in slots {
            let row = &self.x[row * inputs..][..inputs];
            for weights in weights[expert * outputs * inputs..][..outputs * inputs].chunks(inputs) {
                let terms = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * w);
                let (sum, size) =
                    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                expected.push(sum);
                largest = largest.max(size);
            }
        }
        // Sums of large terms may be small: their rounding is that of the terms. Matrix
        // units cut off what they add to a sum where the emulator rounds.
        let tolerance = epsilon(dtype) + 2e-6 * largest;
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
    let product = Product::new(&mut rng(seed), spec, 1);
    let call = qmv_batch::call(&spec).map_err(|error| error.to_string())?;
    let out = product.run(device, &call, 0..spec.rows, None)?;
    product.compare(&out, Dtype::Float32, &every_row(spec.rows))
}

fn every_row(rows: usize) -> Vec<(usize, usize)> {
    (0..rows).map(|row| (row, 0)).collect()
}

fn short_dtype(shapes: &mut SmallRng) -> Dtype {
    [Dtype::Float16, Dtype::Bfloat16][shapes.random_range(0..2)]
}

fn any_tiling(shapes: &mut SmallRng) -> QmmTiling {
    QmmTiling {
        row_tiles: shapes.random_range(1..=2),
        token_tiles: [1, 2, 4, 8][shapes.random_range(0..4)],
        groups_ahead: [1, 2, 4][shapes.random_range(0..3)],
        octets_ahead: [1, 2, 4][shapes.random_range(0..3)],
        simdgroups: 8,
    }
}

/// On the matrix unit. Every row alone, and another tiling, give the same bits.
pub(crate) fn qmm(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = short_dtype(&mut shapes);
    let mut spec = spec(&mut shapes, dtype, 70);
    let tiling = any_tiling(&mut shapes);
    let rng = &mut rng(seed);
    spec.rows = rng.random_range(1..=(8 * tiling.token_tiles + 4).min(qmm_few::MAX_ROWS));
    spec.inputs *= rng.random_range(1..20);
    if shape == 0 {
        // Fewer simdgroups share the columns of a tall matrix.
        spec = QmvSpec { rows: 3, inputs: 5 * spec.group_size, outputs: 4100, ..spec };
    }
    let product = Product::new(rng, spec, 1);
    let call = |rows, tiling| {
        qmm_few::call(&QmvSpec { rows, ..spec }, tiling).map_err(|error| error.to_string())
    };
    let all = product.run(device, &call(spec.rows, tiling)?, 0..spec.rows, None)?;
    let row = rng.random_range(0..spec.rows);
    let usual = QmmTiling::new(&QmvSpec { rows: 1, ..spec });
    let alone = product.run(device, &call(1, usual)?, row..row + 1, None)?;
    if alone != all[row * spec.outputs..][..spec.outputs] {
        return Err(format!("row {row} alone differs, {spec:?}, {tiling:?}"));
    }
    product.compare(&all, Dtype::Float32, &every_row(spec.rows))
}

/// On the matrix unit, each row of the result with weights of its own.
pub(crate) fn gather_qmm(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = short_dtype(&mut shapes);
    let mut product = spec(&mut shapes, dtype, 40);
    let tiling = QmmTiling {
        token_tiles: shapes.random_range(1..=2),
        simdgroups: [2, 4, 8][shapes.random_range(0..3)],
        ..any_tiling(&mut shapes)
    };
    let slots_per_row = shapes.random_range(1..=4);
    let rng = &mut rng(seed);
    product.rows = rng.random_range(1..=20);
    // From 16 groups on simdgroups share the columns.
    product.inputs *= [1, 2, 5, 7, 17, 33][rng.random_range(0..6)];
    let num_experts = rng.random_range(2..=6);
    let spec = GatherSpec { product, num_experts, slots_per_row };
    let experts: Vec<usize> =
        (0..spec.num_slots()).map(|_| rng.random_range(0..num_experts)).collect();
    let call = qmm_few::gather_call(&spec, tiling).map_err(|error| error.to_string())?;
    let product = Product::new(rng, product, num_experts);
    let out = product.run(device, &call, 0..product.spec.rows, Some(&experts))?;
    let slots: Vec<_> =
        experts.iter().enumerate().map(|(slot, expert)| (slot / slots_per_row, *expert)).collect();
    product.compare(&out, Dtype::Float32, &slots)
}
